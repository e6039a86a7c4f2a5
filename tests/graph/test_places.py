"""Which modules a path, a glob or a class means, and what units take of them."""

import pytest
import torch
from torch import nn

import edgewise as ew
from edgewise.errors import RuleError
from edgewise.graph.places import inside, matched, scopes, taken
from ruled import vit
from zoo.models import Block, Body


class Whole(nn.Module):
    """A network with a part that can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = Body(Block(8), width=8), nn.LSTM(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x)[None])[0]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("blocks.1", ["blocks.1"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("blocks.[1-9].mlp", ["blocks.1.mlp"]),
        ("mlp.fc?", [f"blocks.{i}.mlp.fc{j}" for i in (0, 1) for j in (1, 2)]),
        ("Mlp", ["blocks.0.mlp", "blocks.1.mlp"]),
        ("norm", ["norm"]),  # not those that end so
    ],
)
def test_paths_globs_ends_and_classes(pattern: str, paths: list[str]) -> None:
    assert sorted(matched(vit(), pattern)) == paths


def test_paths_are_those_of_the_whole_model() -> None:
    graph = ew.trace(Whole().eval(), torch.randn(2, 3, 8, 8), part="backbone")
    assert matched(graph, "head") == ["head"]
    assert matched(graph, nn.LSTM) == ["head"]
    assert matched(graph, "blocks.*") == ["backbone.blocks.0"]
    assert ew.restrict(graph, keep=["head", nn.LSTM]) == graph
    assert ew.restrict(graph, at_most={"blocks.0": 0.5}).limits[0].weights


def test_keys_are_kinds_paths_or_both() -> None:
    assert scopes(vit(), "heads") == ("heads", [""])
    assert scopes(vit(), "branch:blocks.1") == ("edge", ["blocks.1"])
    with pytest.raises(RuleError, match="No module is called 'heads'"):
        scopes(vit(), ":heads")


def test_slices_take_what_those_before_them_left() -> None:
    graph = vit()
    for group in graph.nested:
        lost = sum(sum(taken(graph)[unit].params.values()) for unit in group)
        mask = graph.mask(group)
        assert lost == ew.cost(graph).params - ew.cost(graph, mask).params
        path = graph.units[group[0]].group.partition(":")[2].rpartition(".")[0]
        assert all(taken(graph)[unit].vertices <= inside(graph, path) for unit in group)
