"""The laws that every traced model obeys, each a function that raises AssertionError."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import FormError, ObjectiveError
from ..graph.cost import cost
from ..graph.graph import Graph, Mask
from ..graph.liveness import liveness
from ..pruning.calls import Called
from ..pruning.edited import edited
from ..pruning.edits import from_dict, to_dict
from ..pruning.masked import masked
from ..pruning.module_form import in_own_class
from ..pruning.prune import prune, rewritten
from ..pruning.verify import compare, compare_training, relative_difference
from ..tracing.agreement import drawn
from ..tracing.probe import counted
from ..tracing.program import Program, evaluating
from ..tracing.sizes import Axis
from ..tracing.trace import trace
from ..values.nested import shapes_of, tensors_of
from ..values.precision import full_precision


def random_mask(graph: Graph, rng: random.Random) -> Mask:
    """A valid mask: units removed one after another, those that would disconnect are kept."""
    mask = graph.empty
    for unit in rng.sample(range(len(graph.units)), rng.randint(1, len(graph.units))):
        more = mask.with_removed(unit)
        if liveness(graph, more).connected:
            mask = more
    return mask


def law_nothing_removed(model: nn.Module, graph: Graph) -> None:
    """Law 1: the empty mask changes nothing, at other sizes either (law 8)."""
    args = graph.program.arguments
    worst, _ = compare(model, masked(graph, graph.empty), args)
    assert worst <= 1e-6, f"the empty mask changes the output by {worst:g}"
    for other in at_other_sizes(graph.program):
        _agree(model, masked(graph, graph.empty), other, "with nothing removed")


@full_precision()
def law_pruned_is_masked(graph: Graph, mask: Mask) -> None:
    """Law 2: pruned equals masked, in eval mode and, where nothing is random, in train mode."""
    full, small = masked(graph, mask), rewritten(graph, mask, {})
    args = graph.program.arguments
    worst, allowed = compare(full, small, args)
    assert worst <= allowed, f"pruned and masked differ by {worst:g} under {mask}"
    worst, allowed = compare_training(full, small, args)
    assert worst <= allowed, f"in train mode they differ by {worst:g} under {mask}"


def law_cost_is_exact(graph: Graph, mask: Mask) -> None:
    """Law 3: parameters, their bytes and MACs are those counted on the pruned module."""
    small, counted = rewritten(graph, mask, {}), cost(graph, mask)
    params = sum(p.numel() for p in small.parameters())
    assert params == counted.params, f"{params} parameters, {counted.params} expected"
    weights = sum(p.nbytes for p in small.parameters())
    assert weights == counted.weight_bytes, f"{weights} bytes, {counted.weight_bytes} expected"
    macs = count_macs(small, one_example(graph))
    assert macs == counted.macs, f"{macs} MACs, {counted.macs} expected under {mask}"


def one_example(graph: Graph) -> tuple[Any, ...]:
    """The traced inputs cut to a batch of one, where the model takes any batch."""
    batch = graph.program.batch

    def first(value: Any) -> Any:
        batched = isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == batch
        return value[:1] if batched else value

    args: tuple[Any, ...] = pytree.tree_map(first, graph.program.arguments)
    return args


def count_macs(module: nn.Module, args: tuple[Any, ...]) -> int:
    """MACs of one call, by torch's own counter of floating-point operations."""
    with counted() as counter:
        module.eval()(*args)
    return int(counter.get_total_flops()) // 2


def at_other_sizes(program: Program) -> Iterator[tuple[Any, ...]]:
    """Fresh inputs of other batches and, where the model ran there, lengths and image sizes."""
    leaves = pytree.tree_leaves(program.args)
    agreed: dict[Axis, int] = {}
    for varied in program.sizes:
        agreed |= varied
    order = sorted({*agreed.values()})
    near = {(p, a): leaves[p].shape[a] + 1 + order.index(n) for (p, a), n in agreed.items()}
    for batch, sizes in ((1, agreed), (program.batch + 2, near), (program.batch + 2, agreed)):
        size = program.batch if program.takes else batch
        yield program.traced.positional(drawn(program.args, program.batch, size, sizes))


@full_precision()
def law_free_stays_free(graph: Graph, mask: Mask) -> None:
    """Law 8: at another batch, length or image size pruned equals masked, or refuses."""
    full, small = masked(graph, mask), prune(graph, mask)
    for args in at_other_sizes(graph.program):
        _agree(full, small, args, f"under {mask}")


