"""The books that transformers keeps about a model: layer numbers, counts of layers, checkpoints.

Examples:
    >>> ew.hf.is_pretrained(model)
    False
"""

import copy
import inspect
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import PlanError
from ..tracing.program import evaluating
from . import edited, edits
from .edited import Gone
from .edits import Edit, Edits
from .plan import Plan

_AUTO = {
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForImageClassification": "AutoModelForImageClassification",
}
_LAYERS = re.compile(r"(num|n)_.*layers?$|(encoder|decoder)_layers$|n_layers?$")
_WIDTHS, _HEADS = re.compile("intermediate_size|ffn_dim|n_inner|d_ff"), re.compile("_heads?$")
_CODE = '''"""A pruned model: its class, and what became of its modules (edits.py, edited.py)."""

from transformers import {base}

from .edited import edited
from .edits import from_dict


class Pruned{base}({base}):
    """{base} with modules that are resized, gone or passed through."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        for step in config.edgewise_edits:
            edited(self, from_dict(step))
'''


def is_pretrained(model: nn.Module) -> bool:
    """Whether a model is one of transformers; that is not imported for it."""
    found = sys.modules.get("transformers.modeling_utils")
    return found is not None and isinstance(model, found.PreTrainedModel)


def cache_numbers(model: nn.Module, found: Edits) -> dict[str, Edit]:
    """Edits with the numbers by which attention layers find their place in a key-value cache.

    The first layer that is left must have the number of the first place: the length of what a
    cache holds is read there. Layers keep to places of their own type, sliding window or full.
    """
    found = dict(found)
    if not is_pretrained(model):
        return found
    config: Any = model.config
    types = getattr(config.get_text_config(decoder=True), "layer_types", None)
    gone = [path for path, edit in found.items() if edit.becomes != "resized"]
    places: dict[tuple[str, Any], list[tuple[int, str, bool]]] = defaultdict(list)
    for path, module in model.named_modules():
        number = getattr(module, "layer_idx", None)
        if type(number) is int and not isinstance(module, Gone):
            kind = types[number] if types and number < len(types) else None
            live = not any(path == p or path.startswith(f"{p}.") for p in gone)
            places[re.sub(r"\d+", "*", path), kind].append((number, path, live))
    for layers in places.values():
        numbers = iter(sorted(number for number, _, _ in layers))
        for number, path, live in sorted(layers):
            if live and (new := next(numbers)) != number:
                edit = found.get(path, Edit("resized"))
                attributes = {**edit.attributes, "layer_idx": (number, new)}
                found[path] = replace(edit, attributes=attributes)
    return found


_CARD = """# A pruned {name}

Made with [edgewise](https://pypi.org/project/edgewise/) from {origin}. {loads}

Removed: {removed}.

| | unpruned | pruned |
|---|---|---|
{rows}
"""


def save_pretrained(
    model: nn.Module, folder: str | Path, *, stock: bool = False, plan: Plan | None = None
) -> str:
    """Write a pruned transformers model so that `from_pretrained` loads it without edgewise.

    Where whole layers are gone and what is left has one width in all layers, the checkpoint is a
    stock one with fewer layers. Otherwise the folder holds two small files of code beside it, and
    `from_pretrained(folder, trust_remote_code=True)` loads it.

    Args:
        model: what `ew.prune(..., form="module")` gave, healed or not.
        folder: where to; made if it is not there.
        stock: whether to write an ordinary checkpoint or none. A search that removes whole layers,
            `ew.trace(..., tie="model.layers.*")`, gives models that have one.
        plan: what was removed and measured, for a model card.

    Returns:
        "stock" or "trust_remote_code": how it loads.

    Raises:
        PlanError: it is no transformers model in its own class, it has no stock checkpoint where
            one is asked for, or the folder cannot be written.

    Examples:
        >>> ew.hf.save_pretrained(model, "folder")
        Traceback (most recent call last):
        ...
        edgewise.errors.PlanError: ...
    """
    steps = getattr(model, "edgewise_edits", None)
    if not is_pretrained(model) or steps is None:
        raise PlanError(
            f"{type(model).__name__} is not a pruned transformers model in its own class. Prune "
            'one with ew.prune(graph, plan, form="module"); others are saved with ew.save.'
        )
    small = _as_loaded(model)
    found = _stock(small)
    if found is None and stock:
        raise PlanError(
            f"This {_base(type(model)).__name__} has no stock checkpoint: parts of layers are gone "
            "or differ in width. Whole layers can be removed so that it has: trace it with "
            'tie="model.layers.*" (tie in [units]), or write it with stock=False.'
        )
    way = "trust_remote_code" if found is None else "stock"
    try:
        if found is None:
            _with_code(small, Path(folder), steps)
        else:
            found.save_pretrained(folder)
        if plan is not None:
            (Path(folder) / "README.md").write_text(_card(small, plan, way), "utf-8")
    except OSError as error:
        raise PlanError(f"The model cannot be written to {folder}: {error}") from error
    return way


def _as_loaded(model: Any) -> Any:
    """The same; one from a GGUF, whose weights are floats once loaded, not as a quantised one."""
    if getattr(model, "quantization_method", None) != "gguf":
        return model
    plain = copy.copy(model)
    plain.config = copy.deepcopy(model.config)
    plain.hf_quantizer, plain.is_quantized = None, False
    del plain.config.quantization_config
    return plain


