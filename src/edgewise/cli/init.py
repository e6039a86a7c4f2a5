"""`edgewise init`: the first job file, guessed from a model, its weights and the data."""

import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..evaluation.calibration import batch_norms
from ..evaluation.losses import LOSSES
from ..tracing.trace import trace
from ..values.files import write_text
from ..values.nested import moved
from .job.config import parse_model
from .job.datasets import following, load_batches, rows_of
from .job.sections import CUTS, DataSection, ModelSection
from .job.sources import classes_of, load_function, load_model, parquet_file, read_state, require
from .job.toml_sections import HF, TEXT, Rows, anchored

SHOWN = 64, 250  # images on which normalisations are compared, at least and at most,
PIXELS = 10_000_000  # and what they have together, in between
MOST = {"search": 500, "verify": 2000, "report": 5000}  # rows of each split
CALIBRATION = 500
SEQUENCES = {"search": 8, "verify": 32, "report": 128, "calibration": 64}  # of text
BRANCHES = ("*attention", "*mlp")
LOWER, WORTH = torch.bfloat16, 1.3  # a precision, and how many times as fast it must be
MEMORY = 1 << 30  # bytes of the images to heal with, which are all in memory
KINDS = {"branch": "edge", "layer": "layer", "hidden": "hidden", "heads": "heads"}
TRAIN, HELD_OUT = ("train", "training"), ("val", "valid", "validation", "test")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OWN = "normalised by themselves"
BETTER = 1.1  # by how much, in loss, that must be, for it is nowhere known from
CHANCE = 1.5  # times the accuracy of a guess, below which a network knows little of the data
HEADER = """# Written by `edgewise init`. Paths are relative to this file. All keys: docs/config.md,
# or `edgewise schema > edgewise.schema.json` for an editor that completes them."""
NOTES = {
    "data.search": "every mask is measured on these,",
    "data.verify": "the best few on these,",
    "data.report": "and the chosen one, once, on these: best if training saw none of them",
    "objective.precision": "which was faster here; finalists are measured in the model's own",
    "objective.recovery": "statistics of the batch norms are taken anew for every mask",
    "calibration.rows": "from which they are taken",
    "units.granularity": "what may go: branches, layers, widths inside them",
    "budget.macs": "at most so much may remain; also params, latency, ...",
    "budget.params": "at most so much may remain, a quarter less of what is no embedding",
    "units.only": "what may go: the two branches of each layer",
    "result.recovery": "what is chosen is recovered once, and then measured on the report rows",
    "search.evaluations": "masks to measure; more find better ones",
    "heal.rows": "fine-tuning, taught by the unpruned network; without this section there is none",
}
MORE = {
    "objective": "# expected = 0.9  # the first metric, where you know it: a run compares",
    "heal": "# mirror = true  # where an image and its mirror image are of one class",
}
Say = Callable[[str], None]


