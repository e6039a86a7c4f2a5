"""The logistic surrogate: linear in the mask, between two bounds."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from .surrogate import Surrogate
from .validation import Array, from_link, is_constant

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)  # scikit-learn's C, the inverse of the ridge
FOLDS = 5
MARGIN = 0.05  # of the range of the target, left free at both ends


class Logistic(Surrogate):
    """Fractional logit: the share of the way between two bounds is logistic in the mask.

    With link="logit" the share is y itself (accuracy, AUC). With the other links the bounds are
    those of the training targets on the link scale, a twentieth of their range wider at both ends,
    so that a prediction never leaves what was seen by more than that. The likelihood is the
    quasi-likelihood of Papke & Wooldridge ("Econometric methods for fractional response
    variables", 1996), with a ridge chosen by 5-fold cross-validation.

    It has no predictive standard deviation.

    Args:
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".

    Attributes:
        bounds_: the two bounds on the link scale; None with link="logit".
        coef_: [n_units] what removing each unit adds to the logit of the share.
        intercept_: the logit of the share with nothing removed.

    Examples:
        >>> model = ew.surrogates.Logistic().fit(X, losses)
        >>> model.predict(candidates).shape
        (4,)
    """

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        self.constant_ = float(target.mean()) if is_constant(target) else None
        self.bounds_: tuple[float, float] | None = None
        self.coef_: Array = np.zeros(masks.shape[1])
        self.intercept_ = 0.0
        if self.constant_ is None:
            share = self._share(target)
            self.coef_, self.intercept_ = _fit(masks, share, _penalty(masks, share))

    def _share(self, target: Array) -> Array:
        if self.link == "logit":
            return from_link(target, "logit")
        margin = MARGIN * float(np.ptp(target))
        low, high = float(target.min()) - margin, float(target.max()) + margin
        self.bounds_ = (low, high)
        return np.asarray((target - low) / (high - low))

    def _mean(self, masks: Array) -> Array:
        if self.constant_ is not None:
            return np.full(len(masks), self.constant_)
        logit = masks @ self.coef_ + self.intercept_
        if self.bounds_ is None:
            return logit
        low, high = self.bounds_
        return low + (high - low) * from_link(logit, "logit")


def _fit(masks: Array, share: Array, penalty: float) -> tuple[Array, float]:
    """Every mask counts as a success with weight `share` and a failure with the rest."""
    model = LogisticRegression(C=penalty, max_iter=1000)
    labels = np.repeat([1, 0], len(share))
    model.fit(np.vstack([masks, masks]), labels, sample_weight=np.append(share, 1.0 - share))
    return model.coef_[0], float(model.intercept_[0])


def _penalty(masks: Array, share: Array) -> float:
    """The penalty with the least cross-validated squared error (the middle one for few masks)."""
    if len(share) < 2 * FOLDS:
        return PENALTIES[len(PENALTIES) // 2]
    fold = np.arange(len(share)) % FOLDS
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for k in range(FOLDS):
            coef, intercept = _fit(masks[fold != k], share[fold != k], penalty)
            held = from_link(masks[fold == k] @ coef + intercept, "logit")
            error += float(np.sum((held - share[fold == k]) ** 2))
        errors.append(error)
    return PENALTIES[int(np.argmin(errors))]
