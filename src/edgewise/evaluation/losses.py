"""Losses and metrics by name, one of them for searches that a lack of training misleads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ObjectiveError
from ..tracing.program import evaluating
from ..values.arguments import call
from ..values.nested import IGNORED, logits_of
from ..values.spelling import nearest
from .head import Head

Measure = Callable[[Any, Any], Tensor]
FEW = 2**21  # logits that are looked at together: they fit the cache of a processor

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


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    wanted = targets if targets.is_floating_point() else _classes(outputs, targets)
    return per_example(F.cross_entropy(outputs, wanted, reduction="none"))


def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return per_example((outputs - targets.reshape(outputs.shape)).square())


def perplexity(outputs: Any, targets: Tensor) -> Tensor:
    """The mean cross-entropy [batch] of the tokens [batch, length] that each place should tell.

    Of a metric of this name the exponential of the mean is told.
    """
    return by_place([perplexity], outputs, targets)[0]


def _next_token(outputs: Any, targets: Tensor) -> Tensor:
    return by_place([_next_token], outputs, targets)[0]


def _likeness(outputs: Any, targets: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The divergence [batch] of a model's next tokens from those that it should imitate."""
    return by_place([_likeness], outputs, targets)[0]


def by_place(measures: Sequence[Measure], outputs: Any, targets: Any) -> list[Tensor]:
    """Measures of the next token, each [batch], from logits that are read once, a few at a time.

    Args:
        measures: of `BY_PLACE`.
        outputs: logits [batch, length, tokens], by themselves or among other values; or a `Head`.
        targets: tokens [batch, length], or what `imitated` gives.
    """
    logits, following = logits_of(outputs), targets if torch.is_tensor(targets) else targets[-1]
    if len(logits.shape) != 3 or logits.shape[:2] != following.shape:
        raise ObjectiveError(
            f"The loss of tokens wants logits [batch, length, tokens] and targets [batch, length]; "
            f"got {list(logits.shape)} and {list(following.shape)}."
        )
    flat = [t.flatten(0, 1) for t in ([targets] if torch.is_tensor(targets) else targets)]
    values: list[list[Tensor]] = [[] for _ in measures]
    begin, few = 0, max(FEW // logits.shape[-1], 1)
    for part in logits if isinstance(logits, Head) else [logits.flatten(0, 1)]:
        for z in part.split(few):
            here = [t[begin : begin + len(z)] for t in flat]
            begin += len(z)
            for found, measure in zip(values, measures, strict=True):
                found.append(BY_PLACE[measure](z.float(), *here))
    known = following != IGNORED
    each = (torch.cat(found).view(following.shape) * known for found in values)
    return [value.sum(1) / known.sum(1).clamp_min(1) for value in each]


def _nats(z: Tensor, *targets: Tensor) -> Tensor:
    return F.cross_entropy(z, targets[-1], reduction="none")


def _right(z: Tensor, *targets: Tensor) -> Tensor:
    return (z.argmax(-1) == targets[-1]).float()


def _divergence(z: Tensor, logs: Tensor, tokens: Tensor, _: Tensor) -> Tensor:
    q = z.log_softmax(-1).gather(-1, tokens)
    rest = [(1 - some.exp().sum(-1)).clamp_min(1e-9).log() for some in (logs, q)]
    return (logs.exp() * (logs - q)).sum(-1) + rest[0].exp() * (rest[0] - rest[1])


# what each makes of the logits [places, tokens] of some places, and of what it wants there, at the
# end of which are the tokens of the text
BY_PLACE: Mapping[Any, Callable[..., Tensor]] = {
    perplexity: _nats, _next_token: _right, _likeness: _divergence,
}  # fmt: skip


def reads_places(measure: Any) -> bool:
    """Whether a measure is one of those that `by_place` takes."""
    return any(measure is known for known in BY_PLACE)


def imitated(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], most: int = 64
) -> list[tuple[Any, tuple[Tensor, Tensor, Tensor]]]:
    """Batches whose targets are what a model answers, for the loss "likeness".

    Args:
        model: the unpruned one; it is run in eval mode.
        batches: (inputs, targets), where a target of -100 leaves its place out.
        most: tokens whose probabilities are kept at each place, the likeliest; the others count
            together as one.

    Returns:
        (inputs, (log-probabilities and tokens [batch, length, most], targets [batch, length])).

    Examples:
        >>> answers = ew.imitated(model, batches, most=2)
    """
    found = []
    with evaluating(model), torch.no_grad():
        for inputs, targets in batches:
            each = [z.float().log_softmax(-1) for z in logits_of(call(model, inputs))]
            values, places = zip(*(z.topk(min(most, z.shape[-1])) for z in each), strict=True)
            found.append((inputs, (torch.stack(values), torch.stack(places), targets)))
    return found


def _accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return per_example((outputs.argmax(1) == _classes(outputs, targets)).float())


def _top5(outputs: Tensor, targets: Tensor) -> Tensor:
    best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
    return per_example((best == _classes(outputs, targets).unsqueeze(1)).any(1).float())


def _classes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class indices; one-hot targets, or probabilities, are understood."""
    if targets.shape == outputs.shape:
        return targets.argmax(1)
    count, known = outputs.shape[1], targets[targets != IGNORED]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < count:
        raise ObjectiveError(
            f"Targets go from {known.min():g} to {known.max():g}, and the network tells {count} "
            f"classes apart, 0 to {count - 1}. Count them from 0, or use the network's own classes"
        )
    return targets


LOSSES: Mapping[str, Measure] = {
    "cross_entropy": _cross_entropy,
    "calibrated_cross_entropy": calibrated_cross_entropy,
    "mse": _mse,
    "perplexity": perplexity,  # as a loss its logarithm, of which there is a mean
    "likeness": _likeness,
}
METRICS: Mapping[str, Measure] = {
    "accuracy": _accuracy, "top5": _top5, "perplexity": perplexity, "next_token": _next_token,
}  # fmt: skip
BUILT_IN = (*LOSSES.values(), *METRICS.values())


def named_loss(loss: str | Measure) -> Measure:
    """The loss itself, or the built-in one of that name.

    Raises:
        ObjectiveError: there is none.
    """
    found: Measure = _named("loss", loss, LOSSES)
    return found


def named_metrics(metrics: Any) -> dict[str, Any]:
    """Metrics by name, of one or several, each of them a built-in name, a function or an object.

    Raises:
        ObjectiveError: there is no built-in one of a name.
    """
    if isinstance(metrics, Mapping) and not hasattr(metrics, "compute"):
        return {name: _named("metric", metric, METRICS) for name, metric in metrics.items()}
    several = isinstance(metrics, Iterable) and not isinstance(metrics, str)
    each = metrics if several and not hasattr(metrics, "compute") else [metrics]
    return {_name(metric): _named("metric", metric, METRICS) for metric in each}


def _name(metric: Any) -> str:
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def _named(kind: str, given: Any, known: Mapping[str, Measure]) -> Any:
    if isinstance(given, str) and given not in known:
        raise ObjectiveError(f"No {kind} is called {given!r}.{nearest(given, known)}")
    return known[given] if isinstance(given, str) else given
