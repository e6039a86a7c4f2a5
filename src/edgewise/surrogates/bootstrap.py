"""An uncertainty for any regressor: how its predictions differ between resampled evaluations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from ..errors import EdgewiseError
from .cross_validation import spared
from .standardised import Regressor
from .surrogate import Probabilistic
from .validation import Array, Link, constant_std, is_constant

LEAST = 5  # masks of several removals, below which those of single ones are resampled too
KEPT = 200_000  # predictions that are remembered
FLOOR = 1e-6  # of the deviation of the target, below which no deviation is believed


class Bootstrap(Probabilistic):
    """Any scikit-learn regressor, with a deviation from fits to resampled evaluations.

    The mean is that of the regressor fitted to everything. Its variance is that of fits to
    bootstrap resamples (Efron, "Bootstrap methods: another look at the jackknife", 1979) plus the
    mean squared error of masks that were not in a resample ("out of bag": Breiman, "Bagging
    predictors", 1996), which stands for noise and misfit. What every search starts with and no
    search predicts, the empty mask and single removals, is in every resample: else the effect of
    a unit would be unknown to many of them. The regressor sees masks of 0 and 1 and a
    standardised target on the link scale. Settings called `random_state` that are None become
    that of this class, so that a fit depends on nothing but its arguments. Known standard errors of
    losses are weights of the evaluations, if the regressor takes any. One that cannot be fitted, or
    that predicts NaN or another shape, is an EdgewiseError.

    Args:
        model: a regressor with `fit` and `predict` that `sklearn.base.clone` can copy.
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".
        resamples: fits to resampled evaluations.
        random_state: seed of the resamples.

    Attributes:
        noise_: the error out of bag, on the link scale.

    Examples:
        >>> from sklearn.ensemble import RandomForestRegressor
        >>> model = ew.surrogates.Bootstrap(RandomForestRegressor(10)).fit(X, losses)
        >>> mean, deviation = model.predict(candidates, return_std=True)
        >>> bool((deviation > 0).all())
        True
    """

    def __init__(
        self, model: Any, *, link: Link = "log", resamples: int = 10, random_state: int = 0
    ) -> None:
        self.model = model
        self.link = link
        self.resamples = resamples
        self.random_state = random_state

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        # descents ask for the same masks again and again, and a forest takes its time
        self.known_: dict[bytes, tuple[float, float]] = {}
        known = noise**2
        self.regressor_ = self._fitted(masks, target, known)
        self.resampled_: list[Regressor] = []
        self.noise_ = constant_std(len(target))
        if not is_constant(target):
            rows = self._rows(masks)
            self.resampled_ = [self._fitted(masks[r], target[r], known[r]) for r in rows]
            self.noise_ = self._error_out_of_bag(masks, target, rows)

    def _rows(self, masks: Array) -> list[NDArray[np.intp]]:
        """The rows of each resample."""
        rng = np.random.default_rng(self.random_state)
        drawn = spared(masks)
        if drawn.sum() < LEAST:
            drawn = masks.sum(axis=1) > 0
        kept, pool = np.flatnonzero(~drawn), np.flatnonzero(drawn)
        return [np.concatenate([kept, rng.choice(pool, len(pool))]) for _ in range(self.resamples)]

    def _error_out_of_bag(self, masks: Array, target: Array, rows: list[NDArray[np.intp]]) -> float:
        """Root mean square of what the resamples without a mask mispredict it by, on average."""
        total, count = np.zeros(len(target)), np.zeros(len(target))
        for regressor, inside in zip(self.resampled_, rows, strict=True):
            out = np.setdiff1d(np.arange(len(target)), inside)
            total[out] += self._predicted(regressor, masks[out])
            count[out] += 1
        held, scale = count > 0, float(target.std())
        if not held.any():
            return scale
        error = total[held] / count[held] - target[held]
        return max(float(np.sqrt(np.mean(error**2))), FLOOR * scale)

    def _fitted(self, masks: Array, target: Array, known: Array) -> Regressor:
        model = clone(self.model)
        settings = model.get_params()
        seeds = {k for k, v in settings.items() if k.endswith("random_state") and v is None}
        model.set_params(**dict.fromkeys(seeds, self.random_state))
        if hasattr(model, "predict_link"):
            model.set_params(link="identity")  # the target is on the link scale already
        try:
            return Regressor.fit(model, masks, target, known)
        except Exception as error:
            raise self._useless(f"cannot be fitted ({type(error).__name__}: {error})") from error

    def _predicted(self, regressor: Regressor, masks: Array) -> Array:
        try:
            found = regressor.predict(masks)
        except Exception as error:
            raise self._useless(f"cannot predict ({type(error).__name__}: {error})") from error
        if found.shape != (len(masks),):
            raise self._useless(f"predicts shape {found.shape} of {len(masks)} masks")
        if not np.isfinite(found).all():
            raise self._useless("predicts values that are not finite")
        return found

    def _useless(self, what: str) -> EdgewiseError:
        return EdgewiseError(
            f"The surrogate {type(self.model).__name__} {what}. Evaluations that are finished are "
            "kept: mend it, or use another one."
        )

    def _on_link(self, masks: Array, return_std: bool) -> Any:
        keys = [row.tobytes() for row in masks.astype(bool)]
        rows = {key: row for row, key in enumerate(keys) if key not in self.known_}
        if len(self.known_) > KEPT:
            self.known_, rows = {}, dict(zip(keys, range(len(keys)), strict=True))
        if rows:
            self.known_.update(zip(rows, self._fresh(masks[list(rows.values())]), strict=True))
        mean, std = np.array([self.known_[key] for key in keys]).reshape(-1, 2).T
        return (mean, std) if return_std else mean

    def _fresh(self, masks: Array) -> list[tuple[float, float]]:
        """Mean and deviation of each mask."""
        mean = self._predicted(self.regressor_, masks)
        variance = np.full(len(masks), self.noise_**2)
        if self.resampled_:
            variance += np.var([self._predicted(r, masks) for r in self.resampled_], axis=0)
        return list(zip(mean.tolist(), np.sqrt(variance).tolist(), strict=True))
