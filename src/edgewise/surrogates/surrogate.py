"""What surrogates share: predictions of masks, in original units and on the scale of the fit."""

from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from .validation import Array, check_masks, predict_losses


class Surrogate(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor of masks: what differs between surrogates is their `fit` and `_on_link`.

    Examples:
        >>> model = ew.surrogates.Linear().fit(X, losses)
        >>> model.predict(X).shape == losses.shape
        True
    """

    n_features_in_: int
    predict = predict_losses

    def predict_link(self, X: ArrayLike, return_std: bool = False) -> Any:
        """As `predict`, on the link scale."""
        check_is_fitted(self)
        return self._on_link(check_masks(X, self.n_features_in_), return_std)

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        """Means [n_masks] of checked masks, or (means, standard deviations)."""
        raise NotImplementedError
