"""What a reader of each page has already: the names that its code blocks start from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import library, nn
from torch.nn import functional as F

import edgewise as ew
import jobs
from zoo.models import Block, Body, build

Names = dict[str, Any]


def wide() -> nn.Module:
    """Two residual blocks, wide enough to be cut in steps of eight channels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Body(Block(16), Block(16), width=16).eval()


def trained() -> Names:
    """A model, an example batch, data for every purpose, a loss and a metric."""
    model, random = wide(), torch.Generator().manual_seed(0)
    x = torch.randn(128, 3, 8, 8, generator=random)
    with torch.no_grad():
        pairs = [(part, model(part).argmax(1)) for part in x.split(32)]
    graph = ew.trace(model, x[:2], granularity="edge")
    return {
        "torch": torch, "nn": nn, "F": F, "np": np, "ew": ew,
        "model": model, "make_model": wide, "x": x[:2], "graph": graph,
        "search_loader": pairs[:1], "verify_loader": pairs[1:2], "report_loader": pairs[2:3],
        "train_loader": pairs[3:], "calibration_batches": pairs[3:], "batches": pairs[3:],
        "loss_fn": F.cross_entropy, "accuracy_fn": jobs.accuracy,
        "objective": ew.Objective(pairs[:1], F.cross_entropy, verify=pairs[1:2]),
    }  # fmt: skip


def studied() -> Names:
    """A study that has measured masks."""
    graph, objective = jobs.make(recovery="none")
    study = ew.Study(graph, objective)
    study.run(24, ew.Budget(macs=0.7))
    study.evaluate(ew.sample_masks(graph, 24, removed=3, rng=np.random.default_rng(0)))
    known = [e for e in study.evaluations if e.split == "search"]
    masks = [graph.mask(bits=e.mask) for e in known]
    names = {"study": study, "graph": graph, "mask": masks[1], "one": masks[2], "other": masks[3]}
    data = {"X": graph.matrix(masks), "losses": np.array([e.loss for e in known])}
    data |= {"ew": ew, "objective": objective}
    return names | data | {"candidates": graph.matrix(masks[-4:])}


def reference() -> Names:
    """What the examples of docstrings start from: docs/api.md lists it."""
    model, (x,) = build("residual")
    names = studied()
    pairs = [(inputs[0], targets) for inputs, targets in names["objective"].splits["search"]]
    return names | {
        "torch": torch, "nn": nn, "F": F, "np": np, "accuracy_fn": jobs.accuracy,
        "model": model, "make_model": lambda: build("residual")[0], "x": x, "batches": pairs,
        "job": Path(__file__).parent.parent / "examples" / "resnet56_cifar10.toml",
    }  # fmt: skip


def concepts() -> Names:
    """A model, and what was measured of another."""
    return studied() | {"model": wide(), "x": torch.randn(2, 3, 8, 8)}


def language() -> Names:
    """A tiny language model of transformers, with a batch of tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **settings, **heads)).eval()
    ids = torch.randint(0, 50, (2, 6))
    return trained() | {"language_model": model, "ids": ids, "mask": torch.ones_like(ids)}


def using() -> Names:
    """The same, with a plan for the model."""
    names = language()
    study = ew.Study(names["graph"], names["objective"])
    study.run(8, ew.Budget(macs=0.7))
    return names | {"plan": study.plan()}


def operators() -> Names:
    """Operators of a reader's own."""

    class MySwish(nn.Module):
        pass

    class MyAttention(nn.Module):
        pass

    if not hasattr(torch.ops.mylib, "rope"):
        library.define("mylib::rope", "(Tensor x) -> Tensor")
    names = {"my_swish": lambda x: x * x.sigmoid(), "MySwish": MySwish, "MyAttention": MyAttention}
    return trained() | names


def plain() -> Names:
    """Nothing but what a page says itself."""
    return {}


def images() -> Names:
    """Small images of ten classes, for every purpose."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 32, 32, generator=random)
    pairs = [(part, torch.arange(len(part))) for part in x.split(10)]
    names = ("search_loader", "verify_loader", "report_loader", "train_loader")
    return {"images": x} | {name: [pair] for name, pair in zip(names, pairs, strict=True)}


SETUPS: dict[str, Callable[[], Names]] = {
    "README.md": images,
    "CONTRIBUTING.md": operators,
    "docs/bench.md": studied,
    "docs/certificate.md": studied,
    "docs/cluster.md": trained,
    "docs/concepts.md": concepts,
    "docs/engine.md": trained,
    "docs/howto/figure.md": reference,
    "docs/howto/gpu.md": trained,
    "docs/howto/language.md": language,
    "docs/howto/own_metric.md": trained,
    "docs/howto/own_model.md": language,
    "docs/howto/rules.md": language,
    "docs/howto/serving.md": reference,
    "docs/howto/tracing_fails.md": trained,
    "docs/howto/using.md": using,
    "docs/latency.md": trained,
    "docs/operators.md": operators,
    "docs/report.md": studied,
    "docs/solver.md": studied,
    "docs/storage.md": studied,
    "docs/surrogates.md": studied,
}
