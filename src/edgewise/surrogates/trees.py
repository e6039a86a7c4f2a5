"""The boosted trees surrogate: what a general-purpose regressor makes of masks."""

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from .standardised import Regressor
from .surrogate import Surrogate
from .validation import Array, Link


class Trees(Surrogate):
    """Gradient-boosted regression trees on the link-scale loss (Friedman 2001, algorithm 1).

    A baseline that knows neither the graph nor an uncertainty: it has no predictive standard
    deviation. Every tree sees half of the masks and a third of the units (Friedman, "Stochastic
    gradient boosting", 2002), without which a few dozen masks are soon learned by heart.

    Args:
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".
        trees: how many.
        depth: decisions from the root to a leaf, at most: how many units may interact.
        rate: how much of its step each tree makes.
        random_state: seed or RandomState of the subsamples.

    Examples:
        >>> model = ew.surrogates.Trees().fit(X, losses)
        >>> model.predict(candidates).shape
        (4,)
    """

    def __init__(
        self,
        *,
        link: Link = "log",
        trees: int = 200,
        depth: int = 3,
        rate: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.link = link
        self.trees = trees
        self.depth = depth
        self.rate = rate
        self.random_state = random_state

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        model = GradientBoostingRegressor(
            n_estimators=self.trees,
            learning_rate=self.rate,
            max_depth=self.depth,
            subsample=0.5,
            max_features=1 / 3,
            random_state=self.random_state,
        )
        self.regressor_ = Regressor.fit(model, masks, target)

    def _mean(self, masks: Array) -> Array:
        return self.regressor_.predict(masks)
