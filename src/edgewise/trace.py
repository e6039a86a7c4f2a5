"""From a model and example inputs to a Graph."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from .errors import NoUnitsError, TraceError, UnknownOperatorError
from .frontend import Program, capture, refuse_compiled
from .graph import Edge, Graph, Parameter, Shape, Vertex
from .ops import TABLE, Call, Constant, Rule, Slot
from .units import with_units


def trace(
    model: nn.Module,
    args: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    granularity: Sequence[str] | str = ("edge", "layer"),
    leaves: Sequence[type[nn.Module] | str] = (),
) -> Graph:
    """The dataflow graph of a model.

    The model is traced in eval mode on a private copy, run once on the example inputs, and the
    traced program is compared with the model itself. The model is not changed.

    Args:
        model: any `nn.Module` that torch.fx can follow.
        args: example inputs, a tuple (or one tensor); dimension 0 is the batch.
        kwargs: example keyword inputs.
        granularity: kinds of units: "edge" (whole connections and branches), "layer" (layers
            bypassed by identity), or "raw" (every edge by itself).
        leaves: module classes or paths to treat as one operator each; they need a rule.

    Returns:
        The graph; `graph.units` are what a mask can remove.

    Raises:
        TraceError: the model cannot be traced, or the traced program gives other outputs.
        UnknownOperatorError: an operator has no rule; names it, its line and the way out.
        NoUnitsError: nothing in the model can be removed.

    Example:
        >>> graph = ew.trace(model, (torch.randn(1, 3, 32, 32),))  # doctest: +SKIP
    """
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    kinds = (granularity,) if isinstance(granularity, str) else tuple(granularity)
    refuse_compiled(model)
    _check_inputs(model, args, kwargs or {})
    expected = _reference(model, args, kwargs or {})
    module, inputs = capture(model, args, kwargs or {}, leaves)
    values = _run(module, inputs)
    _compare(expected, values["output"], model)
    doubled = _run_doubled(module, inputs)
    program = Program(
        module=module,
        args=inputs,
        values={k: v for k, v in values.items() if not _tensors(v)},
        doubled={k: v for k, v in doubled.items() if not _tensors(v)},
        batch=_batch_size(inputs) if doubled else 1,
        training=model.training,
    )
    bare = _Builder(program, values, doubled).build()
    graph = with_units(bare, kinds)
    if not graph.units:
        raise NoUnitsError(
            f"{type(model).__name__} has no unit of kind {', '.join(kinds)}: every edge lies on "
            "every path from input to output (a plain chain), so removing any would disconnect "
            'the output. Try granularity=("edge", "layer"), which also offers layers whose input '
            "and output shapes agree."
        )
    return graph


def _tensors(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))


def _check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    devices = {p.device for p in model.parameters()} | {b.device for b in model.buffers()}
    for value in pytree.tree_leaves((args, dict(kwargs))):
        if isinstance(value, torch.Tensor) and devices and value.device not in devices:
            raise TraceError(
                f"An example input is on {value.device}, the model on "
                f"{', '.join(sorted(map(str, devices)))}. Move one of them with .to(device)."
            )
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(parameter, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise TraceError(
                f"Parameter {name!r} is not initialised yet (a lazy module). Run the model once on "
                "real input, then trace it."
            )
        if parameter.is_meta:
            raise TraceError(f"Parameter {name!r} is on the meta device. Load the weights first.")
    if not _tensors((args, dict(kwargs))):
        raise TraceError("The example inputs hold no tensor. Pass e.g. `ew.trace(model, (x,))`.")


def _reference(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the user's own model gives in eval mode, its modes put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            return model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the model is the user's
        shapes = [tuple(v.shape) for v in pytree.tree_leaves((args, dict(kwargs))) if hasattr(v, "shape")]
        raise TraceError(
            f"{type(model).__name__} fails on the example inputs of shape "
            f"{', '.join(map(str, shapes))}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Recorder(fx.Interpreter):
    """Runs a program and keeps what each node gave, tensors as meta tensors."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.seen[n.name] = value if n.op == "output" else pytree.tree_map(_without_data, value)
        return value


def _without_data(value: Any) -> Any:
    return value.detach().to("meta") if isinstance(value, torch.Tensor) else value


def _run(module: fx.GraphModule, args: tuple[Any, ...]) -> dict[str, Any]:
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*args)
    return recorder.seen


def _run_doubled(module: fx.GraphModule, args: tuple[Any, ...]) -> dict[str, Any]:
    """The same with every input repeated along dimension 0; empty where the model refuses it."""

    def twice(value: Any) -> Any:
        return torch.cat([value, value]) if isinstance(value, torch.Tensor) and value.ndim else value

    try:
        return _run(module, tuple(pytree.tree_map(twice, a) for a in args))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return {}


def _batch_size(args: tuple[Any, ...]) -> int:
    sizes = {v.shape[0] for v in pytree.tree_leaves(args) if isinstance(v, torch.Tensor) and v.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def _compare(expected: Any, found: Any, model: nn.Module) -> None:
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=False)
    for a, b in pairs:
        if isinstance(a, torch.Tensor) and not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise TraceError(
                f"The traced program of {type(model).__name__} gives other outputs than the model "
                f"(largest difference {(a - b).abs().max().item():.3g}). The model probably writes "
                "into a tensor through a view, draws random numbers in eval mode, or keeps state "
                "between calls."
            )


