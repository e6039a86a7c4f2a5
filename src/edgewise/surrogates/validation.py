"""What every surrogate learns from: checked masks, checked losses, and the scale they live on."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Link = Literal["log", "logit", "identity"]
LINKS = ("log", "logit", "identity")


def check_masks(X: ArrayLike, units: int | None = None) -> Array:
    """Masks as a float array [n_masks, n_units] of 0.0 and 1.0.

    Args:
        X: masks, one a row; 1 = removed. Booleans and integers are welcome.
        units: how many columns there must be; None = any number but zero.

    Raises:
        ValueError: not two-dimensional, the wrong number of columns, or values besides 0 and 1.
    """
    masks = np.asarray(X, dtype=np.float64)
    if masks.ndim != 2:
        raise ValueError(
            f"X must have shape [n_masks, n_units], but got shape {masks.shape}. "
            "For a single mask pass X[None]."
        )
    if masks.shape[1] == 0:
        raise ValueError("X has no columns: there must be at least one unit.")
    if units is not None and masks.shape[1] != units:
        raise ValueError(f"X must have one column a unit, {units} in all; got {masks.shape[1]}.")
    wrong = ~((masks == 0.0) | (masks == 1.0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"X must hold 0 (kept) and 1 (removed) only, but X[{row}, {column}] is "
            f"{masks[row, column]}."
        )
    return masks


def check_observations(
    X: ArrayLike, y: ArrayLike, link: Link, units: int | None = None
) -> tuple[Array, Array]:
    """Masks [n_masks, n_units] and their losses [n_masks] on the link scale.

    Raises:
        ValueError: bad masks (see `check_masks`), no masks, another number of losses than masks,
            losses that are not finite, or outside the domain of the link (see `to_link`).
    """
    masks = check_masks(X, units)
    losses = np.asarray(y, dtype=np.float64)
    if losses.shape != (len(masks),):
        raise ValueError(
            f"y must have shape [n_masks] = ({len(masks)},), but got shape {losses.shape}."
        )
    if len(masks) == 0:
        raise ValueError("There is nothing to fit: X and y hold no evaluations.")
    if not np.isfinite(losses).all():
        bad = int(np.flatnonzero(~np.isfinite(losses))[0])
        raise ValueError(
            f"y must be finite, but y[{bad}] is {losses[bad]}. Leave failed evaluations out."
        )
    return masks, to_link(losses, link)


def to_link(y: Array, link: Link) -> Array:
    """Losses on the scale of the fit: log(y), log(y / (1 - y)), or y itself.

    Raises:
        ValueError: an unknown link, or values outside its domain.
    """
    if link not in LINKS:
        raise ValueError(f"link must be one of {', '.join(LINKS)}; got {link!r}.")
    if link == "log" and (y <= 0).any():
        raise ValueError(
            f"link='log' needs y > 0, but the smallest value is {y.min()}. "
            "Use link='identity' for losses that can be zero or negative."
        )
    if link == "logit" and ((y <= 0) | (y >= 1)).any():
        raise ValueError(
            f"link='logit' needs 0 < y < 1, but y spans [{y.min()}, {y.max()}]. Move an accuracy "
            "of n samples inwards first, e.g. (hits + 0.5) / (n + 1), or use link='identity'."
        )
    if link == "log":
        return np.log(y)
    return np.log(y) - np.log1p(-y) if link == "logit" else y.copy()


def link_noise(noise: ArrayLike | None, y: ArrayLike, link: Link) -> Array:
    """Standard errors of losses [n_masks], as they are on the link scale; 0 where None.

    Raises:
        ValueError: not one for each loss, negative, or not finite.
    """
    losses = np.asarray(y, dtype=np.float64)
    known = np.zeros(losses.shape) if noise is None else np.asarray(noise, dtype=np.float64)
    if known.shape != losses.shape or not (np.isfinite(known) & (known >= 0)).all():
        raise ValueError(
            "noise must be one finite standard error of at least 0 for each loss, shape "
            f"{list(losses.shape)}; got shape {list(known.shape)}."
        )
    slope = {"log": losses, "logit": losses * (1.0 - losses)}.get(link, np.ones_like(losses))
    return known / slope


def from_link(mean: Array, link: Link) -> Array:
    """The inverse of `to_link`; finite for every finite mean."""
    if link == "log":
        return np.exp(np.clip(mean, -700.0, 700.0))
    if link == "logit":
        return 0.5 * (1.0 + np.tanh(0.5 * mean))
    return mean


def original_scale(
    prediction: Array | tuple[Array, Array], link: Link
) -> Array | tuple[Array, Array]:
    """A prediction on the link scale, mean or (mean, std), in original units.

    The standard deviation goes through the delta method: std · |d loss / d link|.
    """
    if not isinstance(prediction, tuple):
        return from_link(prediction, link)
    mean, std = prediction
    value = from_link(mean, link)
    slope = {"log": value, "logit": value * (1.0 - value)}.get(link, np.ones_like(value))
    return value, std * slope


def is_constant(target: Array) -> bool:
    """Whether a target [n_masks] has no spread that a fit could explain."""
    return bool(np.ptp(target) <= 1e-12 * max(1.0, float(np.abs(target).max())))


def constant_std(evaluations: int) -> float:
    """Standard deviation, on the link scale, of a model that saw one value only, n times.

    As if one earlier evaluation had been off by 1: positive, and less with more evaluations.
    """
    return float(1.0 / np.sqrt(evaluations))
