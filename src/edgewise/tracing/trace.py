"""From a model and example inputs to a Graph."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from inspect import signature
from typing import Any, Literal, get_args

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..errors import NoUnitsError, TooLargeError, TraceError, UnknownOperatorError
from ..graph.graph import Cost, Graph
from ..graph.importance import Importance, l2
from ..graph.outputs import with_outputs_kept
from ..graph.rules import Names, Rules, ruled
from ..graph.units import SLICES, with_units
from .agreement import Judge, reference
from .builder import Builder
from .capture import MODAL, FrontEnd, bind, capture
from .export_frontend import CONDITIONS
from .part import taken
from .probe import run, run_doubled
from .program import Program, modes_of
from .refuse import refuse, refuse_outputs
from .sizes import Condition, any_batch, not_one
from .whole import Whole, copied

log = logging.getLogger("edgewise")


def trace(
    model: nn.Module,
    args: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    granularity: Sequence[str] | str = ("branch", "layer"),
    leaves: Sequence[type[nn.Module] | str] = (),
    frontend: FrontEnd | None = None,
    slices: int = SLICES,
    round_to: int | Mapping[str, int] = 1,
    importance: Importance = l2,
    keep: Names = (),
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, int] | None = None,
    tie: str | Sequence[str] = (),
    alike: str | Sequence[str] = (),
    part: str | Sequence[str] | None = None,
    costs: Literal["whole", "part"] = "whole",
) -> Graph:
    """The dataflow graph of a model.

    The model is traced in eval mode on a private copy, and the traced program is compared with the
    model itself, output by output: on the example, and on random inputs like it in batches of twice
    its size and, for small networks, of 4 times (at least 16). The model is not changed; hooks on
    its modules are copied with it and run wherever the copies do.

    Sizes stay free where the model leaves them free: batch, lengths, heights and widths. What its
    Python code decides by a size (`int(x.shape[1])`, `if len(x) > 8`) is kept as torch.export notes
    it, `x.shape[0] <= 8`; masks and pruned models refuse inputs that do not meet it, and
    `graph.fixed` lists it. A decision by values that neither the example nor random inputs have is
    not seen.

    torch.fx reads the model's code as it is written, and is tried first. Where it cannot follow
    (Hugging Face models, Python that depends on shapes, writes in place into memory that other
    values share), torch.export does; `graph.frontend` and `graph.summary()` name the one that did.

    Args:
        model: any `nn.Module`.
        args: example inputs, a tuple (or one tensor); dimension 0 is the batch.
        kwargs: example keyword inputs. Models of transformers get use_cache=False, if not told.
        granularity: kinds of units: "branch" (connections that save parameters or MACs: branches,
            pieces of concatenations, gates), "edge" (all connections, skips among them), "layer"
            (layers bypassed by identity), "hidden" (inner channels of a branch or MLP), "heads"
            (attention heads), "channels" (those of a residual stream), or "raw" (every edge by
            itself).
        leaves: module classes or paths to treat as one operator each; they need a rule, and
            torch.fx.
        frontend: "torch.fx" or "torch.export", to force one; None tries both in this order.
        slices: nested parts into which each width (hidden, heads, channels) is cut; the most
            important one always stays. A width of fewer channels is cut into single ones.
        round_to: what remains of a width is a multiple of this many channels; or by KEY, as for
            `ew.restrict`.
        importance: which channels of a width go first: `ew.importance.l2`, or what
            `ew.importance.taylor` or `.activation` give, or a function of your own.
        keep: modules of which nothing goes; this and the next four are rules, see `ew.restrict`.
        at_most: by KEY, the share that may go.
        at_least: by KEY, how many heads or channels of each width stay.
        tie: modules each of which is one unit.
        alike: modules of which the same goes.
        part: the path of a submodule, or several paths: it alone is traced and pruned, on what it
            receives when the model runs on `args`, and everything else is done with the whole
            model: losses see its outputs, and `ew.prune` gives it back with a smaller part.
            `leaves` are paths in the whole model, too.
        costs: of a graph of a part: those of the "whole" model, so that budgets are fractions of
            it, or those of the "part" alone. Where the model calls the part several times, MACs
            and bytes are those of one call, with an equal share of the rest. Latency is always
            the part's.

    Returns:
        The graph; `graph.units` are what a mask can remove.

    Raises:
        TraceError: the model cannot be traced, or the traced program gives other outputs.
        UnknownOperatorError: an operator has no rule; names it, its line and the way out.
        NoUnitsError: nothing in the model can be removed.
        RuleError: a rule names nothing, contradicts another one, or leaves nothing to go.
        EdgewiseError: granularity, slices or round_to make no sense for this model.

    Examples:
        >>> graph = ew.trace(model, (x,))
        >>> graph
        Graph(29 vertices, 31 edges, 9 units, ab27f3cafff4)
    """
    if part is None and isinstance(model, nn.Module):
        kwargs = {**_uncached(model), **(kwargs or {})}
    refuse(model, args, kwargs or {})
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    kinds = (granularity,) if isinstance(granularity, str) else tuple(granularity)
    if costs not in ("whole", "part"):
        raise TraceError(f'costs are those of the "whole" model or of the "part"; got {costs!r}.')
    whole, free = None, Cost(0, 0, 0, 0)
    rest = free
    if part is not None:
        paths = tuple(part) if isinstance(part, Sequence) and not isinstance(part, str) else (part,)
        whole, model, kwargs, rest = taken(model, args, kwargs or {}, paths)
        args, rest = (), rest if costs == "whole" else free
    with whole.as_called() if whole else nullcontext():
        bare = _bare(model, args, kwargs or {}, leaves, frontend, whole)
        bare = replace(bare, program=replace(bare.program, model=model), rest=rest)
        graph = with_units(bare, kinds, slices=slices, round_to=round_to, importance=importance)
    if "raw" not in kinds:
        graph = with_outputs_kept(graph, heads=part is None)
    if model.training:
        log.info("The model is in train mode, and stays so; it is measured as in eval mode.")
    if not graph.units:
        raise NoUnitsError(_why_no_units(model, kinds, graph.refused))
    rules = Rules.of(keep, at_most, at_least, tie, alike)
    return graph if rules == Rules() else ruled(graph, rules)


def _uncached(model: nn.Module) -> dict[str, bool]:
    """That no keys and values are kept for a next call, where a model asks whether to."""
    return {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}


def _bare(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any],
    leaves: Sequence[type[nn.Module] | str], frontend: FrontEnd | None, whole: Whole | None,
) -> Graph:  # fmt: skip
    """The graph without units."""
    own = copied(model)  # it runs, and may keep what it saw: a shape, say
    expected = reference(own, args, kwargs)
    refuse_outputs(model, expected)
    inputs, fixed, names = bind(model, args, kwargs)
    judge = Judge(own, args, kwargs, expected, lambda a, k: tuple(bind(model, a, k)[0].values()))

    def made(choice: FrontEnd) -> Graph:
        module = capture(model, inputs, fixed, leaves, choice, expected)
        return _graph(module, inputs, fixed, names, judge, choice, whole)

    return _first_right(_choices(frontend, leaves), made)


def _choices(frontend: FrontEnd | None, leaves: Sequence[Any]) -> tuple[FrontEnd, ...]:
    known = get_args(FrontEnd)
    if frontend is not None and frontend not in known:
        raise TraceError(f"frontend is one of {', '.join(known)}; got {frontend!r}.")
    if leaves and frontend == "torch.export":
        raise TraceError("`leaves` need torch.fx: torch.export looks into every module.")
    if frontend is not None:
        return (frontend,)
    return ("torch.fx",) if leaves else ("torch.fx", "torch.export")


def _first_right(choices: Iterable[FrontEnd], make: Callable[[FrontEnd], Graph]) -> Graph:
    """The graph of the first front end that follows the model, best at every size."""
    problems: list[TraceError] = []
    fixed: list[Graph] = []
    for choice in choices:
        try:
            graph = make(choice)
        except TooLargeError:
            if not fixed:
                raise  # it is as large for the other front end
        except TraceError as problem:
            problems.append(problem)
        except NotImplementedError as error:  # torch's, of operators that lack a dtype or device
            problems.append(TraceError(f"{choice} makes a program that torch cannot run: {error}"))
        else:
            if not (graph.program.takes or graph.program.frozen):
                return graph
            fixed.append(graph)
    if not fixed:
        raise _failure(problems)
    return min(fixed, key=lambda graph: (bool(graph.program.takes), len(graph.program.frozen)))


def _failure(problems: list[TraceError]) -> TraceError:
    """The error of all front ends; an operator without a rule comes first: a user can help it."""
    first, *others = sorted(problems, key=lambda p: not isinstance(p, UnknownOperatorError))
    if not others or str(others[0]) == str(first):
        return first
    return type(first)(f"{first}\nThe other front end fails too. {others[0]}")


def _graph(
    module: fx.GraphModule, inputs: Mapping[str, Any], fixed: Mapping[str, Any],
    names: tuple[str, ...], judge: Judge, frontend: FrontEnd, whole: Whole | None,
) -> Graph:  # fmt: skip
    """Vertices and edges of a captured program, which must do what the model does."""
    args, model = tuple(inputs.values()), judge.model
    try:
        once = run(module, args)
    except Exception as error:
        raise TraceError(
            f"The program of {type(model).__name__} that {frontend} made does not run: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    conditions: tuple[Condition, ...] = module.meta.get(CONDITIONS, ())
    verdict = judge.check(module, once, conditions)
    if frontend == "torch.export":
        wrong = list(judge.singles(module, conditions))
        conditions += tuple(c for axes in wrong for c in not_one(inputs, axes))
    doubled = verdict.doubled
    if not doubled.values or not _scales(once.numbers, doubled.numbers):
        doubled = run_doubled(module, args)  # numbers that depend on values: of the same values
    limited = not verdict.free or not any_batch(conditions, args)
    alone = not doubled.values and not judge.short_of_memory  # it runs at no other size
    program = Program(
        module=module,
        args=args,
        fixed=fixed,
        values=once.numbers,
        batch=judge.batch if doubled.values or limited else 1,
        modes=modes_of(model),
        takes=judge.batch if limited or alone else 0,
        frozen=verdict.frozen,
        sizes=verdict.sizes,
        parameters=names,
        modal=bool(module.meta.get(MODAL)),
        moving=verdict.moving,
        conditions=conditions,
        whole=whole,
    )
    return Builder(program, once, doubled).build(frontend)


def _scales(once: Mapping[str, Any], doubled: Mapping[str, Any]) -> bool:
    """Whether every number of a program is the same or twice as large in a doubled batch."""
    numbers = [(value, doubled.get(name)) for name, value in once.items()]
    leaves = [tuple(map(pytree.tree_leaves, pair)) for pair in numbers]
    pairs = [pair for left, right in leaves for pair in zip(left, right, strict=False)]
    return all(a == b or (isinstance(a, int) and b == 2 * a) for a, b in pairs)


def _why_no_units(model: nn.Module, kinds: tuple[str, ...], refused: Mapping[str, str]) -> str:
    widths = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:5])
    width = f"no width can be cut ({widths or 'no operator produces channels'})"
    chain = (
        "every edge lies on every path from input to output (a plain chain), so that removing any "
        "would disconnect the output"
    )
    reasons: dict[str, str] = {
        "branch": f"{chain}, or saves next to nothing",
        "edge": chain,
        "layer": "no layer that takes MACs has an output of its input's shape",
        "raw": "it has no edge at all",
        "channels": width,
        "hidden": width,
        "heads": width,
    }
    why = "; ".join(dict.fromkeys(reasons[kind] for kind in kinds))
    more = [kind for kind in ("edge", "layer") if kind not in kinds and "raw" not in kinds]
    hint = f' Try granularity=("edge", "layer"), which offers {more[0]} units too.' if more else ""
    return f"{type(model).__name__} has no unit to remove: {why}.{hint}"