def write_job(
    model: str, data: str, weights: Path | None, path: Path, say: Say = lambda _: None
) -> Path:
    """Write a commented job for a model and its data.

    Args:
        model: torchvision:NAME, timm:NAME, FILE.py:FUNCTION or hf:FOLDER.
        data: what [data] source may be, or a folder of the folders train and val; a text with
            hf:FOLDER.
        weights: a weights file.
        path: the file to write.
        say: told what was guessed, and from what.

    Raises:
        ConfigError: there is such a file, or model, weights or data cannot be used.
        TraceError: the model cannot be traced.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already: give another --output, or remove it.")
    section = _named(model, weights)
    if count := section.arguments.get("num_classes"):
        say(f"Classes: {count}, as in {section.weights.name if section.weights else 'the weights'}")
    network = load_model(section)
    if section.source.startswith(HF):
        text = data if data.startswith(TEXT) else f"{TEXT}{data}"
        sections = _on_text(section, network, anchored(text, Path.cwd()), say)
        write_text(path, _text(sections, path.absolute().parent))
        return path
    source, train = _splits(anchored(data, Path.cwd()))
    seen = _looked_at(DataSection(source, **_columns(source)), section, network, say)
    graph = trace(network, (seen.inputs[:1].to(section.device),), granularity=tuple(KINDS))
    kinds = [name for name, kind in KINDS.items() if any(u.kind == kind for u in graph.units)]
    say(f"Units: {len(graph.units)} ({', '.join(kinds)})")
    sections = _sections(section, seen, train, kinds, say)
    if not batch_norms(network):
        del sections["objective"]["recovery"], sections["calibration"]
    write_text(path, _text(sections, path.absolute().parent))
    return path


def _on_text(
    model: ModelSection, network: nn.Module, source: str, say: Say
) -> dict[str, dict[str, Any]]:
    """The sections of a job on text: the branches of decoder layers, recovered once."""
    data = DataSection(source, tokenizer=model.source)
    splits, begin, count = {}, 0, rows_of(data)
    for name, most in SEQUENCES.items():
        splits[name] = Rows(begin, begin + max(min(count // len(SEQUENCES), most), 1))
        begin = splits[name].stop or 0
    (first,) = load_batches(replace(data, batch=SEQUENCES["search"]), splits["search"])
    say(f"Text: {count} sequences of tokens")
    given = moved(first[0], torch.device(model.device))
    seconds: dict[bool, float] = {}
    for lower in (True, False):
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast(torch.device(model.device).type, LOWER, lower):
            nats = LOSSES["perplexity"](network(**given), first[1].to(model.device))
        seconds[lower] = time.perf_counter() - start
    faster = seconds[False] / seconds[True]
    say(f"Perplexity of the first {len(nats)}: {float(nats.mean().exp()):.1f}")
    say(f"In bfloat16 it is {faster:.1f} times as fast")
    graph = trace(network, (), {name: x[:1].to(model.device) for name, x in first[0].items()})
    only = [glob for glob in BRANCHES if any(fnmatch(unit.label, glob) for unit in graph.units)]
    say(f"Units: {sum(any(fnmatch(u.label, g) for g in only or ('*',)) for u in graph.units)}")
    known = {id(p): p.numel() for p in network.parameters()}
    tables = [m for m in network.modules() if isinstance(m, nn.Embedding)]
    fixed = sum({id(m.weight): m.weight.numel() for m in tables}.values()) / sum(known.values())
    say(f"Embeddings, which stay, are {fixed:.0%} of the parameters")
    rows = splits.pop("calibration")
    enough = (rows.stop or 0) - rows.start > 1
    return {
        "model": {"source": model.source},
        "data": {"source": source} | splits,
        **({"objective": {"precision": "bfloat16"}} if faster > WORTH else {}),
        **({"units": {"only": only}} if only else {}),
        "budget": {"params": round(fixed + 0.75 * (1 - fixed), 2)},
        "search": {"evaluations": 100},
        **({"result": {"recovery": "linear"}, "calibration": {"rows": rows}} if enough else {}),
    }


def _named(source: str, weights: Path | None) -> ModelSection:
    """The model, of as many classes as its weights; without a file, those of its library."""
    table = {"source": source} | ({} if weights is None else {"weights": str(weights)})
    section = parse_model(table, Path.cwd())
    if section.weights is None:
        own: dict[str, Mapping[str, Any]] = {
            "torchvision": {"weights": "DEFAULT"}, "timm": {"pretrained": True},
        }  # fmt: skip
        return replace(section, arguments=own.get(source.partition(":")[0], {}))
    if ".py:" in source:
        known = inspect.signature(load_function(section.source)).parameters
        if "num_classes" not in known:
            return section
    plain = load_model(replace(section, weights=None)).state_dict()
    count = classes_of(read_state(section.weights), plain)
    return section if count is None else replace(section, arguments={"num_classes": count})


def _splits(source: str) -> tuple[str, str | None]:
    """Where to measure and, of a folder that has train and val, where to heal."""
    inside = {path.name.lower(): str(path) for path in Path(source).glob("*/")}
    train, held = (
        next((inside[name] for name in names if name in inside), None)
        for names in (TRAIN, HELD_OUT)
    )
    return (held, train) if held and train else (source, None)


def _columns(source: str) -> dict[str, Any]:
    """The columns of a parquet file: those of a usual name, else the first and the last."""
    if not source.endswith(".parquet"):
        return {}
    names = parquet_file(Path(source)).schema_arrow.names
    found = {"image": ("image", "img", names[0]), "label": ("label", "labels", names[-1])}
    return {key: next(name for name in those if name in names) for key, those in found.items()}


@dataclass(frozen=True)
class _Seen:
    """The data as a network takes them: how, what that is called, and the first examples."""

    how: str
    data: DataSection
    inputs: Tensor
    targets: Tensor


def _looked_at(data: DataSection, section: ModelSection, network: nn.Module, say: Say) -> _Seen:
    """The reading of the data under which the network is right most often."""
    data = following(data, network)
    first = load_batches(replace(data, batch=1), Rows(0, 1))[0][0]
    least, most = SHOWN
    count = min(max(PIXELS // max(first.numel(), 1), least), most, rows_of(data.source))
    rows = Rows(0, count)
    singles = [x for x, _ in load_batches(replace(data, batch=1), rows)]
    ways = {"": data} if singles[0].ndim != 4 else dict(_ways(data, section, network, singles))
    tried = [
        _Seen(how, data, *load_batches(replace(data, batch=count), rows)[0])
        for how, data in ways.items()
    ]
    judged = [(seen, *found) for seen in tried if (found := _score(network, seen, section.device))]
    if not judged:
        return tried[0]
    best, _, right = min(judged, key=lambda one: one[1] * (BETTER if OWN in one[0].how else 1))
    others = "; ".join(f"{seen.how} {share:.0%}" for seen, _, share in judged if seen is not best)
    say(
        f"Images: {' × '.join(map(str, best.inputs.shape[1:]))}, {best.how}: {right:.0%} of "
        f"{len(best.inputs)} are classified right{others and f' ({others})'}"
    )
    if right * len(best.targets.unique()) < CHANCE:
        say(
            f"Warning: {right:.0%} is near chance. Are these its weights, and are the classes in "
            "the order of training? Folders are taken by the alphabet."
        )
    return best


def _score(network: nn.Module, seen: _Seen, device: str) -> tuple[float, float] | None:
    """Cross-entropy and accuracy, where the outputs are logits of classes."""
    try:
        with torch.no_grad():
            outputs = network(seen.inputs.to(device)).cpu()
        _check_classes(outputs, seen)
        loss = float(F.cross_entropy(outputs, seen.targets))
        return loss, float((outputs.argmax(1) == seen.targets).float().mean())
    except (RuntimeError, TypeError, AttributeError, LookupError, ValueError):
        return None  # images of a size that it does not take, or no classes


def _check_classes(outputs: Tensor, seen: _Seen) -> None:
    """Raise ConfigError if the data have classes that the network has not."""
    count, most = outputs.shape[1], seen.targets.max()
    indices = outputs.ndim == 2 and seen.targets.ndim == 1 and not seen.targets.is_floating_point()
    if indices and most >= count:
        raise ConfigError(
            f"The model tells {count} classes apart, and {seen.data.source} has at least "
            f"{most + 1}: these are not the weights, or not the data, that belong to it."
        )


def _ways(
    data: DataSection, section: ModelSection, network: nn.Module, images: list[Tensor]
) -> Iterator[tuple[str, DataSection]]:
    """What may have been done to images in training, and what to call it."""
    usual = _usual(section, network)
    if section.weights is None and usual:  # weights of the library itself
        name = usual.get("transform")
        read = {"transform": name, "channels": None} if name else usual
        yield name or "as its library reads them", replace(data, **read)
        return
    sides = {x.shape[2:] for x in images}
    least, channels = min(map(min, sides)), images[0].shape[1]
    cuts: list[dict[str, Any]] = [{}] if len(sides) == 1 else []
    if usual and (2 * least >= usual["crop"] or not cuts):
        cuts.append({key: usual[key] for key in CUTS})
    elif not cuts:
        cuts.append(dict.fromkeys(CUTS, min(max(least // 32 * 32, 32), 224)))
    norms = _norms(channels, torch.cat([x.flatten(2)[0] for x in images], 1))
    for cut in cuts:
        at = f" at {cut['crop']}" if cut else ""
        for name, (mean, std) in norms.items():
            yield name + at, replace(data, **cut, mean=mean, std=std)


def _norms(channels: int, pixels: Tensor) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Normalisations that are in use, and that by the statistics of the pixels [channels, n]."""
    mean, std = (tuple(round(float(v), 3) for v in f(1)) for f in (pixels.mean, pixels.std))
    found: dict[str, Any] = {"normalised as ImageNet": IMAGENET} if channels == 3 else {}
    found |= {"from 0 to 1": ((), ()), "from -1 to 1": ((0.5,) * channels,) * 2}
    return found | ({OWN: (mean, std)} if min(std) > 0 else {})


