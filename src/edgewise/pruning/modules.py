"""From a mask to the edits of the model's own modules, or to the reason why there are none."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from ..errors import FormError
from ..graph.cost import followed, inner_outer, live_slices
from ..graph.graph import Graph, Mask
from ..graph.liveness import Liveness, liveness
from ..graph.operators.table import TABLE
from ..graph.vertices import Vertex
from ..values.nested import named_tensors
from .attributes import Attribute, numbers_in, resized_attributes
from .calls import EMPTY, ONE, ZERO, Calls, Fill, module_paths
from .edits import Edit, ranges
from .withholding import NEUTRAL, Withholding

_LINEAR = ("identity", "mean", "sum", "roll", "flip", "pool1d", "pool2d", "pool3d", "resample")
_MIXING = ("conv", "linear", "conv_transpose", "matmul")
REAL = "real"


@dataclass
class Draft:
    """Edits of which some are believed only where the outputs agree.

    Args:
        edits: that are certain.
        numbers: attributes of modules that may say a size, by the class and name they have.
        dead: tensors that nothing reads any more although their module stays.
    """

    edits: dict[str, Edit] = field(default_factory=dict)
    numbers: dict[tuple[str, str, int], list[Attribute]] = field(default_factory=dict)
    dead: list[tuple[str, str]] = field(default_factory=list)


def draft(graph: Graph, mask: Mask, calls: Calls, full_gone: bool, full_withheld: bool) -> Draft:
    """What becomes of each module under a mask.

    Args:
        graph: the traced graph.
        mask: what is removed.
        calls: how the model calls its modules.
        full_gone: whether a module that is gone gives zeros of the shape it had, not one zero.
        full_withheld: likewise what stands for a tensor that some code does without.

    Raises:
        FormError: no edit of a module says what the mask does; names the place and the unit.
    """
    alive = liveness(graph, mask).require_connected()
    return _Drafting(graph, mask, alive, calls, full_gone, full_withheld).run()


class _Drafting:
    def __init__(
        self, graph: Graph, mask: Mask, alive: Liveness, calls: Calls, full_gone: bool,
        full_withheld: bool,
    ) -> None:  # fmt: skip
        self.graph, self.mask, self.alive, self.calls = graph, mask, alive, calls
        self.full_gone = full_gone
        self.paths = module_paths(graph)
        self.inside: dict[str, set[int]] = defaultdict(set)
        for index, paths in enumerate(self.paths):
            for path in paths:
                self.inside[path].add(index)
        self.home: dict[int, str] = {}  # of vertices that an edit of a whole module replaces
        self.fills: dict[str, Fill] = {}
        self.dims: dict[str, int] = {}  # that have no channels
        self.passed: list[str] = []
        self.known: dict[int, str] = {}
        self.holding = Withholding(graph, alive, calls, full_withheld, self.fills)
        self.draft = Draft()

    def run(self) -> Draft:
        self._whole(self.calls.model, "")
        for path in [p for p in self.fills if p not in self.passed]:
            self.fills[path] = self._fill(path)
        for index in range(len(self.graph.vertices)):
            if index not in self.home and self.alive.states[index] is not None:
                self._check(index)
        for path, fill in self.fills.items():
            source = self._forwarded(path) if path in self.passed else None
            gives = self.calls.given(path, fill, self.full_gone, source, self.dims.get(path, 1))
            becomes = "passed" if path in self.passed else "gone"
            self.draft.edits[path] = Edit(becomes, gives=gives)
        self._resized()
        left = [p for p in self.fills if p not in self.passed]
        self.draft.edits.update(self.holding.edits(self.draft.edits, left))
        return self.draft

    # -- whole modules ---------------------------------------------------------------------

    def _whole(self, module: nn.Module, path: str) -> None:
        """The largest modules of which nothing runs any more."""
        own = self.inside.get(path, set())
        if own and path and not any(map(self.alive.runs, own)):
            live = [i for i in own if self.alive.states[i] is not None]
            self.home.update(dict.fromkeys(own, path))
            self.fills[path] = ZERO
            if live:
                self.passed.append(path)
            return
        for name, child in module.named_children():
            self._whole(child, f"{path}.{name}" if path else name)

    def _fill(self, path: str) -> Fill:
        """What a module that is gone gives, so that it leaves no trace where it is read."""
        wanted = dict(self._readers(sorted(self.inside[path]), path, set()))
        if len(wanted) > 1:
            reads = ", ".join(self.graph.vertices[v].name for v in wanted.values())
            raise self._error(path, min(self.inside[path]), f"it is read in several ways ({reads})")
        if EMPTY in wanted:
            self.dims[path] = self.graph.vertices[wanted[EMPTY]].attrs["dim"]
        return next(iter(wanted), ZERO)

    def _readers(
        self, vertices: Sequence[int], path: str, seen: set[int]
    ) -> Iterator[tuple[Fill, int]]:
        for vertex in vertices:
            for edge in self.graph.consumers[vertex]:
                target = self.graph.edges[edge].target
                if target in seen or self.home.get(target) in (path, *self.fills):
                    continue
                seen.add(target)
                if self.alive.states[target] is None:
                    yield from self._readers([target], path, seen)
                elif (fill := NEUTRAL.get(self.graph.vertices[target].op)) is not None:
                    yield fill, target

    def _forwarded(self, path: str) -> int:
        """The vertex outside a module whose value it passes on."""
        own = self.inside[path]
        index = max(i for i in own if self.alive.states[i] is not None)
        while index in own:
            used = [e for e in self.graph.inputs[index] if self.alive.wants[e] is not None]
            index = self.graph.edges[used[0]].source
        return index

    # -- what runs -------------------------------------------------------------------------

    def _check(self, index: int) -> None:
        """Require that the model's own code does at a vertex what the mask says."""
        vertex = self.graph.vertices[index]
        if index in self.alive.bypassed:
            raise self._error("", index, "a function that is passed by is no module")
        for edge in self.graph.inputs[index]:
            want, source = self.alive.wants[edge], self.graph.edges[edge].source
            have = self.alive.states[source]
            if want is not None and have != want:
                raise self._error("", index, "it reads other channels than are there", edge)
            value = self._value(source)
            if want is None:
                neutral = NEUTRAL.get(vertex.op)
                if value != neutral and not (value == REAL and self.holding.without(index, source)):
                    what = "which still runs" if value == REAL else f"which gives {value}"
                    name = self.graph.vertices[source].name
                    raise self._error("", index, f"it does without {name}, {what}", edge)
            elif value != REAL:
                raise self._error("", index, "it reads what is gone", edge)

    def _value(self, index: int) -> str:
        """What the model's own code gives for a vertex: what it should, or a constant."""
        if index not in self.known:
            self.known[index] = self._found(index)
        return self.known[index]

    def _found(self, index: int) -> str:
        home = self.home.get(index)
        if home is not None:
            return REAL if home in self.passed else self.fills[home]
        if self.alive.states[index] is not None:
            return REAL
        vertex = self.graph.vertices[index]
        values = [self._value(self.graph.edges[e].source) for e in self.graph.inputs[index]]
        constants = {value for value in values if value != REAL}
        if not constants:
            return REAL
        value = constants.pop()
        if constants:
            return "another number"
        if value == ZERO and not self._keeps_zero(vertex, values):
            return REAL if vertex.op in ("add", "sub") and REAL in values else "another number"
        if value == ONE and not (vertex.op == "identity" or TABLE.rules[vertex.op].view):
            return "another number"
        return value

    def _keeps_zero(self, vertex: Vertex, values: Sequence[str]) -> bool:
        rule = TABLE.rules[vertex.op]
        if vertex.op in ("mul", "div"):
            return vertex.op == "mul" or values[0] == ZERO
        if vertex.op in ("add", "sub", "cat", "stack"):
            return set(values) == {ZERO} and (len(values) > 1 or vertex.op in ("cat", "stack"))
        if vertex.op in _MIXING:
            return not any(p.name.endswith("bias") for p in vertex.params)
        if vertex.op == "pointwise":
            return zero_stays(self.calls.nodes[vertex.node], self.graph.program.module)
        return rule.view or vertex.op in _LINEAR

    # -- tensors and numbers ---------------------------------------------------------------

    def _resized(self) -> None:
        """Parameters that lose entries, the numbers that say so, and tensors nobody reads."""
        own = named_tensors(self.calls.model).keys()
        cuts: dict[str, tuple[str, ...]] = {}
        shown: dict[str, int] = {}
        read = set[str]()
        for index, vertex in enumerate(self.graph.vertices):
            if index in self.home or not self.alive.runs(index):
                continue
            read.update(p.name for p in vertex.params)
            for name, cut in (*self._cuts(index), *self._computed(index)):
                if name not in own:
                    raise self._error("", index, f"{name} is no tensor of the model, and is cut")
                if ".parametrizations." in name:
                    raise self._error("", index, f"{name} is computed anew, and is cut")
                if cuts.setdefault(name, cut) != cut:
                    raise self._error("", index, f"{name} is cut in two ways")
                shown[name] = index
            for attribute in numbers_in(self.graph, self.alive, index, self.paths, self.calls):
                self.draft.numbers.setdefault(attribute.kind, []).append(attribute)
        modules: dict[str, dict[str, tuple[str, ...] | None]] = defaultdict(dict)
        for name, cut in cuts.items():
            path, _, local = name.rpartition(".")
            modules[path][local] = cut
        for path, tensors in modules.items():
            index = max(shown[f"{path}.{name}" if path else name] for name in tensors)
            sizes = self._sizes(index)
            found = resized_attributes(self.calls.model.get_submodule(path), tensors, sizes)
            if isinstance(found, str):
                raise self._error(path, index, found)
            self.draft.edits[path] = Edit("resized", dict(tensors), found)
        for name in sorted(own - read):
            path, _, local = name.rpartition(".")
            traced = name in self.graph.readers
            if traced and not any(path == p or path.startswith(f"{p}.") for p in self.fills):
                self.draft.dead.append((path, local))

    def _cuts(self, index: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        inner, outer = inner_outer(self.graph, self.alive, index)
        for parameter in self.graph.vertices[index].params:
            keeps = live_slices(parameter, inner, outer)
            if any(keep is not None for keep in keeps):
                yield parameter.name, tuple("" if k is None else ranges(k) for k in keeps)

    def _computed(self, index: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Cuts of the parameters from which a constant of the call is computed.

        Of such a parameter the axis is cut that has the size of the constant's, where there is one
        only; whether that is right the outputs tell.
        """
        vertex = self.graph.vertices[index]
        inner, outer = inner_outer(self.graph, self.alive, index)
        follows = vertex.attrs.get("constants") or {}
        lines = [k for f in follows.values() for k in followed(f, inner, outer) if k]
        node = self.calls.nodes[vertex.node]
        direct = {str(n.target) for n in node.all_input_nodes if n.op == "get_attr"}
        known = {p.name for p in vertex.params if any(p.follows)}
        if not lines or direct & known:
            return
        fitting = [
            (parameter, axis, keep)
            for keep in dict.fromkeys(lines)
            for parameter in vertex.params
            for axis, size in enumerate(parameter.shape)
            if parameter.name not in known and size == len(keep)
        ]
        if vertex.module is not None and all(p.name in known for p in vertex.params):
            return  # a first state of zeros
        if len(fitting) != 1:
            raise self._error("", index, "it reads a computed constant of which channels are gone")
        ((parameter, axis, keep),) = fitting
        cut = [""] * len(parameter.shape)
        cut[axis] = ranges(keep)
        yield parameter.name, tuple(cut)

    def _sizes(self, index: int) -> tuple[int, ...]:
        vertex, state = self.graph.vertices[index], self.alive.states[index]
        count = TABLE.rules[vertex.op].sizes
        return count(vertex, state) if count is not None and state is not None else ()

    # -- reasons ---------------------------------------------------------------------------

    def _error(self, path: str, index: int, why: str, edge: int | None = None) -> FormError:
        vertex = self.graph.vertices[index]
        home = path or (self.paths[index] or ("",))[-1]
        where = f"module {home!r}" if home else type(self.calls.model).__name__
        line = f" ({vertex.source})" if vertex.source else ""
        names = [self.graph.units[unit].name for unit in self.mask.removed]
        if edge is not None:
            units = [self.graph.units[unit] for unit in self.mask.removed]
            names = [u.name for u in units if edge in u.removal.edges] or names
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        return FormError(
            f"The code of {where}{line} cannot do what the mask says at {vertex.name}: {why}. "
            f'Unit: {shown}. Keep it, or use form="program".'
        )


def zero_stays(node: fx.Node, module: fx.GraphModule) -> bool:
    """Whether a function of single elements gives zero where all it reads is zero."""
    interpreter = fx.Interpreter(module)
    try:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: torch.zeros(1))
        value = getattr(interpreter, node.op)(node.target, args, kwargs)
        return not value.any().item()
    except Exception:  # noqa: BLE001 - it takes something else, and may do anything with it
        return False
