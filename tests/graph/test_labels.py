"""What a person calls a unit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import edgewise as ew
from edgewise.errors import MaskError
from edgewise.graph.units import with_units
from language_model import IDS, LanguageModel
from zoo import ZOO, build

EVERY = ("edge", "layer", "hidden", "heads", "channels")


@given(st.sampled_from(sorted(ZOO)))
def test_labels_are_unique_stable_and_serve_as_names(name: str) -> None:
    model, args = build(name)
    graph = ew.trace(model, args, granularity=EVERY, slices=2)
    known = [unit.label for unit in graph.units]
    assert len({*known}) == len(known)
    assert all(graph.mask([unit.label]) == graph.mask([unit.name]) for unit in graph.units)
    for kind in ("edge", "branch"):
        some = with_units(graph, [kind])
        assert all(some.units[i].label in known for i in range(len(some.units)))
    assert {unit.block for unit in graph.units} <= {block.label for block in graph.blocks}


def test_a_language_model() -> None:
    graph = ew.trace(LanguageModel(2).eval(), IDS, granularity=EVERY, slices=2)
    found = [unit.label for unit in graph.units if unit.block == "layers.1"]
    assert {
        "layers.1 attention",
        "layers.1 attention skip",
        "layers.1 attention q_proj bypass",
        "layers.1 attention heads 1 of 2",
        "layers.1 mlp",
        "layers.1 mlp gate_proj",
        "layers.1 mlp skip",
        "layers.1 mlp hidden 20 of 40",
        "layers.1 post_attention_layernorm pow..rsqrt",
    } <= {*found}


class Block(nn.Module):
    """As BERT has it: no module is called mlp, and a gate is none by its name."""

    def __init__(self, narrow: bool) -> None:
        super().__init__()
        self.dense, self.output = nn.Linear(8, 16), nn.Linear(16, 8)
        self.down, self.up = nn.Linear(8, 2), nn.Linear(2, 8)
        self.short = nn.Sequential(nn.Linear(8, 8), nn.ReLU()) if narrow else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.short(x) + self.output(self.dense(x).relu())
        return x * self.up(self.down(x).relu()).sigmoid()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.last = nn.Sequential(Block(True), Block(False)), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.encoder(x))


def test_what_a_branch_is_for_is_told_by_its_operators_too() -> None:
    graph = ew.trace(Encoder(), torch.randn(2, 8), granularity="edge")
    assert {unit.label for unit in graph.units} == {
        "encoder.0 short",
        "encoder.0 mlp",
        "encoder.0.add -> encoder.0.mul",
        "encoder.0 gate",
        "encoder.1 mlp",
        "encoder.1 short",
        "encoder.1.add -> encoder.1.mul",
        "encoder.1 gate",
    }


def test_units_are_selected_by_globs_on_labels_and_names(residual: ew.Graph) -> None:
    assert len(residual.select(["* branch", "bypass:*"]).units) == 3 + 6
    assert residual.select(["blocks.1 *"]).units == residual.select(
        lambda unit: unit.block == "blocks.1"
    ).units  # fmt: skip
    with pytest.raises(MaskError, match=r"'blocks.0 brunch' matches no unit. Did you mean 'bl"):
        residual.select(["blocks.0 brunch"])
    with pytest.raises(MaskError, match=r"No unit is called 'blocks.0 brunch'. Did you mean 'bl"):
        residual.mask(["blocks.0 brunch"])
