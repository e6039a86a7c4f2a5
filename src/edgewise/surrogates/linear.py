"""The linear surrogate: every removed unit adds its own constant."""

from typing import Any

import numpy as np
from sklearn.linear_model import BayesianRidge

from .standardised import Regressor
from .surrogate import Probabilistic
from .validation import Array


class Linear(Probabilistic):
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

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        self.regressor_ = Regressor.fit(BayesianRidge(), masks, target, noise**2)
        shift, scale = self.regressor_.shift, self.regressor_.scale
        model = self.regressor_.model
        self.coef_: Array = np.zeros(masks.shape[1]) if model is None else scale * model.coef_
        self.intercept_ = shift if model is None else shift + scale * float(model.intercept_)

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        mean = self.regressor_.predict(masks)
        return (mean, self.regressor_.std(masks)) if return_std else mean
