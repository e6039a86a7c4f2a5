"""The networks of the tables: their units, and what measures masks of them."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import edgewise as ew
from edgewise.cli.job.sources import load_loss

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from tables import REMOVED

import exhaustive
from branches import data
from language.problem import Problem, sub_blocks
from recovery import digits, trained
from resnet_cifar import resnet56
from surrogates import ResNet, branches
from vision_transformer import VisionTransformer
from widths import cropped

SEEN, CALIBRATION, SCORED = 200, 128, 500  # images of ResNet-56
Bits = tuple[int, ...]
Measure = Callable[[list[Bits]], list[np.ndarray]]


def graph_of(name: str, model: nn.Module | None = None, importance: Any = None) -> ew.Graph:
    """The graph whose units a table's columns are, weights left at random if no model is given."""
    if name == "resnet20":
        return branches(model or ResNet(3))
    if name == "resnet56":
        return branches(model or resnet56())
    if name == "smollm2":
        return sub_blocks(model or decoder(), torch.randint(0, 64, (2, 8)))
    if name == "vit":
        shape = {"side": 28, "patch": 7, "channels": 1, "dim": 48, "depth": 12, "heads": 4}
        return ew.trace((model or VisionTransformer(**shape)).eval(), (torch.randn(2, 1, 28, 28),))
    return ew.trace(
        (model or resnet56()).eval(), (torch.randn(1, 3, 32, 32),), granularity="hidden", slices=2,
        **({"importance": importance} if importance else {}),
    )  # fmt: skip


def decoder() -> nn.Module:
    """A small Llama of as many layers as SmolLM2-135M."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=48, intermediate_size=64, num_hidden_layers=30,
        num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def measured(name: str, options: argparse.Namespace) -> tuple[ew.Graph, list[Bits], Measure]:
    """The units, masks to begin with, and what measures the examples of others."""
    if name == "smollm2":
        problem = Problem(options.data / "text", "wikitext")
        kept = [tuple(map(int, mask)) for mask in problem.whole("search")]
        near = [m for m in kept if min(REMOVED[name]) - 2 <= sum(m) <= max(REMOVED[name]) + 2]
        start = first(len(problem.params)) + near

        def text(masks: list[Bits]) -> list[np.ndarray]:
            return [problem.losses("".join(map(str, mask))) for mask in masks]

        return problem.graph, start, text
    study = study_of(name, options)

    def images(masks: list[Bits]) -> list[np.ndarray]:
        asked = [study.graph.mask(bits=bits) for bits in masks]
        study.evaluate(asked)
        return [study.losses(mask) for mask in asked]

    return study.graph, first(len(study.graph.units)), images


def study_of(name: str, options: argparse.Namespace) -> ew.Study:
    """A trained network and its images."""
    if name == "resnet20":
        return exhaustive.study_of(options.data)
    if name == "vit":
        images, labels = digits(options.data)
        search = [(images[7000:7200], labels[7000:7200])]
        return ew.Study(graph_of(name, trained(options)), ew.Objective(search, "cross_entropy"))
    [(images, labels)] = data(options.data, "test", 0, SEEN)
    model = resnet56()
    model.load_state_dict(load_file(options.data / "resnet56_cifar10.safetensors"))
    scored = data(options.data, "train", 0, SCORED)
    seen, calibration = (
        x.to(memory_format=torch.channels_last)
        for x in (images, cropped(scored[0][0][:CALIBRATION], 0))
    )
    objective = ew.Objective(
        [(seen, labels)],
        load_loss("cross_entropy"),
        recovery=ew.Recovery("batchnorm", [calibration]),
        precision="bfloat16",
    )
    importance = ew.importance.taylor(scored, F.cross_entropy)
    return ew.Study(graph_of(name, model, importance), objective)


def first(units: int) -> list[Bits]:
    """Everything where that is few, else nothing and each unit alone."""
    if units <= 10:
        return [tuple(n >> u & 1 for u in range(units)) for n in range(2**units)]
    return [tuple(np.zeros(units, int)), *map(tuple, np.eye(units, dtype=int))]
