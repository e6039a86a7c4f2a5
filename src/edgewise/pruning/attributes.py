"""Numbers that modules keep as attributes, and that say the size of what is cut."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from ..graph.graph import Graph
from ..graph.liveness import Liveness
from ..graph.operators.runtime import RaggedGroupNorm
from ..graph.operators.table import TABLE
from ..tracing.builder import ancestors
from ..tracing.program import module_stack
from .calls import Calls
from .cut import fitted
from .edited import edited
from .edits import Edit


@dataclass(frozen=True)
class Attribute:
    """A number of a module that the traced code read, and what it becomes.

    Args:
        path: of the module.
        name: of the attribute, with "[place]" where it is a member.
        before: the number.
        after: what it becomes.
        owner: the module's class.
    """

    path: str
    name: str
    before: int
    after: int
    owner: str

    @property
    def kind(self) -> tuple[str, str, int]:
        """What all modules of one class have in common."""
        return self.owner, self.name, self.before


def numbers_in(
    graph: Graph, alive: Liveness, index: int, paths: Sequence[Sequence[str]], calls: Calls
) -> Iterator[Attribute]:
    """The attributes that a vertex's code may have read a size from, which is another now."""
    vertex = graph.vertices[index]
    if vertex.module is not None and not vertex.attrs.get("constants"):
        return
    changed = _changed(graph, alive, index)
    if not changed:
        return
    call = calls.nodes[vertex.node]
    constants = (n for given in call.all_input_nodes for n in ancestors(given, calls.data))
    for node in dict.fromkeys((call, *constants)):
        for number in sorted(n for n in _literals(node) if n in changed):
            for path in (*reversed(module_stack(node) or paths[index]), ""):
                module = calls.model.get_submodule(path)
                own = path == vertex.module  # its numbers follow its tensors
                names = [] if own else list(_attributes(module, number))
                for name in names:
                    for after in sorted(changed[number]):
                        yield Attribute(path, name, number, after, type(module).__name__)
                if names:
                    break


def _changed(graph: Graph, alive: Liveness, index: int) -> dict[int, set[int]]:
    """Sizes of a vertex's inputs and outputs that are others now."""
    found: dict[int, set[int]] = {}
    states = [*(alive.wants[e] for e in graph.inputs[index]), alive.states[index]]
    readers = [graph.edges[e].target for e in graph.consumers[index]]
    if graph.vertices[index].shape is None:
        states += [alive.states[reader] for reader in readers]
    for state in states:
        for _, keep in state.keeps if state is not None else ():
            found.setdefault(len(keep), set()).add(keep.count(True))
    return found


def _literals(node: fx.Node) -> set[int]:
    """Whole numbers in the arguments of a call."""
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return {leaf for leaf in leaves if isinstance(leaf, int) and not isinstance(leaf, bool)}


def _attributes(module: nn.Module, number: int) -> Iterator[str]:
    for name, value in vars(module).items():
        if type(value) is int and value == number:
            yield name
        elif type(value) in (tuple, list):
            yield from (
                f"{name}[{place}]"
                for place, member in enumerate(value)
                if type(member) is int and member == number
            )


def resized_attributes(
    module: nn.Module, tensors: Mapping[str, tuple[str, ...] | None], sizes: tuple[int, ...]
) -> dict[str, tuple[Any, Any]] | str:
    """The attributes of a layer of torch that change with its tensors, or why it has none.

    Args:
        module: of the unpruned model.
        tensors: what is kept of its tensors.
        sizes: of the groups of a group norm, or the shape a layer norm normalises over.
    """
    small = copy.copy(module)
    small._parameters, small._buffers = dict(module._parameters), dict(module._buffers)
    edited(small, {"": Edit("resized", tensors)})
    small = fitted(small, TABLE.find_module(module), sizes)
    if isinstance(small, RaggedGroupNorm):
        return f"groups of unequal sizes {sizes} remain, which {type(module).__name__} lacks"
    before, after = vars(module), vars(small)
    plain = (int, float, tuple)
    return {
        name: (before[name], after[name])
        for name in before
        if isinstance(before[name], plain) and before[name] != after[name]
    }
