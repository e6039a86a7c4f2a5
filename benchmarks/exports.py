"""Whether exported networks run at other sizes than their example: a batch, a length, an image.

Every model is pruned by a random valid mask and exported to ONNX. The file is run by onnxruntime,
here and not within `ew.export`, on inputs drawn like the example: of another batch, of one example,
and of each other length or image size at which the unpruned model itself runs. A miss is a size
that the model takes and the file does not, or at which the two differ; it stands with its reason.

    python benchmarks/exports.py --out benchmarks/results/exports.json
    python benchmarks/exports.py --only resnet18

Every model runs in a process of its own.
"""

import argparse
import json
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn

import edgewise as ew
from architectures import SUITES, Architecture
from coverage import elsewhere, short
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.pruning.verify import relative_difference
from edgewise.testing import laws
from edgewise.tracing.agreement import drawn
from edgewise.tracing.capture import bind
from edgewise.tracing.sizes import axes_by_size, variations
from edgewise.values.nested import batch_size, leaves_of
from machine import describe

ALLOWED = 1e-4  # relative, of single precision in another runtime
MODELS = {
    "torchvision": (
        "resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "efficientnet_b0",
        "regnet_y_400mf", "vit_b_16", "convnext_tiny", "lraspp_mobilenet_v3_large",
    ),
    "timm": ("ghostnet_050", "repghostnet_050", "gmixer_12_224", "resnetv2_101", "skresnet18"),
    "transformers": (
        "BertForSequenceClassification", "DistilBertForSequenceClassification", "GPT2LMHeadModel",
        "LlamaForCausalLM", "SegformerForImageClassification", "ViTForImageClassification",
    ),
}  # fmt: skip


def measure(architecture: Architecture) -> dict[str, Any]:
    """One row: what is free, and whether the file is right at every size that the model takes."""
    torch.manual_seed(0)
    model, args, kwargs = architecture.build()
    for parameter in model.parameters():
        if not parameter.any():  # a head of zeros would give zeros, whatever the file does
            nn.init.normal_(parameter, std=0.02)
    graph = ew.trace(model.eval(), args, kwargs)
    mask = laws.random_mask(graph, random.Random(1))
    small = ew.prune(graph, mask).eval()
    reference = ew.masked(graph, mask).eval()  # of the full size; the rewrite has no part in it
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        written = ew.export(small, Path(folder) / "model.onnx")
        seconds = time.perf_counter() - begin
        session = onnxruntime.InferenceSession(str(written.path))
        sizes = {
            label: judged(session, reference, inputs)
            for label, inputs in others(model, args, kwargs)
        }
    kinds = (w for w in told if issubclass(w.category, EdgewiseWarning))
    return {
        "parameters": sum(p.numel() for p in small.parameters()),
        "frontend": graph.frontend,
        "opset": written.opset,
        "free": {name: list(axes) for name, axes in written.free.items()},
        "fixed_by_tracing": list(graph.fixed),
        "told": [short(str(w.message)) for w in kinds],
        "export_seconds": round(seconds, 1),
        "sizes": sizes,
    }


def others(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Other sizes that the user's model takes, in words, and inputs of them by name."""
    example = (args, kwargs)
    batch = batch_size(example)
    for size in (batch + 1, 1):
        if runs(model, inputs := drawn(example, batch, size)):
            yield f"batch {size}", bind(model, *inputs)[0]
    for size, axes in axes_by_size(example).items():
        for sizes in variations(size, axes):
            if runs(model, inputs := drawn(example, batch, batch, sizes)):
                yield f"{size} -> {sorted(set(sizes.values()))}", bind(model, *inputs)[0]
                break


def runs(model: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> bool:
    try:
        with torch.no_grad():
            model(*inputs[0], **inputs[1])
    except Exception:  # whatever a size that does not fit raises
        return False
    return True


def judged(
    session: onnxruntime.InferenceSession, reference: nn.Module, inputs: dict[str, Any]
) -> float | str:
    """The largest relative difference of the file's outputs, or why there is none."""
    try:
        with torch.no_grad():
            expected = [v for v in leaves_of(reference(*inputs.values())) if v is not None]
    except EdgewiseError as error:
        return f"the pruned network refuses it: {short(str(error))}"
    try:
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # onnxruntime's own
        return f"onnxruntime: {short(str(error))}"
    pairs = zip(expected, map(torch.as_tensor, found), strict=True)
    worst = max(relative_difference(a, b) for a, b in pairs)
    return worst if worst <= ALLOWED else f"differs by {worst:.2g}"


def share(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all sizes that the models take, those at which the files are right; and the misses."""
    tried = [(row, label) for row in rows for label in row.get("sizes", {})]
    right = [(row, label) for row, label in tried if isinstance(row["sizes"][label], float)]
    whole = [row for row in rows if "error" not in row and all(
        isinstance(found, float) for found in row["sizes"].values()
    )]  # fmt: skip
    misses = [f"{row['name']}: {row['error']}" for row in rows if "error" in row]
    misses += [
        " ".join([f"{row['name']}, {label}: {row['sizes'][label]}", *row["told"]])
        for row, label in tried
        if (row, label) not in right
    ]
    return {
        "models": len(rows), "models_right_at_every_size": len(whole),
        "sizes": len(tried), "sizes_right": len(right), "misses": misses,
    }  # fmt: skip


def chosen(only: str) -> list[Architecture]:
    return [
        architecture
        for suite, names in MODELS.items()
        for architecture in SUITES[suite]()
        if architecture.name in names and only in architecture.name
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only models whose name contains this")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    options = parser.parse_args()
    rows = []
    for architecture in chosen(options.only):
        found = elsewhere(partial(measure, architecture))
        rows.append({"suite": architecture.suite, "name": architecture.name, **found})
        print(json.dumps(rows[-1]), flush=True)
    record = {"machine": describe(), "summary": share(rows), "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["summary"], indent=1))


if __name__ == "__main__":
    main()
