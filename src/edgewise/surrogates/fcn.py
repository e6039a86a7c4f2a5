"""The fully connected surrogate: a small neural network over the mask."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.utils.validation import check_is_fitted

from .standardised import Regressor
from .threads import single_threaded
from .validation import Link, check_masks, check_observations, predict_losses, refuse_std


class FCN(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A multilayer perceptron fitted by L-BFGS to the standardised link-scale loss.

    It has no predictive standard deviation.

    Args:
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".
        hidden: widths of the hidden layers.
        weight_decay: the L2 penalty on the weights (scikit-learn's `alpha`).
        iterations: L-BFGS iterations at most; stopping early regularises, and is no warning.
        random_state: seed or RandomState of the initial weights.

    Examples:
        >>> model = ew.surrogates.FCN().fit(X, losses)
        >>> model.predict(candidates).shape
        (4,)
    """

    def __init__(
        self,
        *,
        link: Link = "log",
        hidden: tuple[int, ...] = (32,),
        weight_decay: float = 1.0,
        iterations: int = 300,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.link = link
        self.hidden = hidden
        self.weight_decay = weight_decay
        self.iterations = iterations
        self.random_state = random_state

    @single_threaded
    def fit(self, X: ArrayLike, y: ArrayLike) -> FCN:
        """Fit to masks [n_masks, n_units] (1 = removed) and losses [n_masks].

        Raises:
            ValueError: malformed masks or losses; losses outside the domain of the link.
        """
        masks, target = check_observations(X, y, self.link)
        self.n_features_in_ = masks.shape[1]
        model = MLPRegressor(
            hidden_layer_sizes=self.hidden,
            activation="tanh",
            solver="lbfgs",
            alpha=self.weight_decay,
            max_iter=self.iterations,
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.regressor_ = Regressor.fit(model, masks, target)
        return self

    predict = predict_losses

    def predict_link(self, X: ArrayLike, return_std: bool = False) -> Any:
        """As `predict`, on the link scale."""
        check_is_fitted(self)
        refuse_std(self, return_std)
        return self.regressor_.predict(check_masks(X, self.n_features_in_))
