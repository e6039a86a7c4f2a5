"""How predictions of masks compare with what was measured."""

import numpy as np
from scipy.stats import kendalltau, spearmanr


def ranks(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Spearman's ρ and Kendall's τ-b; 0 where a side is constant."""
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return {"spearman": 0.0, "kendall": 0.0}
    return {
        "spearman": float(spearmanr(predicted, measured)[0]),
        "kendall": float(kendalltau(predicted, measured)[0]),
    }


def ceiling(disconnected: float) -> float:
    """The highest Spearman's ρ of a prediction that is the same for all disconnected masks.

    If it orders all others perfectly and puts the rest, a share q of them, last, the variance of
    its ranks is 1 - q³ of that of ranks without ties, and ρ is the root of it.
    """
    return float(np.sqrt(1.0 - disconnected**3))


def mape(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean absolute percentage error, in percent."""
    return float(100 * np.mean(np.abs(predicted - measured) / np.abs(measured)))