def _usual(section: ModelSection, network: nn.Module) -> dict[str, Any]:
    """What a library does to images before a model of its own."""
    kind, _, name = section.source.partition(":")
    if kind == "torchvision":
        known = require("torchvision.models", "vision").get_model_weights(name)
        does: Any = known.DEFAULT.transforms() if len(known) else None
        if hasattr(does, "crop_size"):  # detectors take images as they are
            sizes = {"resize": does.resize_size[0], "crop": does.crop_size[0]}
            return {"transform": str(known.DEFAULT)} | sizes
    if config := getattr(network, "pretrained_cfg", None):  # timm's
        crop = config["input_size"][-1]
        sizes = {"resize": int(crop / config["crop_pct"]), "crop": crop}
        return sizes | {key: config[key] for key in ("mean", "std")}
    return {}


def _sections(
    model: ModelSection, seen: _Seen, train: str | None, kinds: list[str], say: Say
) -> dict[str, dict[str, Any]]:
    """All sections of the job, those of a recovery by batch norms too."""
    data, splits, begin = seen.data, {}, 0
    share = rows_of(data.source) // (3 if train else 5)
    for name, most in MOST.items():
        splits[name] = Rows(begin, begin + max(min(share, most), 1))
        begin += max(min(share, most), 1)
    first, last = (0, rows_of(train)) if train else (begin, rows_of(data.source))
    beside = {"source": train} if train else {}
    say(
        f"Calibrated and healed on {last - first} images of "
        + (f"{Path(train).name}, measured on others" if train else "the data, not measured on")
    )
    fits = first + max(MEMORY // (4 * seen.inputs[0].numel()), 1)
    plain, keys = DataSection(""), ("image", "label", "transform", *CUTS, "mean", "std")
    read = {k: value for k in keys if (value := getattr(data, k)) != getattr(plain, k)}
    named = {"source": model.source, "arguments": model.arguments, "weights": model.weights}
    classes = seen.targets.ndim == 1 and not seen.targets.is_floating_point()
    return {
        "model": {key: value for key, value in named.items() if value},
        "data": {"source": data.source} | read | splits,
        "objective": ({} if classes else {"loss": "mse", "metrics": []})
        | {"recovery": "batchnorm"},
        "calibration": beside | {"rows": Rows(first, min(last, first + CALIBRATION))},
        "units": {"granularity": kinds},
        "budget": {"macs": 0.6},
        "search": {"evaluations": 100},
        "heal": beside | {"rows": Rows(first, min(last, fits)), "epochs": 3},
    }


def _text(sections: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    lines = [HEADER]
    for name, keys in sections.items():
        lines.append(f"\n[{name}]")
        for key, value in keys.items():
            note = NOTES.get(f"{name}.{key}", "")
            lines.append(f"{key} = {_toml(value, folder)}{note and f'  # {note}'}")
        lines += [MORE[name]] if name in MORE else []
    return "\n".join(lines) + "\n"


def _toml(value: Any, folder: Path) -> str:
    """A value in TOML; paths with slashes, as everywhere, and from the job's folder if in it."""
    for start in (HF, TEXT):
        if isinstance(value, str) and value.startswith(start):
            return json.dumps(start + json.loads(_toml(value.removeprefix(start), folder)))
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{k} = {_toml(v, folder)}' for k, v in value.items())} }}"
    if isinstance(value, str | Path) and (path := Path(value)).is_absolute():
        value = (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
    return json.dumps(str(value) if isinstance(value, Rows) else value, ensure_ascii=False)
