"""The torch.export front end: an exported program restated as the modules and calls it came from.

`torch.export` follows Python that torch.fx cannot (dataclasses, shape-dependent branches, **kwargs)
but gives a flat list of ATen operators. Restated in torch's own functions, with leaf modules put
back in their places, the program reads like the model's code, follows train() and eval(), and obeys
the same rules as one traced by torch.fx.
"""

import copy
import inspect
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree
from torch.utils._sympy.printers import PythonPrinter

from ..errors import TraceError
from ..graph.operators.table import TABLE
from ..values.nested import copies_of, doubled
from .aliasing import settle_writes
from .cleanup import mutated
from .dtypes import follow_dtypes, in_dtype, weights_dtype
from .lengths import lengths_traced
from .program import as_module
from .restatement import Restatement
from .sizes import Condition, spelled

CONDITIONS = "edgewise_conditions"
_TERMS, _DECISIONS = 8, 32  # in a size, and of sizes, beyond which torch.export takes minutes
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def exported(
    model: nn.Module, inputs: Mapping[str, Any], fixed: Mapping[str, Any]
) -> fx.GraphModule:
    """The model as an fx program of torch functions and the model's own leaf modules.

    Args:
        model: a private copy in eval mode.
        inputs: the arguments of forward that hold tensors, by name.
        fixed: its other arguments.

    Raises:
        TraceError: torch.export cannot follow the model.
    """
    program = _export(model, inputs, fixed)
    try:
        module = _settled(program, model, inputs, fixed, lambda other: other)
    except TraceError:
        if not any(mutated(node.target) for node in program.graph.nodes):
            raise
        program = _decomposed(program)  # writes reach memory that others read
        module = _settled(program, model, inputs, fixed, _decomposed)
    module.meta[CONDITIONS] = _conditions(program, inputs)
    return module


def _settled(
    program: torch.export.ExportedProgram, model: nn.Module, inputs: Mapping[str, Any],
    fixed: Mapping[str, Any], alike: Callable[[Any], torch.export.ExportedProgram],
) -> fx.GraphModule:  # fmt: skip
    """The program as modules and calls that follow the precision, and write in place harmlessly."""

    def again(dtype: torch.dtype) -> fx.Graph:
        there, own = copy.deepcopy(model).to(dtype), weights_dtype(model)
        given: dict[str, Any] = in_dtype(dict(inputs), own, dtype)
        return _restated(alike(_export(there, given, fixed)), there, given, fixed).graph

    module = _restated(program, model, inputs, fixed)
    follow_dtypes(module, inputs, again)
    settle_writes(module, doubled(tuple(inputs.values()), of=1))
    return module


def _decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    with quiet():
        found: torch.export.ExportedProgram = program.run_decompositions({})
    return found


def _restated(
    program: torch.export.ExportedProgram, model: nn.Module, inputs: Mapping[str, Any],
    fixed: Mapping[str, Any],
) -> fx.GraphModule:  # fmt: skip
    root = copy.copy(model)
    root._modules, root._buffers = dict(model._modules), dict(model._buffers)
    given = {name: {**inputs, **fixed}[name] for name in in_order(model, inputs, fixed)}
    graph = Restatement(program.module(check_guards=False), root, given).run()
    return as_module(root, graph, type(model).__name__)


