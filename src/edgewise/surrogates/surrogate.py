"""What surrogates share: fits to checked masks, and predictions of them on either scale."""

from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from .threads import single_threaded
from .validation import (
    Array,
    Link,
    check_masks,
    check_observations,
    link_noise,
    original_scale,
)


class Surrogate(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor of masks: what differs between surrogates is `_learn` and `_mean`.

    Examples:
        >>> model = ew.surrogates.Linear().fit(X, losses)
        >>> model.predict(X).shape == losses.shape
        True
    """

    n_features_in_: int

    def __init__(self, *, link: Link = "log") -> None:
        self.link = link

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to masks [n_masks, n_units] (1 = removed) and losses [n_masks].

        Raises:
            ValueError: malformed masks or losses; losses outside the domain of the link.
        """
        return self._fit_to(X, y, None)

    @single_threaded
    def _fit_to(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None) -> Self:
        masks, target = self._checked(X, y)
        self.n_features_in_ = masks.shape[1]
        self._learn(masks, target, link_noise(noise, y, self.link))
        return self

    def _checked(self, X: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        graph = getattr(self, "graph", None)
        return check_observations(X, y, self.link, graph and len(graph.units))

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Losses [n_masks] in original units; with `return_std` also their standard deviation.

        The standard deviation is that of a new measurement: posterior and noise.

        Raises:
            ValueError: malformed masks, or `return_std` of a surrogate without an uncertainty.
        """
        return original_scale(self.predict_link(X, return_std), self.link)

    @single_threaded
    def predict_link(self, X: ArrayLike, return_std: bool = False) -> Any:
        """As `predict`, on the link scale."""
        check_is_fitted(self)
        return self._on_link(check_masks(X, self.n_features_in_), return_std)

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        """Means [n_masks] of checked masks, or (means, standard deviations)."""
        if return_std:
            name = type(self).__name__
            raise ValueError(
                f"{name} has no predictive standard deviation: call it with return_std=False, give "
                f"it one by Bootstrap({name}(...)), or use GraphGP, Degree2 or Linear."
            )
        return self._mean(masks)

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        """Fit to checked masks, their losses and known standard errors [n_masks] on the link."""
        raise NotImplementedError

    def _mean(self, masks: Array) -> Array:
        """Predictions [n_masks] of checked masks on the link scale."""
        raise NotImplementedError


class Probabilistic(Surrogate):
    """A surrogate with an uncertainty: it has `_learn` and `_on_link`.

    Examples:
        >>> noise = np.full(len(losses), 0.01)
        >>> model = ew.surrogates.UnitGP(graph).fit(X, losses, noise)
        >>> mean, deviation = model.predict(X, return_std=True)
        >>> bool((deviation > 0).all())
        True
    """

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:
        """Fit to masks [n_masks, n_units] (1 = removed) and losses [n_masks].

        Args:
            noise: [n_masks] standard errors of the losses, where they are known.

        Raises:
            ValueError: malformed masks, losses or noise; losses outside the domain of the link.
        """
        return self._fit_to(X, y, noise)
