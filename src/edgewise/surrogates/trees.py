"""The boosted trees surrogate: what a general-purpose regressor makes of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

from .standardised import Regressor
from .validation import Link, check_masks, check_observations, predict_losses, refuse_std


class Trees(RegressorMixin, BaseEstimator):  # type: ignore[misc]
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

    def fit(self, X: ArrayLike, y: ArrayLike) -> Trees:
        """Fit to masks [n_masks, n_units] (1 = removed) and losses [n_masks].

        Raises:
            ValueError: malformed masks or losses; losses outside the domain of the link.
        """
        masks, target = check_observations(X, y, self.link)
        self.n_features_in_ = masks.shape[1]
        model = GradientBoostingRegressor(
            n_estimators=self.trees,
            learning_rate=self.rate,
            max_depth=self.depth,
            subsample=0.5,
            max_features=1 / 3,
            random_state=self.random_state,
        )
        self.regressor_ = Regressor.fit(model, masks, target)
        return self

    predict = predict_losses

    def predict_link(self, X: ArrayLike, return_std: bool = False) -> Any:
        """As `predict`, on the link scale."""
        check_is_fitted(self)
        refuse_std(self, return_std)
        return self.regressor_.predict(check_masks(X, self.n_features_in_))
