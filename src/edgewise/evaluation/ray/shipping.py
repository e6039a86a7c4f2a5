"""Graph and objective as bytes for another process that has edgewise, but not the user's files."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import fx

from ...errors import ExecutorError
from ...graph.graph import Graph
from ...graph.operators.table import BUILT_IN, TABLE
from ...tracing.program import Program, as_module, attribute
from ...values.description import is_installed
from ...values.version import __version__
from ..objective import Objective


@dataclass(frozen=True)
class _Node:
    """A reference to a node of a packed program, by name."""

    name: str


@dataclass(frozen=True)
class _Function:
    """A function of a module, whose own name says otherwise: F.max_pool2d calls itself `fn`."""

    module: str
    name: str


def pack(graph: Graph, objective: Objective, pickle: Any) -> bytes:
    """Everything a worker needs. Code that is not installed travels with it.

    Args:
        graph: the traced graph.
        objective: what to measure.
        pickle: the cloudpickle to use; it must have `register_pickle_by_value`.

    Raises:
        ExecutorError: a part cannot be pickled; names it and says what to do.
    """
    rules = [
        (rule, [target for target, own in TABLE.targets.items() if own is rule])
        for rule in TABLE.rules.values()
        if rule.name not in BUILT_IN
    ]
    parts = {
        "model": (replace(graph, program=None, ruled=None), _pack_program(graph.program)),
        "rules": rules,
        "objective": objective.over(lambda inputs: inputs),  # no loaders
        "identity": identity(graph, objective),
    }
    with _by_value(pickle):
        try:
            return bytes(pickle.dumps(parts))
        except Exception as error:
            raise _unpicklable(parts, pickle.dumps, error) from error


def unpack(cargo: bytes, pickle: Any) -> tuple[Graph, Objective]:
    """Graph and objective of a packed job.

    Raises:
        ExecutorError: this process has other versions or computes something else.
    """
    parts = pickle.loads(cargo)
    for rule, targets in parts["rules"]:
        if rule.name not in TABLE.rules:
            TABLE.add(rule, *targets)
    bare, program = parts["model"]
    graph, objective = replace(bare, program=_unpack_program(program)), parts["objective"]
    mine = identity(graph, objective)
    wanted = parts["identity"]
    other = [f"{k} {mine[k]} instead of {wanted[k]}" for k in mine if mine[k] != wanted[k]]
    if other:
        raise ExecutorError(
            f"on {socket.gethostname()} it would measure something else than the study does: "
            f"{'; '.join(other)}."
        )
    return graph, objective


def identity(graph: Graph, objective: Objective) -> dict[str, str]:
    """What must be equal for results to be equal."""
    return {
        "edgewise": __version__,
        "torch": torch.__version__,
        "graph": graph.fingerprint[:12],
        "objective": objective.fingerprint[:12],
    }


def _pack_program(program: Program) -> tuple[Any, ...]:
    """A program as plain data: torch.fx would trace it again and number its nodes anew."""

    def named(node: fx.Node) -> Any:
        return _Node(node.name)

    nodes = []
    for node in program.module.graph.nodes:
        args, kwargs = fx.map_arg((node.args, node.kwargs), named)
        nodes.append((node.op, _pack_target(node.target), args, kwargs, node.name))
    targets = {str(t) for op, t, *_ in nodes if op in ("call_module", "get_attr")}
    parts = {target: attribute(program.module, target) for target in sorted(targets)}
    whole = program.whole and replace(program.whole, model=None, example=None)
    rest = replace(program, module=None, model=None, whole=whole)  # type: ignore[arg-type]
    return type(program.module).__name__, nodes, parts, rest


def _pack_target(target: Any) -> Any:
    """What a node calls, by the name under which torch has it where its own name is another."""
    module, name = getattr(target, "__module__", None) or "", getattr(target, "__name__", "")
    misnamed = "<locals>" in getattr(target, "__qualname__", "") and module.startswith("torch.")
    there = misnamed and getattr(sys.modules.get(module), name, None) is target
    return _Function(module, name) if there else target


def _unpack_program(packed: tuple[Any, ...]) -> Program:
    name, nodes, parts, rest = packed
    graph, made = fx.Graph(), dict[str, fx.Node]()

    def read(value: Any) -> Any:
        return made[value.name] if isinstance(value, _Node) else value

    for op, target, args, kwargs, own in nodes:
        args, kwargs = fx.node.map_aggregate((args, kwargs), read)
        if isinstance(target, _Function):
            target = getattr(import_module(target.module), target.name)
        made[own] = graph.create_node(op, target, args, kwargs, name=own)
    module = as_module(parts, graph, name)
    program: Program = replace(rest, module=module.eval())
    return program


@contextmanager
def _by_value(pickle: Any) -> Iterator[None]:
    """Pickle what comes from files that are not installed with its code, not by its name."""
    known = set(pickle.list_registry_pickle_by_value())
    loaded = [module for name, module in list(sys.modules.items()) if name not in known]
    modules = [module for module in loaded if _is_loose(module)]
    for module in modules:
        pickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            pickle.unregister_pickle_by_value(module)


def _is_loose(module: Any) -> bool:
    """Whether a module is a file of the user's, which another machine need not have."""
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if not file or sys.modules.get(name) is not module or name in ("__main__", "__mp_main__"):
        return False
    return not is_installed(file)


def _unpicklable(parts: dict[str, Any], dumps: Callable[[Any], Any], error: Any) -> ExecutorError:
    objective = parts["objective"]
    named = {
        "The model": parts["model"],
        "A rule registered with ew.register": parts["rules"],
        "The loss": objective.loss,
        **{f"Metric {name!r}": metric for name, metric in objective.metrics.items()},
        "The data": (objective.splits, objective.recovery),
    }
    what = "The objective"
    for name, part in named.items():
        try:
            dumps(part)
        except Exception as own:  # noqa: BLE001 - user objects may raise anything
            what, error = name, own
            break
    return ExecutorError(
        f"{what} cannot be sent to workers: {type(error).__name__}: {error}. Let it hold no lock, "
        "open file or connection: create such things inside the function that uses them."
    )
