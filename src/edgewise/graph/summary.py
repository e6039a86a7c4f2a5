"""The blocks and units of a graph as a table that fits a screen."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from .unit import Block, Unit

COLUMNS = ("block or unit", "units", "params", "MACs", "share")
_NUMBER = re.compile(r"\d+")


class Row(NamedTuple):
    """A row of the table, and the units that it tells of."""

    cells: tuple[str, ...]
    units: tuple[Unit, ...]


class _Part(NamedTuple):
    blocks: tuple[Block, ...]
    units: tuple[Unit, ...]

    @property
    def amounts(self) -> tuple[int, int]:
        return sum(block.params for block in self.blocks), sum(block.macs for block in self.blocks)

    @property
    def label(self) -> str:
        first, last = self.blocks[0].label, self.blocks[-1].label
        return first if first == last else f"{first} … {last} ({len(self.blocks)})"


def table(blocks: Sequence[Block], units: Sequence[Unit], lines: int | None) -> list[Row]:
    """A row a block with what it costs, and below it its units with what removing each saves.

    Where that takes more than so many `lines`, only the blocks; then one row for blocks in a row
    that cost the same and have as many units; then one for all whose names differ in numbers alone.
    """
    of: dict[str, list[Unit]] = {}
    for unit in units:
        of.setdefault(unit.block, []).append(unit)
    every = [_Part((block,), tuple(of.get(block.label, ()))) for block in blocks]
    parts = [part for part in every if part.units or any(part.amounts)]
    macs = sum(block.macs for block in blocks)
    total = macs or sum(block.params for block in blocks) or 1

    def row(label: str, told: str, saved: tuple[int, int], units: tuple[Unit, ...]) -> Row:
        share = f"{saved[1 if macs else 0] / total:.1%}"
        return Row((label, told, *(f"{amount:,}" for amount in saved), share), units)

    def blockwise(part: _Part) -> Row:
        return row(part.label, counted(part.units), part.amounts, part.units)

    if lines is None or len(parts) + len(units) <= lines:
        rows = []
        for part in parts:
            rows.append(blockwise(part))
            for unit in part.units:
                saved = (unit.cost.params, unit.cost.macs)
                rows.append(row(f"  {unit.label}", unit.kind, saved, (unit,)))
        return rows
    alike: list[Callable[[_Part], Hashable]] = [
        lambda part: (_name(part), part.amounts, counted(part.units)),
        _name,
    ]
    for key in alike:
        if len(parts) > lines:
            runs = [list(run) for _, run in groupby(parts, key)]
            parts = [_Part(*(sum(column, ()) for column in zip(*run, strict=True))) for run in runs]
    return [blockwise(part) for part in parts]


def counted(units: Iterable[Unit]) -> str:
    """How many units of each kind there are."""
    kinds = Counter(unit.kind for unit in units)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _name(part: _Part) -> str:
    return _NUMBER.sub("", part.label)
