"""Writes in place: which memory they reach, and whether a graph of data flows can say so."""

import operator
from typing import Any

import torch
from torch import fx

from ..errors import TraceError
from ..values.nested import copies_of, named_tensors, tensors_of
from .cleanup import IN_PLACE, IN_PLACE_ADVICE, mutated, writes, written


def settle_writes(module: fx.GraphModule, args: tuple[Any, ...]) -> None:
    """Prove on the example that writes in place may become operators that return new tensors.

    Afterwards later readers of the tensor that is written get the result instead, which is right
    unless another value that is read later lies in the same memory: a view, a slice, or what an
    operator gave that copies nothing for this input. The program is run once, still writing, with
    an eye on the memory of everything that is read later. `n += 1` on numbers becomes a sum;
    writes that nobody reads are dropped.

    What shares memory on the example only by its shape or layout is taken as shared, and what
    does not as separate: another shape may differ.

    Args:
        module: the program, in eval mode; its graph is changed in place.
        args: the example, which is copied.

    Raises:
        TraceError: the program does not run, a write reaches another value or a parameter or
            buffer that the outputs depend on, or an operator writes that has no functional form.
    """
    watch = _Watch(module)
    try:
        with torch.no_grad():
            watch.run(*copies_of(args))
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(
            f"The traced program of {type(module).__name__} does not run: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    finally:
        watch.restore()
    for node in watch.numbers:
        node.target = IN_PLACE[node.target]
    _refuse_state(module, watch.state)
    _drop(module.graph, watch.unread | set(watch.state))


class _Watch(fx.Interpreter):
    """Runs a program as it is written, and asks at every write who else sees it."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.extra_traceback = False  # the messages name the line themselves
        order = {node: i for i, node in enumerate(module.graph.nodes)}
        self.order = order
        self.last = {n: max((order[user] for user in n.users), default=-1) for n in order}
        self.tensors = named_tensors(module)
        self.homes = {home for value in self.tensors.values() if (home := _home(value))}
        self.same: dict[fx.Node, fx.Node] = {}  # what a write returned, and the node it wrote to
        self.numbers: list[fx.Node] = []
        self.unread: set[fx.Node] = set()
        self.state: dict[fx.Node, list[str]] = {}  # the parameters and buffers that nodes write to
        self.saved: list[tuple[torch.Tensor, torch.Tensor]] = []

    def run_node(self, n: fx.Node) -> Any:
        if not n.op.startswith("call"):
            return super().run_node(n)
        read = {source: tensors_of(self.env[source]) for source in n.all_input_nodes}
        versions = [(t, _version(t)) for tensors in read.values() for t in tensors]
        target = written(n) if writes(n) else None
        before = read[target] if target is not None else []
        self._save(before)
        value = super().run_node(n)
        if target is not None and n.target in IN_PLACE and value is not self.env.get(target):
            self.numbers.append(n)
        elif target is not None:
            self._judge(n, target, before, value)
        homes = {_home(t) for t in before}
        if any(_version(t) != version and _home(t) not in homes for t, version in versions):
            raise TraceError(f"{_told(n)} writes into its input. {IN_PLACE_ADVICE}")
        return value

    def _save(self, values: list[torch.Tensor]) -> None:
        """Keep what a write into parameters and buffers is about to overwrite."""
        self.saved += [(t, t.clone()) for t in values if _home(t) in self.homes]

    def restore(self) -> None:
        """Put parameters and buffers back as they were."""
        with torch.no_grad():
            for tensor, before in reversed(self.saved):
                tensor.copy_(before)

    def _judge(self, n: fx.Node, target: fx.Node, before: list[torch.Tensor], value: Any) -> None:
        kept = [t for t in before if _home(t) in self.homes]
        state = [
            name for name, tensor in self.tensors.items() if any(_overlap(tensor, t) for t in kept)
        ]
        if state:
            self.state[n] = state
        now, cell = self.order[n], self._cell(target)
        for other, held in self.env.items():
            if self.last[other] <= now or self._cell(other) is cell:
                continue
            if any(_overlap(a, b) for a in tensors_of(held) for b in before):
                raise TraceError(
                    f"{_told(n)} writes into {target.name!r}, whose memory {_told(other)} shares "
                    f"and is read later. {IN_PLACE_ADVICE}"
                )
        if self.last[target] <= now and not n.users and not state:
            self.unread.add(n)
        elif mutated(n.target) and not state:
            raise TraceError(f"{_told(n)} writes into {target.name!r}. {IN_PLACE_ADVICE}")
        if _alike(tensors_of(value), before):
            self.same[n] = target

    def _cell(self, node: fx.Node) -> fx.Node:
        """The first of the nodes that are one tensor, as `relu_(x)` is `x`."""
        while node in self.same:
            node = self.same[node]
        return node


def _version(value: torch.Tensor) -> int:
    """How often a tensor, or what shares its memory, was written to."""
    return 0 if value.is_inference() else value._version


def _home(value: torch.Tensor) -> int | None:
    """The address of the memory a tensor lies in; None if it has none."""
    try:
        return value.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):  # sparse tensors and the like
        return None


def _alike(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Whether two values are the same elements of the same memory in the same order."""
    return len(left) == len(right) and all(
        a is b
        or (
            _home(a) == _home(b) is not None
            and (a.dtype, a.shape, a.stride(), a.storage_offset())
            == (b.dtype, b.shape, b.stride(), b.storage_offset())
        )
        for a, b in zip(left, right, strict=True)
    )


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have an element of memory in common."""
    if not a.numel() or not b.numel() or _home(a) is None or _home(a) != _home(b):
        return False
    if a.dtype != b.dtype or a.is_complex() != b.is_complex():
        return True  # the same bytes read in two ways
    size = a.untyped_storage().nbytes() // a.element_size()
    marks = torch.zeros(size, dtype=torch.bool, device=a.device)
    marks.as_strided(a.shape, a.stride(), a.storage_offset()).fill_(True)
    return bool(marks.as_strided(b.shape, b.stride(), b.storage_offset()).any())


def _told(node: fx.Node) -> str:
    """A node and its line, for a message."""
    place = node.meta.get("source")
    return f"{node.name!r} ({place})" if place else repr(node.name)


def _refuse_state(module: fx.GraphModule, state: dict[fx.Node, list[str]]) -> None:
    """Raise TraceError where the outputs depend on a parameter or buffer that is written to."""
    if not state:
        return
    needed = _needed(module.graph)
    known = named_tensors(module)
    homes = {_home(known[name]) for names in state.values() for name in names}
    for node in needed:
        if any(_home(tensor) in homes for tensor in _read(module, node)):
            writer, names = next(iter(state.items()))
            raise TraceError(
                f"{_told(writer)} writes into {names[0]!r} of the model in eval mode, and the "
                "outputs depend on it: they are others at every call. edgewise prunes networks "
                "that keep no state between calls; write into it in train mode only."
            )


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """What the outputs depend on, by reading or because it writes into what they read."""
    writers: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        target = written(node) if writes(node) else None
        if target is not None:
            writers.setdefault(target, []).append(node)
    needed: set[fx.Node] = set()
    queue = list(graph.find_nodes(op="output"))
    while queue:
        node = queue.pop()
        if node not in needed:
            needed.add(node)
            queue += [*node.all_input_nodes, *writers.get(node, ())]
    return needed


def _read(module: fx.GraphModule, node: fx.Node) -> list[torch.Tensor]:
    """The parameters and buffers that a node names or calls a module of."""
    if node.op == "get_attr":
        return tensors_of(operator.attrgetter(str(node.target))(module))
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        return [*part.parameters(), *part.buffers()]
    return []


def _drop(graph: fx.Graph, idle: set[fx.Node]) -> None:
    """Erase writes that nothing reads, and what only they need."""
    if not idle:
        return
    for node in reversed(list(graph.nodes)):
        erasable = node in idle or not writes(node)
        if erasable and not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
