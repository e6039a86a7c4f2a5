"""A mask as steps: each computes one value, and masks that compute the same share the step."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Collection, Container, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, starmap
from typing import Any

import torch
from torch import fx, nn

from ...graph.graph import Graph, Mask
from ...graph.liveness import Liveness, liveness
from ...pruning.lower import Lowered, lower
from ...tracing.signature import Traced
from . import batch_norm
from .batch_norm import Norm
from .learner import Learner
from .refit import Refit, Targets
from .refit_goals import Goal, Goals

_RELU = (torch.relu, nn.functional.relu, "relu")
_ADD = (operator.add, torch.add, "add")


@dataclass(eq=False, slots=True)
class Step:
    """One value: an operation on the values of other steps.

    Args:
        inputs: the steps it reads.
        call: the operation, a function of their values.
        free: it costs nothing (an input, a parameter), so nothing is gained by keeping it.
        fresh: its value is new memory, no view of another value.
        write: the same operation written into the value of an input, if that can be done.
        learner: what learns from its inputs, in a calibration.
    """

    inputs: tuple[Step, ...]
    call: Callable[..., Any]
    free: bool = False
    fresh: bool = False
    write: Callable[..., Any] | None = None
    learner: Learner | None = None


@dataclass
class Program:
    """A mask as two sequences of steps: for the data, and for calibration before it.

    Args:
        mask: the mask.
        inputs: the steps that stand for the network's inputs.
        parts: which of them are inputs of each part.
        outputs: what each part gives.
        steps: for the data, in order.
        calibration: up to the last step that learns; empty if there is none.
        learners: the steps that learn in it.
        guard: what refuses sizes of inputs, where it holds for those of the example only.
    """

    mask: Mask
    inputs: tuple[Step, ...] = ()
    parts: tuple[slice, ...] = ()
    outputs: tuple[Step, ...] = ()
    steps: list[Step] = field(default_factory=list)
    calibration: list[Step] = field(default_factory=list)
    learners: list[Step] = field(default_factory=list)
    guard: Traced | None = None

    @property
    def recovered(self) -> dict[str, torch.Tensor]:
        """The recovered tensors, by the names they have in the pruned model."""
        learned = [step.learner.tensors for step in self.learners if step.learner is not None]
        return {name: value.clone() for tensors in learned for name, value in tensors.items()}


def missing(order: Iterable[Step], goals: Iterable[Step], known: Container[Step]) -> list[Step]:
    """The steps to run for these goals, in order, when some values are known."""
    wanted = set(goals)
    queue = list(wanted)
    while queue:
        for source in queue.pop().inputs:
            if source not in wanted and source not in known:
                wanted.add(source)
                queue.append(source)
    return [step for step in order if step in wanted]


class Compiler:
    """Makes programs whose steps are shared.

    Args:
        graph: the traced graph.
        recover: whether batch norms behind a removal take new statistics.
        targets: to which layers behind a removal are fitted; None: they are not.
    """

    def __init__(self, graph: Graph, recover: bool, targets: Targets | None = None) -> None:
        self.graph, self.recover, self.targets = graph, recover, targets
        self.cut: dict[Any, Any] = {}
        self.known: dict[Hashable, Step] = {}
        # of layers with their norms, by id
        self.folded: dict[tuple[int, int], batch_norm.Weights] = {}

    def forget(self) -> None:
        """Drop the steps of all programs so far, which share nothing with later ones."""
        self.folded.clear()
        self.cut.clear()
        self.known.clear()

    def program(self, mask: Mask) -> Program:
        """The program of a mask.

        Raises:
            DisconnectedError: the mask cuts off an output.
        """
        alive = liveness(self.graph, mask).require_connected()
        return _Translation(self, lower(self.graph, alive, self.cut), alive).run(mask)


class _Translation:
    """One lowered program into steps."""

    def __init__(self, compiler: Compiler, lowered: Lowered, alive: Liveness) -> None:
        self.graph, self.known, self.weights = compiler.graph, compiler.known, compiler.folded
        self.lowered, self.alive = lowered, alive
        self.nodes = list(lowered.graph.nodes)
        self.folds = batch_norm.folds(self.nodes, self._module, self._dimensions)
        self.targets = compiler.targets
        touched = self._touched() if compiler.recover else set()
        self.goals = self._goals(touched) if self.targets is not None else {}
        self.learning = self._learning(touched) if compiler.recover else []

    def run(self, mask: Mask) -> Program:
        program = Program(mask, guard=self.lowered.guard)
        learned: dict[fx.Node, Step] = {}
        if self.learning or self.goals:
            calibrated = self._translate(self.learning, {})
            nodes = [node for node in self.nodes if node in {*self.learning, *self.goals}]
            learned = {node: calibrated[node] for node in nodes}
            program.learners = list(learned.values())
            order = list(dict.fromkeys(calibrated.values()))
            program.calibration = missing(order, program.learners, ())
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
        return tuple(_gathered(m, steps) for m in members), tuple(starmap(slice, pairwise(ends)))

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
            if self._changed(node, touched):
                touched.add(node)
        return touched

    def _changed(self, node: fx.Node, touched: set[fx.Node]) -> bool:
        """Whether a removal lies upstream of a node."""
        if any(source in touched for source in node.all_input_nodes):
            return True
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
            if node not in skipped:
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
            if key not in self.weights:
                affine = batch_norm.affine(outer, outer.running_mean, outer.running_var)
                self.weights[key] = batch_norm.scaled(inner.weight, inner.bias, *affine)
            weights = self.weights[key]
            return Step(inputs, lambda x: batch_norm.apply(inner, x, weights), fresh=True)

        return self._shared(("folded", id(inner), id(outer), learned, inputs), make)

    def _refitted(self, goal: Goal, learned: Step | None, steps: dict[fx.Node, Step]) -> Step:
        """A layer with its norm that is fitted, or that has been."""
        layer = self._module(goal.layer)
        norm = None if goal.norm is None else (str(goal.norm.target), self._module(goal.norm))
        reads = [*goal.layer.all_input_nodes, *(goal.others if learned is None else ())]
        inputs = tuple(steps[source] for source in reads)
        aim = (goal.vertex, goal.axis)

        def make() -> Step:
            if learned is not None:
                return Step(inputs, learned.call, fresh=True)
            assert self.targets is not None
            refit = Refit((str(goal.layer.target), layer), norm, self.targets, aim, goal.keep)
            return Step(inputs, refit, fresh=True, learner=refit)

        what = ("refit", id(layer), norm and id(norm[1]), *aim, goal.keep, learned, inputs)
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
        inputs = tuple(steps[source] for source in node.all_input_nodes)
        target: Any = node.target
        if node.op in ("call_module", "get_attr"):
            target = self.lowered.attributes[str(target)]
        same = target if isinstance(target, str) else id(target)
        what = (node.op, same, _described((node.args, node.kwargs), steps))
        return self._shared(what, lambda: _step(node, target, inputs))

    def _shared(self, what: Hashable, make: Callable[[], Step]) -> Step:
        if what not in self.known:
            self.known[what] = make()
        return self.known[what]

    def _module(self, node: fx.Node) -> Any:
        return self.lowered.attributes[str(node.target)] if node.op == "call_module" else None

    def _dimensions(self, node: fx.Node) -> int:
        index = self.lowered.vertices.get(node.name)
        shape = None if index is None else self.graph.vertices[index].shape
        return 0 if shape is None else len(shape)


def _described(value: Any, steps: dict[fx.Node, Step]) -> Hashable:
    """Arguments as something to compare: steps for nodes, text for constants."""
    if isinstance(value, fx.Node):
        return steps[value]
    if isinstance(value, tuple | list):
        return (type(value).__name__, *(_described(v, steps) for v in value))
    if isinstance(value, dict):
        return ("dict", *((k, _described(v, steps)) for k, v in value.items()))
    if isinstance(value, slice):
        return ("slice", *(_described(v, steps) for v in (value.start, value.stop, value.step)))
    return repr(value)


def _step(node: fx.Node, target: Any, inputs: tuple[Step, ...]) -> Step:
    """A node as it stands."""
    if node.op == "placeholder":
        return Step((), _unbound, free=True)
    if node.op == "get_attr":
        return Step((), lambda: target, free=True)
    if node.op == "output":
        return Step(inputs, _bound(node, lambda value: value))
    call = _bound(node, _method(target) if node.op == "call_method" else target)
    write = _written(node, target)
    return Step(inputs, call, fresh=write is not None or _makes_memory(target), write=write)


def _gathered(value: Any, steps: dict[fx.Node, Step]) -> Step:
    """One member of what a program gives."""
    nodes: dict[fx.Node, None] = {}
    fx.map_arg(value, nodes.setdefault)

    def call(*values: Any) -> Any:
        return fx.map_arg(value, dict(zip(nodes, values, strict=True)).__getitem__)

    return Step(tuple(steps[node] for node in nodes), call)


def _norm_of(step: Step) -> Norm:
    """The batch norm that learns in a step."""
    assert isinstance(step.learner, Norm)
    return step.learner


def _unbound() -> Any:
    raise AssertionError("an input has no value of its own")


def _method(name: str) -> Callable[..., Any]:
    return lambda value, *args, **kwargs: getattr(value, name)(*args, **kwargs)


def _bound(node: fx.Node, function: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a node as a function of the values of its input nodes."""
    nodes = node.all_input_nodes
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    places = [(i, nodes.index(a)) for i, a in enumerate(node.args) if isinstance(a, fx.Node)]
    if len(places) < len(found):  # some are inside lists, slices or keywords
        return lambda *values: _call_nested(function, node, dict(zip(nodes, values, strict=True)))
    arguments, kwargs = list(node.args), dict(node.kwargs)

    def call(*values: Any) -> Any:
        args = arguments.copy()
        for place, which in places:
            args[place] = values[which]
        return function(*args, **kwargs)

    return call


def _call_nested(function: Callable[..., Any], node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args: Any
    kwargs: Any
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return function(*args, **kwargs)


def _makes_memory(target: Any) -> bool:
    """Whether what a module gives is always new memory."""
    return isinstance(target, nn.Module) and batch_norm.makes_memory(target)


def _written(node: fx.Node, target: Any) -> Callable[..., Any] | None:
    """The operation of a node written into its first input; inputs may change places."""
    rectifies = target in _RELU or (type(target) is nn.ReLU and batch_norm.plain(target))
    if rectifies and len(node.args) == 1 and node.kwargs in ({}, {"inplace": False}):
        return torch.relu_
    if target in _ADD and len(node.args) == len(node.all_input_nodes) == 2 and not node.kwargs:
        return _add_into
    return None


def _add_into(first: Any, second: Any) -> Any:
    """The sum, in the first if it has the same form as a new tensor would have."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        forms = [(v.shape, v.stride(), v.dtype) for v in (first, second)]
        if forms[0] == forms[1]:
            return first.add_(second)
    return first + second
