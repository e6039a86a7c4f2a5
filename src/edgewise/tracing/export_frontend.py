"""The torch.export front end: an exported program restated as the modules and calls it came from.

`torch.export` follows Python that torch.fx cannot (dataclasses, shape-dependent branches, **kwargs)
but gives a flat list of ATen operators. Restated in torch's own functions, with leaf modules put
back in their places, the program reads like the model's code, follows train() and eval(), and obeys
the same rules as one traced by torch.fx.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..errors import TraceError
from ..graph.operators.table import TABLE
from ..values.nested import copies_of, doubled
from .aliasing import settle_writes
from .dtypes import follow_dtypes, in_dtype, weights_dtype
from .program import as_module
from .restatement import Restatement

LIMITED = "edgewise_limited_batch"
_MANY = 2**31
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
        if not any(map(_is_write, program.graph.nodes)):
            raise
        program = _decomposed(program)  # writes reach memory that others read
        module = _settled(program, model, inputs, fixed, _decomposed)
    module.meta[LIMITED] = _limited(program)
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
    graph = Restatement(_flat(program), root, given).run()
    return as_module(root, graph, type(model).__name__)


def _flat(program: torch.export.ExportedProgram) -> fx.GraphModule:
    flat: Any = program.module(check_guards=False)
    return flat  # type: ignore[no-any-return]


def _limited(program: torch.export.ExportedProgram) -> bool:
    """Whether the batch is free only up to or from a size: Python decided by it, `len(x) > 8`."""
    names = set(program.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in program.graph.nodes if n.name in names]
    sizes: list[Any] = [v.shape[0] for v in values if isinstance(v, torch.Tensor) and v.ndim]
    free = [size.node.expr for size in sizes if isinstance(size, torch.SymInt)]
    ranges = [program.range_constraints.get(symbol) for symbol in free]
    return any(r is not None and (r.lower > 2 or r.upper < _MANY) for r in ranges)


def _export(
    model: nn.Module, inputs: Mapping[str, Any], fixed: Mapping[str, Any]
) -> torch.export.ExportedProgram:
    """The flat program, with dynamic batch and sequence length where the model allows them."""
    inputs = copies_of(dict(inputs))  # one tensor given twice would be taken for one input
    bigger = doubled(inputs, of=1)  # a dimension of size one would be taken for a constant
    free = {name: pytree.tree_map(_dynamic, value) for name, value in bigger.items()}
    free |= {name: pytree.tree_map(lambda _: None, value) for name, value in fixed.items()}
    error: Exception | None = None
    attempts = [(bigger, free), (dict(inputs), None)]
    with _without_hooks(model), _plain_attention(), quiet(), torch.no_grad():
        for values, shapes in attempts:
            given = {name: {**values, **fixed}[name] for name in in_order(model, inputs, fixed)}
            try:
                program = torch.export.export(model, (), given, dynamic_shapes=shapes, strict=False)
                if any(map(_writes_into_view, program.graph.nodes)):
                    program = _decomposed(program)
                return program
            except Exception as problem:  # noqa: BLE001 - torch.export raises many kinds
                error = problem
    assert error is not None
    raise TraceError(
        f"torch.export cannot follow {type(model).__name__}: {first_lines(error)}"
    ) from error


def _is_write(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _writes_into_view(node: fx.Node) -> bool:
    """Whether an operator writes into part of another tensor, as `x[:, 0] = 1` does."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not isinstance(node.args[0], fx.Node):
        return False
    return _is_view(node.args[0]) or schema.name in ("aten::copy_", "aten::index_put_")


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


def _dynamic(value: Any) -> Any:
    """The batch is free; so is what follows it in token ids and their masks."""
    if not isinstance(value, torch.Tensor):
        return None
    free = 1 if value.is_floating_point() else value.ndim
    auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    return {i: auto if i < free and value.shape[i] > 1 else static for i in range(value.ndim)}


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
def _plain_attention() -> Iterator[None]:
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
