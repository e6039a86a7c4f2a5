"""How predictions of masks compare with what was measured."""

import numpy as np
from scipy.stats import kendalltau, spearmanr


def ranks(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Spearman's ρ and Kendall's τ-b, 0 where a side is constant, and overlaps of the best masks.

    "top5" is the share of the five masks of the least loss that are among the five of the least
    prediction, "top10" the same of a tenth of the masks. Ties are broken at random.
    """
    found = {f"top{name}": _overlap(predicted, measured, count)
             for name, count in ((5, 5), (10, len(measured) // 10))}  # fmt: skip
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return {"spearman": 0.0, "kendall": 0.0, **found}
    return {
        "spearman": float(spearmanr(predicted, measured)[0]),
        "kendall": float(kendalltau(predicted, measured)[0]),
        **found,
    }


def _overlap(predicted: np.ndarray, measured: np.ndarray, count: int) -> float:
    """The share of the best `count` masks by one side that are so by the other; of 20 orders."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(20):
        order = rng.permutation(len(measured))
        best, hoped = (order[np.argsort(side[order], kind="stable")[:count]]
                       for side in (measured, predicted))  # fmt: skip
        shares.append(len(np.intersect1d(best, hoped)) / count)
    return float(np.mean(shares))


def ceiling(disconnected: float) -> float:
    """The highest Spearman's ρ of a prediction that is the same for all disconnected masks.

    If it orders all others perfectly and puts the rest, a share q of them, last, the variance of
    its ranks is 1 - q³ of that of ranks without ties, and ρ is the root of it.
    """
    return float(np.sqrt(1.0 - disconnected**3))


def mape(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean absolute percentage error, in percent."""
    return float(100 * np.mean(np.abs(predicted - measured) / np.abs(measured)))