class _Builder:
    """Reads a recorded program into vertices and edges."""

    def __init__(self, program: Program, values: dict[str, Any], doubled: dict[str, Any]) -> None:
        self.program = program
        self.values = values
        self.doubled = doubled
        self.index: dict[str, int] = {}
        self.vertices: list[Vertex] = []
        self.edges: list[Edge] = []
        self.names: dict[str, int] = {}
        self.tensors = self._tensor_names()
        self.calls = self._call_counts()

    def _tensor_names(self) -> dict[int, str]:
        """One name for each parameter and buffer, however many the model gives it."""
        module = self.program.module
        found: dict[int, str] = {}
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            found.setdefault(id(tensor), name)
        return found

    def _call_counts(self) -> dict[int, int]:
        """How often each parameter is read: by a module call or by name."""
        counts: dict[int, int] = {}
        for node in self.program.module.graph.nodes:
            for tensor in self._reads(node):
                counts[id(tensor)] = counts.get(id(tensor), 0) + max(
                    1 if node.op == "call_module" else len(node.users), 1
                )
        return counts

    def _reads(self, node: fx.Node) -> list[torch.Tensor]:
        if node.op == "call_module":
            return list(self.program.module.get_submodule(node.target).parameters())
        if node.op == "get_attr":
            value = _attribute(self.program.module, str(node.target))
            return [value] if isinstance(value, torch.Tensor) else []
        return []

    def build(self) -> Graph:
        for node in self.program.module.graph.nodes:
            if self._is_data(node):
                self._add(node)
        return Graph(tuple(self.vertices), tuple(self.edges), (), (), "torch.fx", self.program)

    def _is_data(self, node: fx.Node) -> bool:
        if node.op in ("placeholder", "output"):
            return True
        if not _tensors(self.values.get(node.name)):
            return False
        return any(source.name in self.index for source in node.all_input_nodes)

    def _add(self, node: fx.Node) -> None:
        slots = _data_slots(node, self.index)
        rule = self._rule(node, slots)
        module = self.program.module.get_submodule(node.target) if node.op == "call_module" else None
        call = self._call(node, rule, module, slots)
        params = self._params(node, rule, call)
        shape, batched = self._shape(node.name)
        index = len(self.vertices)
        self.index[node.name] = index
        self.edges += [Edge(self.index[n.name], index, slot) for slot, n in enumerate(slots)]
        self.vertices.append(
            Vertex(
                name=self._name(node),
                op=rule.name,
                target=_target_name(node, module),
                shape=shape,
                itemsize=self._itemsize(node.name),
                batched=batched,
                attrs={**rule.read(call), **self._piece(node, rule), **_constants(rule, call)},
                params=params,
                node=node.name,
                module=node.target if module is not None else None,
                source=node.meta.get("source", ""),
                shared=self._shared(node),
            )
        )

    def _rule(self, node: fx.Node, slots: Sequence[fx.Node]) -> Rule:
        key: Any = node.target
        if node.op in ("placeholder", "output"):
            key = node.op
        elif node.op == "call_method":
            key = f"Tensor.{node.target}"
        elif node.target is getattr:
            key = f"Tensor.{node.args[1]}"
        elif node.op == "call_module":
            module = self.program.module.get_submodule(node.target)
            rule = TABLE.find_module(module)
            return rule or self._unknown(node, type(module).__name__)
        elif node.target is operator.getitem and slots:
            source = self.vertices[self.index[slots[0].name]]
            if source.shape is None:
                key = "piece" if source.op == "split" else "take"
        return TABLE.find(key) or self._unknown(node, _target_name(node, None))

    def _unknown(self, node: fx.Node, name: str) -> Rule:
        scope = _scope(node)
        raise UnknownOperatorError(
            f"No rule for operator {name!r} (node {node.name!r}"
            f"{f' in module {scope!r}' if scope else ''}, {node.meta.get('source') or 'source unknown'})."
            " Say how absence passes through it, for example for an element-wise operator:\n"
            f"    ew.register({name}, ew.Rule({name.split('.')[-1]!r}, ew.absence.by_axes, "
            "read=ew.ops.same_axes))\n"
            "or, where it needs all its inputs, ew.absence.join. CONTRIBUTING.md explains rules."
        )

    def _call(
        self, node: fx.Node, rule: Rule, module: nn.Module | None, slots: Sequence[fx.Node]
    ) -> Call:
        shapes = tuple(self._shape(n.name)[0] for n in slots)
        names = rule.signature.split()
        position = iter(range(len(slots)))

        def convert(n: fx.Node) -> Any:
            if n.name in self.index:
                return Slot(next(position))
            value = self.values.get(n.name)
            return Constant(tuple(value.shape)) if isinstance(value, torch.Tensor) else value

        args, kwargs = fx.map_arg((node.args, node.kwargs), convert)
        bound = {
            names[i] if i < len(names) else f"*{i}": value for i, value in enumerate(args)
        } | {("dim" if k == "axis" else k): v for k, v in kwargs.items()}
        if node.target is getattr:
            bound = {}
        return Call(bound, module, shapes, self._shape(node.name)[0])

    def _params(self, node: fx.Node, rule: Rule, call: Call) -> tuple[Parameter, ...]:
        follows = rule.follows(call)
        if node.op == "call_module":
            module = self.program.module.get_submodule(node.target)
            entries = [(n, t, False) for n, t in module.named_parameters()]
            entries += [(n, t, True) for n, t in module.named_buffers()]
        else:
            entries = list(self._constant_tensors(node, rule))
        params = []
        for local, tensor, buffer in entries:
            shape = tuple(tensor.shape)
            follow = tuple(follows.get(local, ()))[: len(shape)]
            follow += (None,) * (len(shape) - len(follow))
            if self._shared(node):
                follow = (None,) * len(shape)
            name = self.tensors.get(id(tensor), local)
            params.append(Parameter(name, shape, follow, buffer))
        return tuple(params)

    def _constant_tensors(
        self, node: fx.Node, rule: Rule
    ) -> Iterable[tuple[str, torch.Tensor, bool]]:
        """Parameters and buffers that reach this node other than through data vertices."""
        names = rule.signature.split()
        named = {names[i] if i < len(names) else f"*{i}": a for i, a in enumerate(node.args)}
        for argument, value in {**named, **node.kwargs}.items():
            for leaf in pytree.tree_leaves(value):
                if not isinstance(leaf, fx.Node) or leaf.name in self.index:
                    continue
                for source in _ancestors(leaf, self.index):
                    if source.op == "get_attr":
                        tensor = _attribute(self.program.module, str(source.target))
                        local = argument if source is leaf else f"{argument}:{source.target}"
                        if isinstance(tensor, torch.Tensor):
                            yield local, tensor, not isinstance(tensor, nn.Parameter)

    def _shared(self, node: fx.Node) -> bool:
        """Whether a parameter of this node is read elsewhere too, so that it cannot be cut."""
        sources = [node, *(n for n in node.all_input_nodes if n.op == "get_attr")]
        return any(self.calls.get(id(t), 0) > 1 for n in sources for t in self._reads(n))

    def _piece(self, node: fx.Node, rule: Rule) -> dict[str, Any]:
        """Where a member of a split lies in the split tensor."""
        if rule.name != "piece":
            return {}
        parent: Any = node.args[0]
        dim = self.vertices[self.index[parent.name]].attrs["dim"]
        sizes = [part.shape[dim] for part in self.values[parent.name]]
        number = int(node.args[1]) % len(sizes)  # type: ignore[arg-type]
        begin = sum(sizes[:number])
        return {"dim": dim, "start": begin, "stop": begin + sizes[number]}

    def _shape(self, name: str) -> tuple[Shape | None, tuple[int, ...]]:
        """The shape for one example, and the dimensions that grow with the batch."""
        value = self.values.get(name)
        if not isinstance(value, torch.Tensor):
            return None, ()
        twice = self.doubled.get(name)
        if not isinstance(twice, torch.Tensor):
            return tuple(value.shape), ()
        batched = tuple(
            i for i, (a, b) in enumerate(zip(value.shape, twice.shape, strict=True)) if a != b
        )
        size = self.program.batch
        return tuple(s // size if i in batched else s for i, s in enumerate(value.shape)), batched

    def _itemsize(self, name: str) -> int:
        value = self.values.get(name)
        return value.element_size() if isinstance(value, torch.Tensor) else 0

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            base = str(node.target)
        elif node.op in ("placeholder", "output"):
            base = str(node.target)
        else:
            scope = _scope(node)
            target = _target_name(node, None).split(".")[-1].strip("_")
            base = f"{scope}.{target}" if scope else target
        count = self.names[base] = self.names.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"


def _constants(rule: Rule, call: Call) -> dict[str, Any]:
    """For each constant tensor argument, what its dimensions follow."""
    follows = rule.follows(call)
    found = {
        name: list(follows[name])
        for name, value in call.args.items()
        if isinstance(value, Constant) and name in follows
    }
    return {"constants": found} if found else {}


def _data_slots(node: fx.Node, index: Mapping[str, int]) -> list[fx.Node]:
    """The data inputs of a node in the order of its arguments, repeated where used twice."""
    found: list[fx.Node] = []

    def note(n: fx.Node) -> fx.Node:
        if n.name in index:
            found.append(n)
        return n

    fx.map_arg((node.args, node.kwargs), note)
    return found


def _ancestors(node: fx.Node, data: Mapping[str, int]) -> list[fx.Node]:
    """A constant node and all the nodes it is computed from."""
    found, queue = [], [node]
    while queue:
        current = queue.pop()
        if current.name not in data and current not in found:
            found.append(current)
            queue.extend(current.all_input_nodes)
    return found


def _scope(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def _target_name(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    if node.target is getattr:
        return f"Tensor.{node.args[1]}"
    return getattr(node.target, "__name__", str(node.target))


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value
