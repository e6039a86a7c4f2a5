"""What a person calls a unit: its block, and what it is in there ("layers.3 attention")."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .blocks import Names, attends, blocks_of, module, prefixes, role, shared_path
from .cost import full_macs
from .graph import Graph
from .unit import Unit

SUMS = ("add", "sub")


def labelled(graph: Graph, units: Sequence[Unit], dead: Sequence[Sequence[int]]) -> list[Unit]:
    """The units with their labels and blocks.

    A label that several units would have gives way to a longer one, and that to the unit's name.

    Args:
        graph: vertices and edges.
        units: all those of some kinds, with unique names; the label of a width is what remains.
        dead: the vertices that die with each.
    """
    words = _Words(graph)
    said = [words.of(unit, gone) for unit, gone in zip(units, dead, strict=True)]
    counts = Counter(text for _, *texts in said for text in {*texts})
    return [
        replace(unit, block=block, label=next((t for t in texts if counts[t] == 1), unit.name))
        for unit, (block, *texts) in zip(units, said, strict=True)
    ]


class _Words:
    """How the parts of one graph are called."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.names = graph, Names(graph)
        self.block_of = {v: block for block in blocks_of(graph) for v in block.vertices}
        self.paths = {block.path for block in self.block_of.values()} - {""}
        layers = [v for i, v in enumerate(graph.vertices) if v.params and full_macs(graph, i)]
        self.layers = Counter(path for v in layers for path in {*prefixes(v.name), module(v)})

    def of(self, unit: Unit, dead: Sequence[int]) -> tuple[str, str, str]:
        """The block of a unit, its label, and a longer one."""
        if unit.kind != "edge":
            return self._within(unit)
        return self._branch(unit, dead) if dead else self._wire(unit)

    def _within(self, unit: Unit) -> tuple[str, str, str]:
        """Of a layer or a width."""
        index = unit.removal.vertices[0]
        block, inner = self._split(module(self.graph.vertices[index]))
        aim, rest = _meant(inner)
        what = ["bypass"] if unit.kind == "layer" else [unit.kind, unit.label]
        longer = self._say(block, aim, rest, *what)
        short = longer if unit.kind == "layer" else self._say(block, aim or rest, *what)
        return self.block_of[index].label, short, longer

    def _branch(self, unit: Unit, dead: Sequence[int]) -> tuple[str, str, str]:
        """Of an edge with which vertices die: layers that take MACs count most."""
        vertices = self.graph.vertices
        target = max(self.graph.edges[e].target for e in unit.removal.edges)
        held = [i for i in dead if vertices[i].params]
        layers = [i for i in held if full_macs(self.graph, i)]
        chosen = layers or held or list(dead)
        names = [module(vertices[i]) if layers else vertices[i].name for i in chosen]
        path = self._whole(shared_path(names), len(layers))
        block, inner = self._split(path)
        aim, rest = _meant(inner)
        owners = {self.block_of[i].label for i in chosen}
        owner = self.block_of[chosen[0] if len(owners) == 1 else target].label
        ends = dict.fromkeys(name.removeprefix(path).lstrip(".") for name in (names[0], names[-1]))
        longer = self._say(block, ".".join(inner), "..".join(ends))
        if not layers:
            return owner, self._say(block, aim, rest, "..".join(ends)), longer
        kind = "branch" if len(owners) > 1 else self._kind(dead, layers)
        if len(layers) > 1 and vertices[target].op in ("mul", "div"):
            kind = "gate"
        elif inner or role(block.rpartition(".")[2]):
            kind = ""
        return owner, self._say(block, aim, rest, "" if path else "..".join(ends), kind), longer

    def _whole(self, path: str, layers: int) -> str:
        """The outermost module within a block that has no other layers, or one with a known aim."""
        while layers and path not in self.paths and (above := path.rpartition(".")[0]):
            if self.layers[above] > layers or role(path.rpartition(".")[2]):
                break
            path = above
        return path

    def _kind(self, dead: Sequence[int], layers: Sequence[int]) -> str:
        """What a whole branch is for, by its operators."""
        if attends(self.graph, dead):
            return "attention"
        linear = len(layers) > 1 and all(self.graph.vertices[i].op == "linear" for i in layers)
        return "mlp" if linear else "branch"

    def _wire(self, unit: Unit) -> tuple[str, str, str]:
        """Of an edge with which nothing else dies."""
        edge = self.graph.edges[min(unit.removal.edges)]
        source, target = (self.graph.vertices[i] for i in (edge.source, edge.target))
        longer = f"{self.names.short(source.name)} -> {self.names.short(target.name)}"
        here, there = (self._split(module(vertex))[0] for vertex in (target, source))
        if target.op in SUMS:
            beside = set(self.graph.inputs[edge.target]) - unit.removal.edges
            aims = (self._aim(self.graph.edges[e].source, here) for e in sorted(beside))
            text = self._say(here * ("." in target.name), next(filter(None, aims), ""), "skip")
        else:
            text = self._say(here, "from", self.names.short(there)) if here != there else longer
        return self.block_of[edge.target].label, text, longer

    def _aim(self, index: int, block: str) -> str:
        """What the branch of a block that ends in a vertex is for, if its modules tell."""
        while (split := self._split(module(self.graph.vertices[index])))[0] == block:
            aim, inputs = _meant(split[1])[0], self.graph.inputs[index]
            if aim or len(inputs) != 1:
                return aim
            index = self.graph.edges[inputs[0]].source
        return ""

    def _split(self, path: str) -> tuple[str, list[str]]:
        """The path of the block that a module is in, and the parts of its path within."""
        parts, above = path.split("."), [*prefixes(path), path]
        ends = [i + 1 for i, one in enumerate(above) if one in self.paths][-1:]
        ends += [i for i, part in enumerate(parts) if i and role(part)]
        count = (*ends, len(parts))[0]
        return ".".join(parts[:count]), parts[count:]

    def _say(self, block: str, *words: str) -> str:
        return " ".join(filter(None, (self.names.short(block), *words)))


def _meant(inner: Sequence[str]) -> tuple[str, str]:
    """What a module within a block is for, if that can be told, and the rest of its path."""
    for index, part in enumerate(inner):
        if role(part):
            return role(part), ".".join(inner[index + 1 :])
    return "", ".".join(inner)
