"""From a recorded program to vertices and edges."""

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from ..errors import TraceError, UnknownOperatorError
from ..graph.graph import Graph
from ..graph.operators.absence import by_axes
from ..graph.operators.calls import Call, Constant, Slot
from ..graph.operators.resize import normed
from ..graph.operators.table import TABLE, Rule
from ..graph.vertices import Edge, Parameter, Shape, Vertex
from ..values.nested import holds_tensor, named_tensors
from .architecture import settings
from .probe import Recording
from .program import Program, attribute

_MEMBERS = {"split": "piece", "unbind": "member", "recurrent": "state", "state": "state"}
_ALIASES = {"axis": "dim", "keepdims": "keepdim", "axes": "dims"}


class Builder:
    """Reads a recorded program into vertices and edges."""

    def __init__(self, program: Program, once: Recording, doubled: Recording) -> None:
        self.program = program
        self.values, self.doubled = once.values, doubled.values
        self.constant_macs = {
            name: macs // program.batch if doubled.constant_macs.get(name) == 2 * macs else macs
            for name, macs in once.constant_macs.items()
        }
        self.index: dict[str, int] = {}
        self.vertices: list[Vertex] = []
        self.edges: list[Edge] = []
        self.names: dict[str, int] = {}
        self.tensors = self._tensor_names()
        self.tied: frozenset[str] = getattr(program.whole, "tied", frozenset())
        self.calls = self._call_counts()
        nodes = program.module.graph.find_nodes(op="call_module")
        self.module_calls = Counter(str(node.target) for node in nodes)

    def _tensor_names(self) -> dict[int, str]:
        """One name for each parameter and buffer, however many the model gives it."""
        found: dict[int, str] = {}
        for name, tensor in named_tensors(self.program.module).items():
            found.setdefault(id(tensor), name)
        return found

    def _call_counts(self) -> Counter[int]:
        """How often each parameter is read: by a module call or by name."""
        counts = Counter[int]()
        for node in self.program.module.graph.nodes:
            times = 1 if node.op == "call_module" else max(len(node.users), 1)
            counts.update({id(tensor): times for tensor in self._reads(node)})
        return counts

    def _module(self, node: fx.Node) -> nn.Module | None:
        """What a node calls, if it is a module."""
        called = node.op == "call_module"
        return self.program.module.get_submodule(str(node.target)) if called else None

    def _reads(self, node: fx.Node) -> list[torch.Tensor]:
        if (module := self._module(node)) is not None:
            return [*module.parameters(), *module.buffers()]
        if node.op == "get_attr":
            value = attribute(self.program.module, str(node.target))
            return [value] if isinstance(value, torch.Tensor) else []
        return []

    def build(self, frontend: str) -> Graph:
        for node in self.program.module.graph.nodes:
            if self._is_data(node):
                self._add(node)
        if not any(self.vertices[edge.target].op == "output" for edge in self.edges):
            raise TraceError(
                "No output of the model is a tensor that depends on its inputs. Outputs may be "
                "tensors, or tuples, lists, dicts and dataclasses of them."
            )
        return Graph(
            tuple(self.vertices), tuple(self.edges), (), (), frontend, self.program,
            settings=settings(self.program.module),
        )  # fmt: skip

    def _is_data(self, node: fx.Node) -> bool:
        if node.op in ("placeholder", "output"):
            return True
        if not holds_tensor(self.values.get(node.name)):
            return False
        return any(source.name in self.index for source in node.all_input_nodes)

    def _add(self, node: fx.Node) -> None:
        slots = data_inputs(node, self.index)
        rule = self._rule(node, slots)
        module = self._module(node)
        call = self._call(node, rule, module, slots)
        params = self._params(node, rule, call)
        shape, batched = self._shape(node.name)
        value = self.values.get(node.name)
        _refuse_unbatched(node, rule, call, params)
        if rule.name in ("cat", "stack") and rule.read(call).get("dim") in batched:
            rule = TABLE.rules["combine"]  # without a part of the batch, the rest is another batch
        index = len(self.vertices)
        self.index[node.name] = index
        self.edges += [Edge(self.index[n.name], index, slot) for slot, n in enumerate(slots)]
        self.vertices.append(
            Vertex(
                name=self._name(node),
                op=rule.name,
                target=_target_name(node, module),
                shape=shape,
                itemsize=value.element_size() if isinstance(value, torch.Tensor) else 0,
                batched=batched,
                attrs={**rule.read(call), **self._piece(node, rule), **_constants(rule, call)},
                constant_macs=self._constant_macs(node),
                params=params,
                node=node.name,
                module=str(node.target) if module is not None else None,
                source=node.meta.get("source", ""),
                shared=self._shared(node),
                dtype=self._dtype(node.name),
            )
        )

    def _rule(self, node: fx.Node, slots: Sequence[fx.Node]) -> Rule:
        key: Any = node.target
        if node.op in ("placeholder", "output"):
            key = node.op
        elif node.op == "call_method" or node.target is getattr:
            key = _target_name(node, None)
        elif (module := self._module(node)) is not None:
            return TABLE.find_module(module) or self._unknown(node, type(module).__name__)
        elif isinstance(node.target, type):
            key = "construct"  # a namedtuple or dataclass of outputs
        elif node.target is operator.getitem and slots:
            source = self.vertices[self.index[slots[0].name]]
            if source.shape is None:
                alike = TABLE.rules[source.op].flow is by_axes  # all members have its channels
                rest = "twin" if alike else "take"
                key = _MEMBERS.get(source.op, rest)
        return TABLE.find(key) or self._unknown(node, _target_name(node, None))

    def _unknown(self, node: fx.Node, name: str) -> NoReturn:
        scope, place = _scope(node), node.meta.get("source") or "source unknown"
        raise UnknownOperatorError(
            f"No rule for operator {name!r} (node {node.name!r}"
            f"{f' in module {scope!r}' if scope else ''}, {place})."
            " Say how absence passes through it, for example for an element-wise operator:\n"
            f"    ew.register({_register_as(node, name)}, "
            f"ew.Rule({name.removeprefix('Tensor.').split('.')[0]!r}, ew.absence.by_axes, "
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
        bound = {names[i] if i < len(names) else f"*{i}": value for i, value in enumerate(args)} | {
            _ALIASES.get(k, k): v for k, v in kwargs.items()
        }
        if node.target is getattr:
            bound = {}
        dtypes = tuple(self._dtype(n.name) for n in [*slots, node])
        return Call(bound, module, shapes, self._shape(node.name)[0], dtypes)

    def _params(self, node: fx.Node, rule: Rule, call: Call) -> tuple[Parameter, ...]:
        follows = rule.follows(call)
        entries: list[tuple[str, torch.Tensor, bool]] = []
        if call.module is not None:
            entries = [(n, t, False) for n, t in call.module.named_parameters()]
            entries += [(n, t, True) for n, t in call.module.named_buffers()]
        entries += self._constant_tensors(node, rule)
        params = []
        for local, tensor, buffer in entries:
            shape = tuple(tensor.shape)
            own = local.removeprefix("parametrizations.").partition(".original")[0]
            follow = tuple(follows.get(own, ()))[: len(shape)]
            if own != local:  # of weight norm, whose lengths lie along one axis
                pairs = zip(follow, shape, strict=False)
                follow = tuple(f if size > 1 else None for f, size in pairs)
            follow += (None,) * (len(shape) - len(follow))
            if self._shared(node):
                follow = (None,) * len(shape)
            name = self.tensors.get(id(tensor), local)
            counted = not buffer and name not in self.tied  # which the model around it keeps
            params.append(Parameter(name, shape, follow, not counted, tensor.element_size()))
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
                for source in ancestors(leaf, self.index):
                    itself = source is leaf and source.op == "get_attr"
                    local = argument if itself else f"{argument}:{source.target}"
                    for tensor in self._reads(source):
                        yield local, tensor, not isinstance(tensor, nn.Parameter)

    def _constant_macs(self, node: fx.Node) -> tuple[tuple[str, int], ...]:
        """What is computed for this node from constants alone, by name."""
        found = {
            source.name: self.constant_macs[source.name]
            for constant in node.all_input_nodes
            if constant.name not in self.index
            for source in ancestors(constant, self.index)
            if self.constant_macs.get(source.name)
        }
        return tuple(sorted(found.items()))

    def _shared(self, node: fx.Node) -> bool:
        """Whether a parameter is read elsewhere too, or computed, so that it cannot be cut."""
        if (module := self._module(node)) is not None:
            if hasattr(module, "parametrizations") or module._forward_pre_hooks:
                return not normed(module)  # its weight is computed before every call
            sized = hasattr(module, "normalized_shape") or hasattr(module, "num_groups")
            if sized and self.module_calls[str(node.target)] > 1:
                return True  # one module cannot have two sizes, with or without weights
        sources = [node, *(n for n in node.all_input_nodes if n.op == "get_attr")]
        read = [t for n in sources for t in self._reads(n)]
        return any(self.calls.get(id(t), 0) > 1 or self.tensors.get(id(t)) in self.tied
                   for t in read)  # fmt: skip

    def _piece(self, node: fx.Node, rule: Rule) -> dict[str, Any]:
        """Where a member of a split lies in the split tensor."""
        if rule.name not in ("piece", "member", "state"):
            return {}
        parent: Any = node.args[0]
        source = self.vertices[self.index[parent.name]]
        if rule.name == "state":
            units = source.attrs["units"]
            cells = len(units) > 1 and source.op == "state" and node.args[1] == 1
            return {"units": units, "kind": int(cells)}
        dim = source.attrs["dim"]
        if rule.name == "member":
            return {"dim": dim, "number": int(node.args[1])}  # type: ignore[arg-type]
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

    def _dtype(self, name: str) -> str:
        value = self.values.get(name)
        return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else ""

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module" or node.op in ("placeholder", "output"):
            base = str(node.target)
        else:
            scope = _scope(node)
            target = _target_name(node, None).split(".")[-1].strip("_")
            base = f"{scope}.{target}" if scope else target
        count = self.names[base] = self.names.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"


def _refuse_unbatched(node: fx.Node, rule: Rule, call: Call, params: Sequence[Parameter]) -> None:
    """Raise TraceError for images without a batch, whose channels are where batches are else."""
    given = call.shapes[0] if call.shapes else None
    if rule.name not in ("conv", "conv_transpose") or given is None or not params:
        return
    if len(given) < len(params[0].shape):
        place = node.meta.get("source") or node.name
        raise TraceError(
            f"A convolution at {place} gets an example without a batch, of shape {given}. Pass a "
            "batch of one: x.unsqueeze(0)."
        )


def _constants(rule: Rule, call: Call) -> dict[str, Any]:
    """For each constant tensor argument, what its dimensions follow."""
    follows = rule.follows(call)
    found = {
        name: list(follows[name])
        for name, value in call.args.items()
        if name in follows and any(isinstance(v, Constant) for v in pytree.tree_leaves(value))
    }
    return {"constants": found} if found else {}


def data_inputs(node: fx.Node, index: Mapping[str, Any]) -> list[fx.Node]:
    """The data inputs of a node in the order of its arguments, repeated where used twice."""
    found: list[fx.Node] = []

    def note(n: fx.Node) -> fx.Node:
        if n.name in index:
            found.append(n)
        return n

    fx.map_arg((node.args, node.kwargs), note)
    return found


def ancestors(node: fx.Node, data: Mapping[str, int]) -> list[fx.Node]:
    """A constant node and all the nodes it is computed from."""
    found, queue = [], [node]
    while queue:
        current = queue.pop()
        if current.name not in data and current not in found:
            found.append(current)
            queue.extend(current.all_input_nodes)
    return found


def _register_as(node: fx.Node, name: str) -> str:
    """How a user names an operator to `ew.register`."""
    if isinstance(node.target, torch._ops.OpOverload):
        return f"torch.ops.{node.target}"
    if node.op == "call_function" and node.target is not getattr:
        module = getattr(node.target, "__module__", None) or "torch"
        return f"{module.removesuffix('._C')}.{name}"
    return name if node.op == "call_module" else repr(name)


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