def _conditions(
    program: torch.export.ExportedProgram, inputs: Mapping[str, Any]
) -> tuple[Condition, ...]:
    """What Python code of the model decided by sizes, as torch.export noted it.

    What torch's own operators decide by them they decide again whenever the program runs.
    """
    leaves = pytree.tree_flatten_with_path(dict(inputs))[0]
    values = [node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")]
    shapes = [value.shape for value in values if isinstance(value, torch.Tensor)]
    sizes: list[Any] = [
        size for shape in shapes for size in shape if isinstance(size, torch.SymInt)
    ]
    known: Any = sizes[0].node.shape_env if sizes else ShapeEnv()
    names = spelled(inputs)
    axes = {
        known.source_to_var.get(f"L{pytree.keystr(path)}.size()[{axis}]"): (place, axis)
        for place, (path, leaf) in enumerate(leaves)
        for axis in range(leaf.ndim if isinstance(leaf, torch.Tensor) else 0)
    }
    found = {}
    for guard in known.guards:
        place, free = guard.sloc.framework_loc, guard.expr.free_symbols
        if (place is not None and _within_torch(place.filename)) or not free <= set(axes):
            continue
        words = {
            symbol: symbol.func(f"{names[axes[symbol][0]]}.shape[{axes[symbol][1]}]", integer=True)
            for symbol in free
        }
        text, code = (PythonPrinter().doprint(e) for e in (guard.expr.xreplace(words), guard.expr))
        places = tuple((str(symbol), *axes[symbol]) for symbol in sorted(free, key=str))
        found[text] = Condition(text, code, places)
    return tuple(found.values())


def _within_torch(file: str) -> bool:
    """Whether a file is torch's, but for its layers in Python, which tracing looks into."""
    home = os.path.dirname(torch.__file__)
    return file.startswith(home) and not file.startswith(os.path.join(home, "nn"))


def _export(
    model: nn.Module, inputs: Mapping[str, Any], fixed: Mapping[str, Any]
) -> torch.export.ExportedProgram:
    """The flat program, with all sizes free that the model leaves free."""
    inputs = copies_of(dict(inputs))  # one tensor given twice would be taken for one input
    bigger = doubled(inputs, of=1)  # a dimension of size one would be taken for a constant
    none = {name: pytree.tree_map(lambda _: None, value) for name, value in fixed.items()}
    every, batch = (
        pytree.tree_map(lambda v, n=n: _dynamic(v, n), bigger) | none for n in (None, 1)
    )
    error: Exception | None = None
    attempts = [(bigger, every), (bigger, batch), (dict(inputs), None)]
    with (
        _without_hooks(model), plain_attention(), lengths_traced(model), quiet(), _simple(),
        torch.no_grad(),
    ):  # fmt: skip
        for values, shapes in attempts:
            given = {name: {**values, **fixed}[name] for name in in_order(model, inputs, fixed)}
            try:
                fresh = copy.deepcopy(model)  # an attempt may leave its sizes in attributes
                program = torch.export.export(fresh, (), given, dynamic_shapes=shapes, strict=False)
                if any(map(_writes_into_view, program.graph.nodes)):
                    program = _decomposed(program)
                return program
            except Exception as problem:  # noqa: BLE001 - torch.export raises many kinds
                error = problem
    assert error is not None
    raise TraceError(
        f"torch.export cannot follow {type(model).__name__}: {first_lines(error)}"
    ) from error


def _writes_into_view(node: fx.Node) -> bool:
    """Whether an operator writes into part of another tensor, as `x[:, 0] = 1` does."""
    target: Any = node.target
    if not mutated(target) or not isinstance(node.args[0], fx.Node):
        return False
    return _is_view(node.args[0]) or target._schema.name in ("aten::copy_", "aten::index_put_")


def _is_view(node: fx.Node) -> bool:
    """Whether a node gives another tensor's memory."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    return any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)


def in_order(model: nn.Module, inputs: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[str]:
    """The names of all arguments as `forward` has them: torch.export calls fx modules by place."""
    names = list(inspect.signature(model.forward).parameters)
    return sorted({**inputs, **fixed}, key=lambda n: names.index(n) if n in names else len(names))


def _dynamic(value: Any, axes: int | None) -> Any:
    """The first axes are free (None: all), but those of size one."""
    if not isinstance(value, torch.Tensor):
        return None
    auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    free = range(value.ndim)[:axes]
    return {i: auto if i in free and value.shape[i] > 1 else static for i in range(value.ndim)}


@contextmanager
def _simple() -> Iterator[None]:
    """Gives up where sizes are long formulas of those of the inputs, as windows make them."""

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        for size in (size for value in tensors for size in value.shape):
            if isinstance(size, torch.SymInt):
                decided = len(size.node.shape_env.guards)
                if size.node.expr.count_ops() > _TERMS or decided > _DECISIONS:
                    raise TraceError("too many sizes depend on those of the inputs")

    hook = nn.modules.module.register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _without_hooks(model: nn.Module) -> Iterator[None]:
    """Hooks of leaf modules stay on the modules, and must not be traced into the program too."""
    saved = [
        (module, name, getattr(module, name))
        for module in model.modules()
        if TABLE.find_module(module) is not None
        for name in _HOOKS
    ]
    try:
        for module, name, _ in saved:
            setattr(module, name, type(getattr(module, name))())
        yield
    finally:
        for module, name, hooks in saved:
            setattr(module, name, hooks)


@contextmanager
def plain_attention() -> Iterator[None]:
    """The fused encoder kernel of inference mode has no rule and no gradient."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def quiet() -> Iterator[None]:
    """torch.export prints the whole program before it raises what says the same in a line."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def first_lines(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: " + " ".join(lines[:3])[:500]
