"""Tokens a second of what was saved: SmolLM2-135M without a share of its decoder.

ShortGPT's layers at four shares, and the mask that edgewise found in language.json: pruned in the
model's own class, saved, and loaded by transformers alone. Batch 1, float32, one thread; tokens a
second over a prompt of 512, and over 64 tokens that follow with the cache. A pruned model and the
unpruned one take turns, so that the ratio is right on a busy machine. Rows in --out are not
measured again.

    python benchmarks/language/serving.py --data ../shared/data/text
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from language.problem import Meter, Problem
from language.rivals import shortgpt
from machine import describe

ROUNDS, PROMPT, MORE, SHARES = 3, 512, 64, (0.125, 0.25, 0.375, 0.5)
FOUND = Path("benchmarks/results/language.json")


def masks(problem: Problem) -> Iterator[tuple[str, str]]:
    for share in SHARES:
        yield "ShortGPT's layers", shortgpt(problem, Meter(problem), share)
    for row in json.loads(FOUND.read_text())["rows"]:
        if row["method"] == "edgewise" and row["seed"] == 0:
            yield "edgewise's branches", row["mask"]


def seconds(model: nn.Module, prompt: torch.Tensor) -> tuple[float, float]:
    """Of the prompt, and of the tokens that follow it."""
    begin = time.perf_counter()
    model(prompt, use_cache=True, logits_to_keep=1)
    middle = time.perf_counter()
    model.generate(prompt, do_sample=False, max_new_tokens=MORE, min_new_tokens=MORE)
    return middle - begin, time.perf_counter() - middle - (middle - begin)


def row(problem: Problem, name: str, mask: str) -> dict[str, Any]:
    graph = problem.graph
    removed = graph.mask(bits=mask)
    with tempfile.TemporaryDirectory() as folder:
        kind = ew.hf.save_pretrained(ew.prune(graph, removed, form="module"), folder)
        code = {"trust_remote_code": True} if kind != "stock" else {}
        small = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **code).eval()
    prompt = torch.randint(0, 4000, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    times: dict[str, list[tuple[float, float]]] = {"unpruned": [], "pruned": []}
    with torch.inference_mode():
        for number in range(ROUNDS + 1):
            for which, model in (("unpruned", problem.model), ("pruned", small)):
                found = seconds(model, prompt)
                times[which] += [found] if number else []  # the first is to warm up
    spent = {k: [statistics.median(t) for t in zip(*v, strict=True)] for k, v in times.items()}
    costs = [ew.cost(graph, m) for m in (graph.empty, removed)]
    return {
        "what": name, "checkpoint": kind, "mask": mask,
        "params": costs[1].params / costs[0].params, "macs": costs[1].macs / costs[0].macs,
        "prompt_tokens_a_second": {k: PROMPT / first for k, (first, _) in spent.items()},
        "new_tokens_a_second": {k: MORE / rest for k, (_, rest) in spent.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    out = Path("benchmarks/results/language_serving.json")
    parser.add_argument("--out", type=Path, default=out)
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(options.data, fast=False)
    record: dict[str, Any] = {"machine": describe(), "rows": []}
    if options.out.exists():
        record = json.loads(options.out.read_text())
    done = {found["mask"] for found in record["rows"]}
    for name, mask in masks(problem):
        if mask not in done:
            record["rows"].append(row(problem, name, mask))
            options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(record["rows"][-1], flush=True)


if __name__ == "__main__":
    main()