def _agree(full: nn.Module, other: nn.Module, args: tuple[Any, ...], words: str) -> None:
    """Raise AssertionError unless two modules give the same, or the second refuses the sizes."""
    shapes = shapes_of(args)
    try:
        worst, allowed = compare(full, other, args)
    except ObjectiveError:
        return
    except Exception as error:
        with evaluating(full), torch.no_grad():
            try:
                full(*args)
            except Exception:  # noqa: BLE001 - the model itself does not take these sizes
                return
        raise AssertionError(f"{other} fails at {shapes} {words}") from error
    assert worst <= allowed, f"at {shapes} they differ by {worst:g} {words}"


def law_less_costs_less(graph: Graph, mask: Mask) -> None:
    """Law 4: removing more never raises a cost."""
    base = cost(graph, mask)
    for unit in range(len(graph.units)):
        more = mask.with_removed(unit)
        if more != mask and liveness(graph, more).connected:
            rest = cost(graph, more)
            names = ("units", "params", "macs", "activation_bytes", "weight_bytes")
            raised = [n for n in names if getattr(rest, n) > getattr(base, n)]
            assert not raised, f"removing {graph.units[unit].name} raises {raised} after {mask}"


def law_lives_on(graph: Graph, mask: Mask) -> None:
    """Law 5: a pruned model traces again, trains without dead parameters, copies, exports."""
    small = prune(graph, mask)
    args = graph.program.arguments
    trained = copy.deepcopy(small).train()
    outputs = [y for y in tensors_of(trained(*args)) if y.dtype.is_floating_point]
    loss = torch.stack([y.square().sum() for y in outputs]).sum()
    if loss.requires_grad:
        loss.backward()
    for name, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            continue  # frozen by the user
        assert parameter.grad is not None, f"parameter {name} is dead under {mask}"
        assert torch.isfinite(parameter.grad).all(), f"gradient of {name} is not finite"
    again = trace(small, args, granularity="raw")
    worst, allowed = compare(small, masked(again, again.empty), args)
    assert worst <= allowed
    exported = torch.export.export(small.eval(), args).module()
    with torch.no_grad(), full_precision():
        left, right = small.eval()(*args), exported(*args)
    for a, b in zip(tensors_of(left), tensors_of(right), strict=True):
        assert relative_difference(a, b) <= allowed


def law_own_class(graph: Graph, mask: Mask) -> None:
    """Law 9: in the model's own class, built by tracing or from edits, it gives the same."""
    try:
        small, edits = in_own_class(graph, mask, {})
    except FormError:
        return
    program, args, model = rewritten(graph, mask, {}), graph.program.arguments, graph.program.model
    again = edited(copy.deepcopy(model), from_dict(json.loads(json.dumps(to_dict(edits)))))
    again.load_state_dict(small.state_dict())
    for other in (small, copy.deepcopy(small), again):
        for differ in (compare, compare_training):
            worst, allowed = differ(program, Called(other, graph.program), args)
            assert worst <= allowed, f"the two forms differ by {worst:g} under {mask}"
    assert isinstance(small, type(model))


def check_laws(
    model: nn.Module, args: tuple[Any, ...], masks: int = 5, seed: int = 0, **options: Any
) -> Graph:
    """Run laws 1 to 5, 8 and 9 on a model with random valid masks.

    Args:
        model: the model, as for `ew.trace`.
        args: its example inputs.
        masks: how many random masks.
        seed: of the masks.
        options: further arguments of `ew.trace`; every connection is a unit unless they say else.

    Returns:
        The graph.

    Raises:
        AssertionError: a law does not hold; the message says which and for what mask.
    """
    graph = trace(model, args, **{"granularity": ("edge", "layer"), **options})
    law_nothing_removed(model, graph)
    rng = random.Random(seed)
    for _ in range(masks):
        mask = random_mask(graph, rng)
        for law in MASK_LAWS:
            law(graph, mask)
    return graph


MASK_LAWS: Sequence[Callable[[Graph, Mask], None]] = (
    law_pruned_is_masked,
    law_cost_is_exact,
    law_less_costs_less,
    law_lives_on,
    law_free_stays_free,
    law_own_class,
)
