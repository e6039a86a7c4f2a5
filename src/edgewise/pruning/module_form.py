"""The pruned model in the user's own class: its modules resized, gone or passed through."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import Any

import torch
from torch import nn

from ..errors import FormError, ObjectiveError, PlanError
from ..graph.blocks import blocks_of
from ..graph.graph import Graph, Mask, once
from ..tracing.agreement import drawn, same
from ..tracing.program import Program, set_modes
from ..values.nested import named_tensors, shapes_of
from .calls import Called, Calls
from .edited import edited, marked
from .edits import Edit, Edits, from_dict, printed, to_dict
from .hf import cache_numbers
from .masked import Tensors, masked_network
from .modules import Draft, draft
from .verify import compare, compare_training, rounding

_STYLES = tuple(product((False, True), repeat=2))  # of what stands for what is gone
_SIZE = re.compile("head|dim|size|channel|feature|width|hidden|embed|inner|group|nf$|nx$").search
MOST_CHOICES = 4  # numbers of which every combination is tried


def in_own_class(
    graph: Graph, mask: Mask, tensors: Tensors, recorded: Mapping[str, Any] | None = None
) -> tuple[nn.Module, Edits]:
    """A pruned model of the user's own class, verified against the masked one; and its edits.

    Args:
        graph: the traced graph.
        mask: what is removed.
        tensors: recovered tensors by name.
        recorded: the edits of a plan; they are found where it has none.

    Raises:
        FormError: no edit of the model's modules says what the mask does.
    """
    trial = _Trial(graph, mask, tensors)
    with graph.program.as_called():
        if recorded is not None and "modules" in recorded:
            edits: Edits | None = from_dict(recorded)
            small = trial.agreed(from_dict(recorded))
        else:
            small, edits = trial.found()
    if small is not None and edits is not None:
        return small, edits
    names = [graph.units[unit].name for unit in mask.removed]
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise FormError(
        f'{trial.reasons[0]} Removed: {shown}. Keep that, or use form="program", which every mask '
        "has."
    )


class _Trial:
    """Edits that may say what a mask does, tried one after another."""

    def __init__(self, graph: Graph, mask: Mask, tensors: Tensors) -> None:
        self.graph, self.mask, self.tensors = graph, mask, tensors
        self.full = masked_network(graph, mask, tensors)
        self.reasons: list[str] = []

    def agreed(self, edits: Edits) -> nn.Module | None:
        """The model with these edits, if it gives what the masked one gives."""
        try:
            small = _built(self.graph, edits, self.tensors)
            _agree(self.graph, self.full, small)
        except FormError as error:
            self.reasons.append(str(error))
            return None
        program: Program = self.graph.program
        example = dict(zip(program.names, program.args, strict=True)) | dict(program.fixed)
        return set_modes(marked(small, to_dict(edits), example), program.modes)

    def found(self) -> tuple[nn.Module | None, Edits | None]:
        """The first edits that do, with the fewest numbers, and those whose names say a size."""
        calls = calls_of(self.graph)
        drafts = cache(lambda style: draft(self.graph, self.mask, calls, *style))
        seen = list[Edits]()
        most = len(drafts(_STYLES[0]).numbers)
        for count in (0, most, *range(1, min(most, MOST_CHOICES + 1))):
            for style, dead in product(_STYLES, (True, False)):
                try:
                    found = drafts(style)
                except FormError as error:  # a size that this style needs is not known
                    self.reasons.append(str(error))
                    continue
                for chosen in combinations(found.numbers, min(count, len(found.numbers))):
                    edits = self._edits(found, chosen, dead)
                    if edits not in seen:
                        seen.append(edits)
                        small = self.agreed(edits)
                        if small is not None:
                            return self._told(found, chosen, dead, small)
        return None, None

    def _edits(self, found: Draft, chosen: Collection[Kind], dead: bool) -> Edits:
        return cache_numbers(calls_of(self.graph).model, _edits(found, chosen, dead))

    def _told(
        self, found: Draft, chosen: Collection[Kind], dead: bool, small: nn.Module
    ) -> tuple[nn.Module, Edits]:
        """Edits that do, without numbers that are idle, but for those whose names say a size."""
        kept = self._edits(found, chosen, dead)
        for kind in [kind for kind in found.numbers if (kind in chosen) != bool(_SIZE(kind[1]))]:
            more = {*chosen} ^ {kind}
            edits = self._edits(found, more, dead)
            other = self.agreed(edits)
            if other is not None:
                small, kept, chosen = other, edits, more
        return small, kept


def edits_of(graph: Graph, mask: Mask, tensors: Tensors) -> dict[str, Any]:
    """The edits of a mask as JSON-ready data, or {"reason": why there are none}."""
    try:
        edits = to_dict(in_own_class(graph, mask, tensors)[1])
    except Exception as error:  # noqa: BLE001 - whatever a user's model raises, there is a program
        return {"reason": str(error) or type(error).__name__}
    model: nn.Module = (graph.program.whole or graph.program).model
    return {**edits, "bits": str(mask), "printed": printed(model)}


def without_module_form(graph: Graph) -> dict[str, str]:
    """The units that cannot be removed in the model's own class, each with the reason.

    A unit is removed by itself, and the result compared with the masked model. Of units at the same
    place of blocks that are alike (decoder layers), the first, a middle and the last are tried, and
    the others where one of these cannot. Search without what is listed (`graph.select`), and
    `ew.prune(graph, plan, form="module")` serves the plan.

    Args:
        graph: the traced graph.

    Raises:
        FormError: the model cannot be copied, or is in another process.

    Examples:
        >>> without = ew.without_module_form(graph)
        >>> graph.select(lambda unit: unit.name not in without) == graph
        True
    """
    calls_of(graph)
    edits = cache(lambda unit: edits_of(graph, graph.mask([unit]), {}))
    found: dict[int, str] = {}
    for units in _alike(graph):
        some = {units[0], units[len(units) // 2], units[-1]}
        tried = units if any("reason" in edits(unit) for unit in some) else ()
        found |= {unit: edits(unit)["reason"] for unit in tried if "reason" in edits(unit)}
    return {graph.units[unit].name: found[unit] for unit in sorted(found)}


def _alike(graph: Graph) -> list[list[int]]:
    """Units by what is the same of them: their places in blocks of the same modules and operators.

    Raises:
        FormError: the model cannot be copied.
    """
    model, blocks = calls_of(graph).model, blocks_of(graph)
    home = {v: (block, place) for block in blocks for place, v in enumerate(block.vertices)}
    built = {
        block.path: (
            repr(model.get_submodule(block.path)), *(graph.vertices[v].op for v in block.vertices)
        )
        for block in blocks
        if block.path
    }  # fmt: skip
    groups: dict[Any, list[int]] = {}
    for index, unit in enumerate(graph.units):
        edges = [graph.edges[edge] for edge in sorted(unit.removal.edges)]
        inside = [home[v] for v in (*(e.target for e in edges), *unit.removal.vertices)]
        block, _ = inside[0]
        read = [place if at is block else -1 for at, place in (home[e.source] for e in edges)]
        alike = block.path and all(at is block for at, _ in inside)
        places = (*(place for _, place in inside), *read)
        key = (unit.kind, unit.counts, built[block.path], places) if alike else index
        groups.setdefault(key, []).append(index)
    return list(groups.values())


@once
def calls_of(graph: Graph) -> Calls:
    """How the model calls its modules, recorded once for a graph."""
    return Calls(graph)


Kind = tuple[str, str, int]


def _edits(found: Draft, chosen: Collection[Kind], dead: bool) -> dict[str, Edit]:
    """The edits of a draft with some of the numbers that it is not certain of."""
    edits = dict(found.edits)
    for kind, attributes in found.numbers.items():
        for attribute in attributes if kind in chosen else ():
            change = {attribute.name: (attribute.before, attribute.after)}
            edits[attribute.path] = _with(edits.get(attribute.path), {}, change)
    for path, name in found.dead if dead else ():
        edits[path] = _with(edits.get(path), {name: None}, {})
    return edits


def _with(edit: Edit | None, tensors: Mapping[str, Any], attributes: Mapping[str, Any]) -> Edit:
    before = edit or Edit("resized")
    return replace(
        before,
        tensors={**before.tensors, **tensors},
        attributes={**before.attributes, **attributes},
    )


def _built(graph: Graph, edits: Edits, tensors: Tensors) -> nn.Module:
    """A copy of the user's model with the traced weights, its modules edited."""
    program: Program = graph.program
    model = copy.deepcopy(calls_of(graph).model)
    traced = named_tensors(program.module)
    try:
        with torch.no_grad():
            for name, tensor in named_tensors(model).items():
                other = traced.get(name)
                if other is not None and not same(other, tensor):
                    tensor.copy_(other)
        edited(model, edits)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise FormError(f"The edits do not fit {type(model).__name__}: {error}.") from error
    own = named_tensors(model)
    for name, value in tensors.items():
        if name not in own or own[name].shape != value.shape:
            raise PlanError(f"The plan recovers {name!r}, which the pruned model has otherwise.")
        with torch.no_grad():
            own[name].copy_(value)
    return model


