"""The fully connected surrogate: a small neural network over the mask."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from .standardised import Regressor
from .surrogate import Surrogate
from .validation import Array, Link


class FCN(Surrogate):
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

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
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

    def _mean(self, masks: Array) -> Array:
        return self.regressor_.predict(masks)
