"""A loss for searches that a lack of training misleads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 12  # of Newton's method, which is exact to rounding after about six
LEAST, MOST = 0.01, 100.0  # scales tried


def calibrated_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy after temperature scaling, fitted to the batch itself.

    A network that has lost layers is wrong and sure of it, until it is fine-tuned. Plain
    cross-entropy then prefers masks whose answers commit to nothing over masks that are right more
    often. Here the outputs are first multiplied by the one positive number that suits them best
    (Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2), so that
    what counts is which classes they rank highest. Never above the logarithm of the number of
    classes by more than a hundredth of what the outputs differ by.

    Use it for a search whose result will be fine-tuned. It is a comparison of masks, not a loss to
    train or to report: the number is fitted to each batch, which should have a hundred examples or
    more.

    Args:
        outputs: logits [batch, classes, ...].
        targets: class indices [batch, ...] or probabilities [batch, classes, ...].

    Returns:
        [batch] values; the mean over further axes.

    Examples:
        >>> logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> round(float(torch.nn.functional.cross_entropy(logits, labels)), 2)
        2.25
        >>> round(float(ew.calibrated_cross_entropy(logits, labels).mean()), 2)
        0.56
    """
    with torch.no_grad():
        scale = _scale(outputs.detach().float(), targets)
    scaled = outputs * scale.to(outputs.dtype)
    return per_example(F.cross_entropy(scaled, targets, reduction="none"))


def per_example(values: Tensor) -> Tensor:
    """[batch, ...] → [batch], the mean over everything but the examples."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _scale(z: Tensor, targets: Tensor) -> Tensor:
    """The positive factor of logits that minimises their cross-entropy, which is convex in it."""
    wanted = targets.to(z.dtype) if targets.is_floating_point() else _one_hot(targets, z)
    aim = (wanted * z).sum(1).mean()
    scale = z.new_ones(())
    for _ in range(STEPS):
        p = (scale * z).softmax(1)
        mean = (p * z).sum(1)
        slope = mean.mean() - aim
        curve = ((p * z.square()).sum(1) - mean.square()).mean()
        step = scale - slope / curve.clamp_min(1e-12)
        scale = step.clamp(scale / 4, scale * 4).clamp(LEAST, MOST)
    return scale


def _one_hot(targets: Tensor, z: Tensor) -> Tensor:
    return F.one_hot(targets, z.shape[1]).movedim(-1, 1).to(z.dtype)
