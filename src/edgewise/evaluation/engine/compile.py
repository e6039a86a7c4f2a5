"""Masks into programs of steps that they share."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable
from functools import cached_property, partial
from itertools import accumulate, islice, pairwise, starmap
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import fx, nn

from ...graph.graph import Graph, Mask
from ...graph.liveness import Liveness, liveness
from ...graph.operators.absence import FULL
from ...pruning.lower import Lowered, lower
from ..head import Head
from . import batch_norm
from .batch_norm import Norm
from .least_squares import Inputs, rows_for
from .options import Memory
from .refit import Refit, some_rows
from .refit_goals import Goal, Goals
from .steps import Program, Step, described, gathered, step_of, upstream

Left = dict[fx.Node, fx.Node | None]
Reading = tuple[Hashable, list[fx.Node], Step]  # what a node computes, reads, and without inputs


class Compiler:
    """Makes programs whose steps are shared.

    Args:
        graph: the traced graph.
        recover: whether batch norms behind a removal take new statistics.
        limit: bytes that values kept for later masks may take.
        fits: calibration examples to which layers behind a removal are fitted; 0: they are not.
        heads: whether what a last linear layer gives is left to what measures it.
        times: as many rows as usual a fit may take.
    """

    def __init__(
        self, graph: Graph, recover: bool, limit: int = 2**30, fits: int = 0, heads: bool = False,
        times: int = 1,
    ) -> None:  # fmt: skip
        self.graph, self.recover, self.fits, self.heads = graph, recover, fits, heads
        self.times, self.memory = times, Memory(limit)
        self.cut: dict[Any, nn.Module] = {}
        self.cut_bytes = 0  # of their weights
        self.inputs: dict[Hashable, Inputs] = {}  # of fits
        # steps live as long as a program, or a value that is kept, needs them
        self.known: WeakValueDictionary[Hashable, Step] = WeakValueDictionary()
        # of layers with their norms, by id
        self.readings: dict[Any, dict[fx.Node, Reading]] = defaultdict(dict)  # of the unpruned
        self.folded: dict[tuple[int, int], batch_norm.Weights] = {}
        # layers in a lower precision
        self.lowered: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()

    def forget(self) -> None:
        """Drop what was cut and, with recovery, all else: later programs share nothing of it."""
        if self.recover:
            self.memory = Memory(self.memory.limit)
            self.__dict__.pop("unpruned", None)
            self.known.clear()
            self.inputs.clear()
        self.folded.clear()
        self.cut.clear()
        self.cut_bytes = 0

    def program(self, mask: Mask, precision: torch.dtype | None = None) -> Program:
        """The program of a mask, for data in a lower precision or that of the model.

        Raises:
            DisconnectedError: the mask cuts off an output.
        """
        alive = liveness(self.graph, mask).require_connected()
        if not self.recover and (left := self.unpruned.left(alive)) is not None:
            return _Translation(self, self.unpruned.lowered, alive, precision, left).run(mask)
        before = len(self.cut)
        lowered = lower(self.graph, alive, self.cut)
        new = islice(self.cut.values(), before, None)
        self.cut_bytes += sum(p.nbytes for module in new for p in module.parameters())
        return _Translation(self, lowered, alive, precision).run(mask)

    @cached_property
    def unpruned(self) -> _Unpruned:
        """The network as it is, whose values are goals."""
        alive = liveness(self.graph, self.graph.empty)
        return _Unpruned(self, lower(self.graph, alive, self.cut), alive)


class _Translation:
    """One lowered program into steps.

    Args:
        compiler: that shares them.
        lowered: the program.
        alive: what it was lowered from.
        precision: in which the data run.
        left: the nodes that remain of it, and for some the one whose value they pass on.
    """

    def __init__(
        self, compiler: Compiler, lowered: Lowered, alive: Liveness,
        precision: torch.dtype | None = None, left: Left | None = None,
    ) -> None:  # fmt: skip
        self.compiler, self.graph, self.known = compiler, compiler.graph, compiler.known
        self.lowered, self.alive, self.precision = lowered, alive, precision
        self.passed: Left = dict.fromkeys(lowered.graph.nodes) if left is None else left
        self.nodes = list(self.passed)
        if left is None:
            self.readings: dict[fx.Node, Reading] = {}
            self.folds = batch_norm.folds(self.nodes, self._module, self._dimensions)
        else:
            self.readings = compiler.readings[precision]
            folds = compiler.unpruned.folds.items()
            self.folds = {n: layer for n, layer in folds if self._runs(n) and self._runs(layer)}
        touched = self._touched() if compiler.recover else set()
        self.goals = self._goals(touched) if compiler.fits else {}
        self.learning = self._learning(touched) if compiler.recover else []

    def run(self, mask: Mask) -> Program:
        program = Program(mask, guard=self.lowered.guard)
        learned: dict[fx.Node, Step] = {}
        if self.learning or self.goals:
            calibrated = self._translate(self.learning, {})
            learners = {*self.learning, *self.goals}
            learned = {node: calibrated[node] for node in self.nodes if node in learners}
            program.learners = list(learned.values())
            program.calibration = upstream(program.learners)
        steps = self._translate([], learned)
        program.outputs, program.parts = self._parts(steps)
        program.steps = list(dict.fromkeys((*steps.values(), *program.outputs)))
        program.inputs = tuple(steps[n] for n in self.nodes if n.op == "placeholder")
        return program

    def _parts(self, steps: dict[fx.Node, Step]) -> tuple[tuple[Step, ...], tuple[slice, ...]]:
        """What each part gives, and its inputs among all."""
        parts, names = getattr(self.graph.program.whole, "parts", ()), self.graph.program.names
        if len(parts) <= 1:
            return (steps[self.nodes[-1]],), (slice(None),)
        ends = [0, *accumulate(sum(name in part.names for name in names) for part in parts)]
        members: Any = self.nodes[-1].args[0]
        return tuple(gathered(m, steps) for m in members), tuple(starmap(slice, pairwise(ends)))

    def _runs(self, node: fx.Node) -> bool:
        return node in self.passed and self.passed[node] is None

    # -- what recovers ----------------------------------------------------------------------

    def _learning(self, touched: set[fx.Node]) -> list[fx.Node]:
        """The batch norms behind a removal. One that is called twice keeps its statistics."""
        once = Counter(node.target for node in self.nodes if node.op == "call_module")
        fitted = {goal.norm for goal in self.goals.values()}
        norms = [node for node in self.nodes if node in touched and self._is_norm(node)]
        return [norm for norm in norms if once[norm.target] == 1 and norm not in fitted]

    def _goals(self, touched: set[fx.Node]) -> dict[fx.Node, Goal]:
        """What layers are fitted to, by layer."""
        goals = Goals(self.graph, self.alive, self.lowered, self.folds, touched)
        return {goal.layer: goal for goal in goals.find()}

    def _touched(self) -> set[fx.Node]:
        """The nodes behind a removal."""
        touched: set[fx.Node] = set()
        for node in self.nodes:
            if self._changed(node) or not touched.isdisjoint(node.all_input_nodes):
                touched.add(node)
        return touched

    def _changed(self, node: fx.Node) -> bool:
        """Whether a removal lies right before a node."""
        index = self.lowered.vertices.get(node.name)
        if index is None:
            return False
        edges, alive = self.graph.inputs[index], self.alive
        sources = [self.graph.edges[e].source for e in edges]
        whole = all((want := alive.wants[e]) is not None and want.full for e in edges)
        return not whole or any(s in alive.bypassed or s in alive.forwarded for s in sources)

    def _is_norm(self, node: fx.Node) -> bool:
        module = self._module(node)
        return isinstance(module, batch_norm.BATCH_NORMS) and module.running_mean is not None

    # -- steps --------------------------------------------------------------------------------

    def _translate(
        self, learning: Collection[fx.Node], learned: dict[fx.Node, Step]
    ) -> dict[fx.Node, Step]:
        """The step of every node; layers whose norm is folded into them have none of their own."""
        within = {bn: layer for bn, layer in self.folds.items() if bn not in learning}
        skipped = set(within.values())
        ends = {goal.end: goal for goal in self.goals.values()}
        skipped.update(node for goal in ends.values() for node in goal.chain)
        steps: dict[fx.Node, Step] = {}
        for node in self.nodes:
            if node in ends:
                goal = ends[node]
                step = self._refitted(goal, learned.get(goal.layer), steps)
                steps.update(dict.fromkeys(goal.chain, step))
            source = self.passed[node]
            if source is not None:
                steps[node] = steps[source]
            elif node not in skipped:
                layer, norm = within.get(node), learned.get(node)
                if layer is not None:
                    steps[node] = self._folded(node, layer, norm, steps)
                elif norm is not None or node in learning:
                    steps[node] = self._normalised(node, norm, steps)
                else:
                    steps[node] = self._plain(node, steps)
        return steps

    def _folded(
        self, node: fx.Node, layer: fx.Node, learned: Step | None, steps: dict[fx.Node, Step]
    ) -> Step:
        """A layer with the batch norm behind it, whose statistics are its own or learned."""
        inner, outer = self._module(layer), self._module(node)
        inputs = tuple(steps[source] for source in layer.all_input_nodes)

        def make() -> Step:
            if learned is not None:
                norm = _norm_of(learned)
                return Step(
                    inputs, lambda x: batch_norm.apply(inner, x, norm.folded(inner)), fresh=True
                )
            key = (id(inner), id(outer))
            if key not in self.compiler.folded:
                affine = batch_norm.affine(outer, outer.running_mean, outer.running_var)
                self.compiler.folded[key] = batch_norm.scaled(inner.weight, inner.bias, *affine)
            weights = self.compiler.folded[key]
            return Step(inputs, lambda x: batch_norm.apply(inner, x, weights), fresh=True)

        return self._shared(("folded", id(inner), id(outer), learned, inputs), make)

    def _refitted(self, goal: Goal, learned: Step | None, steps: dict[fx.Node, Step]) -> Step:
        """A layer with its norm that is fitted, or that has been."""
        layer = self._module(goal.layer)
        norm = None if goal.norm is None else (str(goal.norm.target), self._module(goal.norm))
        (x,) = (steps[source] for source in goal.layer.all_input_nodes)
        if learned is not None:
            again = Step((x,), learned.call, fresh=True)
            return self._shared(("refitted", learned, x), lambda: again)
        shape = self.graph.vertices[goal.vertex].shape
        assert shape is not None
        each = shape[0]
        rows = rows_for(layer.weight[0].numel(), self.compiler.times)
        density = rows / (self.compiler.fits * each)
        others = tuple(steps[other] for other in goal.others)
        value, axis = self.compiler.unpruned.at(goal.vertex), goal.axis
        wanted = self._shared(
            ("rows", value, axis, density),
            lambda: Step((value,), lambda found: some_rows(found, axis, density)),
        )

        def make() -> Step:
            names = ("kernel_size", "stride", "padding", "dilation")
            reads = (x, density, *(getattr(layer, name, None) for name in names))
            biased = norm is not None or layer.bias is not None
            inputs = self.compiler.inputs.setdefault((reads, biased), Inputs(biased))
            inputs.users += 1
            refit = Refit(
                (str(goal.layer.target), layer), norm, inputs, self.compiler.memory,
                goal.axis, goal.keep, each, density,
            )  # fmt: skip
            return Step((x, *others, wanted), refit, fresh=True, learner=refit)

        what = ("refit", id(layer), norm and id(norm[1]), goal.keep, x, others, wanted)
        return self._shared(what, make)

    def _normalised(self, node: fx.Node, learned: Step | None, steps: dict[fx.Node, Step]) -> Step:
        """A batch norm under recovery: one that learns, or one that has learned."""
        module = self._module(node)
        inputs = tuple(steps[source] for source in node.all_input_nodes)

        def make() -> Step:
            norm = Norm(str(node.target), module) if learned is None else _norm_of(learned)
            learns = norm if learned is None else None
            return Step(inputs, norm, fresh=True, write=norm.write, learner=learns)

        return self._shared(("norm", id(module), learned, inputs), make)

    def _plain(self, node: fx.Node, steps: dict[fx.Node, Step]) -> Step:
        if node not in self.readings:
            self.readings[node] = self._reading(node)
        what, sources, step = self.readings[node]
        inputs = tuple(steps[source] for source in sources)
        return self._shared((what, inputs), lambda: step.reading(inputs))

    def _reading(self, node: fx.Node) -> Reading:
        sources: Any = node.all_input_nodes
        target: Any = node.target
        if node.op in ("call_module", "get_attr"):
            target = self._in_precision(self.lowered.attributes[str(target)])
        same = target if isinstance(target, str) else id(target)
        what = described((node.args, node.kwargs), {n: i for i, n in enumerate(sources)})
        if self.compiler.heads and type(target) is nn.Linear and self._ends(node):
            return ("head", same), sources, Step((), partial(_head, target))
        return (node.op, same, what), sources, step_of(node, target, ())

    def _ends(self, node: fx.Node) -> bool:
        """Whether a value is given as it is, or in what holds the values that are given."""
        users = list(node.users)
        while len(users) == 1 and isinstance(users[0].target, type):
            users = list(users[0].users)
        return len(users) == 1 and users[0].op == "output"

    def _in_precision(self, module: Any) -> Any:
        """A layer whose weights are converted once, unless calibration data run through it too."""
        if self.precision is None or self.compiler.recover or not batch_norm.is_layer(module):
            return module
        lowered = self.compiler.lowered
        if module not in lowered:
            lowered[module] = copy.deepcopy(module).to(self.precision)
        return lowered[module]

    def _shared(self, what: Hashable, make: Callable[[], Step]) -> Step:
        step = self.known.get(what)
        if step is None:
            self.known[what] = step = make()
        return step

    def _module(self, node: fx.Node) -> Any:
        return self.lowered.attributes[str(node.target)] if node.op == "call_module" else None

    def _dimensions(self, node: fx.Node) -> int:
        index = self.lowered.vertices.get(node.name)
        shape = None if index is None else self.graph.vertices[index].shape
        return 0 if shape is None else len(shape)


class _Unpruned(_Translation):
    """The steps of the whole network."""

    @cached_property
    def node_of(self) -> dict[int, fx.Node]:
        """The nodes of vertices."""
        by_name = {node.name: node for node in self.nodes}
        return {index: by_name[name] for name, index in self.lowered.vertices.items()}

    @cached_property
    def steps(self) -> dict[fx.Node, Step]:
        """By node."""
        return self._translate([], {})

    def at(self, vertex: int) -> Step:
        """The step of a vertex; one of its own for a layer that has its norm folded in."""
        node = self.node_of[vertex]
        return self.steps.get(node) or self._plain(node, self.steps)

    def left(self, alive: Liveness) -> Left | None:
        """The nodes that a mask leaves, and for those that pass on another's value that one.

        None where more than that is different: channels are cut, or the size of what is absent is
        asked.
        """
        left: Left = {}
        for node in self.nodes:
            index = self.lowered.vertices.get(node.name)
            if index is not None and index in alive.changed:
                if alive.states[index] is None:
                    continue
                if not alive.runs(index):
                    source = self._passed_on(index, alive)
                    if source not in left:
                        return None
                    left[node] = source
                    continue
                edges = self.graph.inputs[index]
                if alive.states[index] != FULL or any(alive.wants[e] != FULL for e in edges):
                    return None
            if all(source in left for source in node.all_input_nodes):
                left[node] = None
            elif index is not None:
                return None
        return left

    def _passed_on(self, index: int, alive: Liveness) -> fx.Node | None:
        """The node whose value a vertex passes on, if it has the same form."""
        (edge, *others) = (e for e in self.graph.inputs[index] if alive.wants[e] is not None)
        source = self.graph.edges[edge].source
        forms = [
            (v.shape, v.dtype, v.batched)
            for v in (self.graph.vertices[source], self.graph.vertices[index])
        ]
        alike = forms[0] == forms[1] and alive.states[source] == alive.wants[edge] == FULL
        return self.node_of.get(source) if alike and not others else None


def _norm_of(step: Step) -> Norm:
    """The batch norm that learns in a step."""
    assert isinstance(step.learner, Norm)
    return step.learner


def _head(layer: nn.Linear, x: torch.Tensor) -> Head:
    return Head(x, lambda some: layer(some.to(layer.weight.dtype)), layer.out_features)