def _agree(graph: Graph, full: nn.Module, small: nn.Module) -> None:
    """Require the masked model's outputs: on the example, at another batch and other sizes."""
    program: Program = graph.program
    own = Called(small, program)
    batches = program.batch, program.other_batch
    others = [drawn(program.args, *batches, sizes) for sizes in ({}, *program.sizes)]
    cases = [(compare, inputs) for inputs in (program.args, *others)]
    for differ, inputs in [*cases, (compare_training, program.args)]:
        args = program.traced.positional(inputs)
        try:
            difference, allowed = differ(full, own, args)
        except Exception as error:
            refused = isinstance(error, ObjectiveError) and inputs is not program.args
            if differ is compare_training or refused:
                continue  # a batch of one has no statistics; the removal may fix a size
            raise FormError(_failed(small, error)) from error
        if not (difference <= allowed or rounding(full, own, args)):
            raise FormError(
                f"{type(small).__name__} with its modules edited differs from the masked model by "
                f"{difference:.3g} (relative) on inputs of shape {shapes_of(args)}."
            )


def _failed(model: nn.Module, error: Exception) -> str:
    """What a model with edited modules raised, and where in its code."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/torch/" not in f.filename and "edgewise" not in f.filename]
    place = f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""
    return (
        f"The code of {type(model).__name__} does not run with its modules edited{place}: "
        f"{type(error).__name__}: {next(iter(str(error).splitlines()), '').rstrip('.')}."
    )
