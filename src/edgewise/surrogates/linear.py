"""The linear surrogate: every removed unit adds its own constant."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import BayesianRidge

from .standardised import Regressor
from .surrogate import Surrogate
from .threads import single_threaded
from .validation import Array, Link, check_observations, link_noise


class Linear(Surrogate):
    """Bayesian ridge regression of the link-scale loss on the mask.

    The ridge is the ratio of two variances chosen by marginal likelihood (MacKay, "Bayesian
    interpolation", 1992), so that no cross-validation is needed and the posterior gives a
    standard deviation.

    Args:
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".

    Attributes:
        coef_: [n_units] what removing each unit adds on the link scale.
        intercept_: the prediction with nothing removed, on the link scale.

    Examples:
        >>> model = ew.surrogates.Linear().fit([[0, 0], [1, 0], [0, 1]], [0.4, 0.8, 0.4])
        >>> int(model.coef_.argmax())
        0
    """

    def __init__(self, *, link: Link = "log") -> None:
        self.link = link

    @single_threaded
    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:
        """Fit to masks [n_masks, n_units] (1 = removed) and losses [n_masks].

        Args:
            noise: [n_masks] standard errors of the losses, where they are known.

        Raises:
            ValueError: malformed masks, losses or noise; losses outside the domain of the link.
        """
        masks, target = check_observations(X, y, self.link)
        self.n_features_in_ = masks.shape[1]
        known = link_noise(noise, y, self.link) ** 2
        self.regressor_ = Regressor.fit(BayesianRidge(), masks, target, known)
        shift, scale = self.regressor_.shift, self.regressor_.scale
        model = self.regressor_.model
        self.coef_: Array = np.zeros(masks.shape[1]) if model is None else scale * model.coef_
        self.intercept_ = shift if model is None else shift + scale * float(model.intercept_)
        return self

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        mean = self.regressor_.predict(masks)
        return (mean, self.regressor_.std(masks)) if return_std else mean
