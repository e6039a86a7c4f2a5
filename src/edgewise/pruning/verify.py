"""Whether a pruned model gives what the masked one gives."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import EdgewiseWarning, VerificationError
from ..graph.graph import Graph, Mask
from ..tracing.agreement import apart
from ..tracing.program import evaluating
from ..values.nested import copies_of, leaves_of
from ..values.precision import full_precision

_NONE: Mapping[str, Any] = {}
TOLERANCE = {
    **dict.fromkeys((torch.float64, torch.complex128), 1e-10),
    **dict.fromkeys((torch.float32, torch.complex64), 1e-5),
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


def verify(graph: Graph, mask: Mask, full: nn.Module, small: nn.Module) -> None:
    """Require that a pruned model gives what the masked one gives on the example.

    Raises:
        VerificationError: they differ by more than 1e-5 (float32; 1e-10 in float64), relative.
    """
    args = graph.program.arguments
    difference, allowed = compare(full, small, args)
    if not difference <= allowed and rounding(full, small, args):
        warnings.warn(
            f"The pruned and the masked model differ by {difference:.3g} (relative), but not in "
            "float64: this network amplifies rounding.",
            EdgewiseWarning,
            stacklevel=3,
        )
    elif not difference <= allowed:
        raise VerificationError(
            f"The pruned model differs from the masked one by {difference:.3g} (relative; allowed "
            f"{allowed:g}) on the traced example. Nothing is returned. Please report the model and "
            f"the mask: {mask}"
        )


def rounding(
    full: nn.Module, small: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NONE
) -> bool:
    """Whether two models that differ in their own precision agree in float64.

    Outputs that stay in float32 there (key points of torchvision's detectors) agree as those do.
    """
    try:
        precise = [copy.deepcopy(module).double() for module in (full, small)]
        given, named = pytree.tree_map_only(
            torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, (args, dict(kwargs))
        )
        pairs = _pairs(*_outputs(precise[0], precise[1], given, named)) or []
    except RuntimeError:
        return False
    chosen = all(a.dtype != torch.float64 for a, _ in pairs)  # by the network, whatever it is given
    return not chosen and all(
        relative_difference(a, b) <= TOLERANCE.get(a.dtype, 0.0) for a, b in pairs
    )


def compare(
    reference: nn.Module, other: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NONE
) -> tuple[float, float]:
    """Largest relative difference of two models' outputs in eval mode, and what is allowed.

    Both get the same random numbers, where they draw any.
    """
    return _difference(*_outputs(reference, other, args, kwargs))


def _outputs(
    reference: nn.Module, other: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Any]:
    outputs = []
    with evaluating(reference, other), torch.no_grad(), full_precision():
        for module in (reference, other):
            with torch.random.fork_rng(devices=[]):
                outputs.append(module(*copies_of(args), **copies_of(dict(kwargs))))
    return outputs


def compare_training(
    reference: nn.Module, other: nn.Module, args: tuple[Any, ...]
) -> tuple[float, float]:
    """The same in train mode, of copies; no difference where random numbers are drawn.

    Statistics of a batch amplify rounding, so that ten times as much is allowed in float32.
    """
    outputs = []
    with torch.no_grad(), full_precision(), torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        for module in (reference, other):
            outputs.append(copy.deepcopy(module).train()(*copies_of(args)))
        drawn = not torch.equal(before, torch.get_rng_state())
    worst, allowed = _difference(*outputs)
    return (0.0 if drawn else worst), allowed * (10 if allowed == TOLERANCE[torch.float32] else 1)


def _difference(left: Any, right: Any) -> tuple[float, float]:
    pairs = _pairs(left, right)
    if pairs is None:
        return float("inf"), 0.0
    worst = max((relative_difference(a, b) for a, b in pairs), default=0.0)
    return worst, max((TOLERANCE.get(a.dtype, 0.0) for a, _ in pairs), default=1e-10)


def _pairs(left: Any, right: Any) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """The tensors of two outputs; None where there are not as many in both."""
    leaves, others = leaves_of(left), leaves_of(right)
    if len(leaves) != len(others):
        return None
    found = zip(leaves, others, strict=True)
    return [(a, b) for a, b in found if isinstance(a, torch.Tensor)]


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a - b| / max |a|; infinite where shapes or non-finite entries differ."""
    if not (a.is_floating_point() or a.is_complex()):
        return 0.0 if a.dtype == b.dtype and torch.equal(a, b) else float("inf")
    found = apart(a, b)
    return float("inf") if found is None else found[0] / max(found[1], 1e-12)