def _card(model: Any, plan: Plan, way: str) -> str:
    """What became of a model, in Markdown."""
    rows = [("parameters", f"{plan.before.params:,}", f"{plan.after.params:,}"),
            ("MACs of an example", f"{plan.before.macs:,}", f"{plan.after.macs:,}")]  # fmt: skip
    for split, found in plan.measured.items():
        was = {"loss": found.unpruned_loss, **found.unpruned_metrics}
        for name, value in {"loss": found.loss, **found.metrics}.items():
            what = f"{name}, {found.samples} {split} examples"
            rows.append((what, f"{was[name]:.4g}", f"{value:.4g}"))
    loads = {
        "stock": "It is an ordinary checkpoint with fewer layers.",
        "trust_remote_code": "It loads with `trust_remote_code=True`: the two small files of code "
        "beside the weights leave out what is gone. Read them first.",
    }
    return _CARD.format(
        name=_base(type(model)).__name__,
        origin=Path(getattr(model.config, "_name_or_path", "") or "a model of that class").name,
        loads=loads[way],
        removed=", ".join(plan.labels or plan.removed) or "nothing",
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows),
    )


def _with_code(model: Any, folder: Path, steps: Any) -> None:
    base = _base(type(model)).__name__
    written = copy.deepcopy(model)
    written.config.edgewise_edits = steps
    written.config.architectures = [f"Pruned{base}"]
    auto = next((auto for end, auto in _AUTO.items() if base.endswith(end)), "AutoModel")
    written.config.auto_map = {auto: f"modeling_pruned.Pruned{base}"}
    written.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": [f"Pruned{base}"], "auto_map": written.config.auto_map}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "modeling_pruned.py").write_text(_CODE.format(base=base))
    for file in (edited, edits):
        (folder / f"{file.__name__.rpartition('.')[2]}.py").write_text(inspect.getsource(file))


def _base(cls: type) -> type:
    """The class of transformers itself, beneath those that were made of it."""
    return next(c for c in cls.__mro__ if c.__module__.startswith("transformers."))


def _stock(model: Any) -> Any:
    """The same model as a stock one of another configuration, None if there is none."""
    small = copy.deepcopy(model)
    if not _dropped(small):
        return None
    for config in _configs(small, model):
        try:
            with torch.random.fork_rng(devices=[]):
                base: Any = _base(type(model))
                made = base._from_config(config).to(small.dtype).eval()
            if not _same_shapes(made, small):
                continue
            made.load_state_dict(small.state_dict())
            made.to(small.device)
            if _same_outputs(made, model):
                made.generation_config = getattr(small, "generation_config", None)
                return made
        except (ValueError, RuntimeError, TypeError, KeyError, AttributeError):
            continue  # this configuration makes no model, or another one
    return None


def _dropped(model: nn.Module) -> bool:
    """Take layers that pass their input on out of their lists; False if others are gone."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.ModuleList):
                continue
            kept = [m for m in child if not (isinstance(m, Gone) and m.becomes == "passed")]
            setattr(parent, name, nn.ModuleList(kept))
    return not any(isinstance(module, Gone) for module in model.modules())


def _same_shapes(made: nn.Module, small: nn.Module) -> bool:
    left, right = made.state_dict(), small.state_dict()
    return left.keys() == right.keys() and all(left[k].shape == right[k].shape for k in left)


def _same_outputs(made: Any, model: Any) -> bool:
    """Whether two models give the same for the example that transformers has for them."""
    example = {name: value.to(model.device) for name, value in model.dummy_inputs.items()}
    with evaluating(made, model), torch.no_grad():
        left, right = made(**example)[0], model(**example)[0]
    return bool(torch.allclose(left.float(), right.float(), rtol=1e-3, atol=1e-4))


def _configs(small: nn.Module, model: Any) -> Iterator[Any]:
    """Configurations with the layers and widths that a model has left."""
    pairs = zip(_lists(model), _lists(small), strict=True)
    lists = [(len(before), len(after)) for before, after in pairs]
    widths = _new_widths(model)
    config = copy.deepcopy(model.config)
    part = config.get_text_config()
    for name, value in list(part.to_dict().items()):
        fewer = {after for before, after in lists if before == value}
        if type(value) is int and _LAYERS.search(name) and len(fewer) == 1:
            setattr(part, name, fewer.pop())
        elif isinstance(value, list) and len(value) in {before for before, _ in lists}:
            kept = _kept_places(model, len(value))
            setattr(part, name, [value[place] for place in kept])
    yield copy.deepcopy(config)
    for kinds in (_WIDTHS, _HEADS):  # widths alone first, since a number may be that of both
        for name, value in list(part.to_dict().items()):
            if type(value) is int and kinds.search(name) and len(widths.get(value, ())) == 1:
                setattr(part, name, next(iter(widths[value])))
        yield copy.deepcopy(config)


def _lists(model: nn.Module) -> list[nn.ModuleList]:
    return [module for module in model.modules() if isinstance(module, nn.ModuleList)]


def _kept_places(model: nn.Module, count: int) -> list[int]:
    """The places of the layers that are left, in the first list of so many."""
    layers = next(found for found in _lists(model) if len(found) == count)
    gone = [isinstance(m, Gone) and m.becomes == "passed" for m in layers]
    return [place for place, passed in enumerate(gone) if not passed]


def _new_widths(model: Any) -> dict[int, set[int]]:
    """For widths and counts of heads before, those that modules have now."""
    found: dict[int, set[int]] = defaultdict(set)
    part = model.config.get_text_config()
    head = getattr(part, "head_dim", None) or 0
    for step in model.edgewise_edits:
        for edit in step["modules"].values():
            for name, (before, after) in edit.get("attributes", {}).items():
                if type(before) is int and name != "layer_idx":
                    found[before].add(after)
                    if head and before % head == 0 and after % head == 0:
                        found[before // head].add(after // head)
    return found
