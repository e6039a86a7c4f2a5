"""What becomes of modules, as plain data: read, written, told, and done to a model."""

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgewise.pruning.edited import Fed, Gone, edited
from edgewise.pruning.edits import Edit, from_dict, places, ranges, to_dict


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.width = nn.Linear(4, 6), nn.Linear(6, 4), 6

    def forward(self, x):
        return x + self.second(self.first(x).view(-1, self.width))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.tied = nn.Linear(6, 4, bias=False)
        self.tied.weight = self.blocks[0].second.weight

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.tied(torch.cat([x, x[:, :2]], 1)), x


HALF = {
    "blocks.0.first": Edit(
        "resized", {"weight": ("0-2", ""), "bias": ("0-2",)}, {"out_features": (6, 3)}
    ),
    "blocks.0": Edit("resized", {}, {"width": (6, 3)}),
    "blocks.1.second": Edit("gone", gives={"fill": 0, "shape": [], "like": [0, "input"]}),
}


@given(st.lists(st.booleans(), min_size=1, max_size=40).filter(any))
def test_ranges_are_read_back(keep: list[bool]) -> None:
    assert places(ranges(keep)) == [i for i, kept in enumerate(keep) if kept]


def test_edits_are_plain_data() -> None:
    text = json.dumps(to_dict(HALF))
    assert from_dict(json.loads(text)) == HALF
    assert str(HALF["blocks.1.second"]) == "gone: gives zero"
    assert "out_features 6 to 3" in str(HALF["blocks.0.first"])
    for damaged in (
        {"version": 2, "modules": {}},
        {"version": 1},
        {"version": 1, "modules": {"x": {"becomes": "?"}}},
        {"version": 1, "modules": {"x": 3}},
    ):
        with pytest.raises(ValueError, match=r"version|damaged|becomes"):
            from_dict(damaged)


def test_a_tied_tensor_is_cut_in_both_places() -> None:
    net = edited(Net(), {"blocks.0.second": Edit("resized", {"weight": ("0,2", "")})})
    assert net.tied.weight is net.blocks[0].second.weight
    assert net.tied.weight.shape == (2, 6)


@pytest.mark.parametrize(
    ("path", "edit", "message"),
    [
        ("nothing", Edit("gone", gives=None), "no module 'nothing'"),
        ("tied", Edit("resized", {"weight": ("0-9", "")}), r"of shape \(4, 6\)"),
        ("tied", Edit("resized", {"weight": ("0",)}), "1 axes"),
        ("tied", Edit("resized", {"scale": ("0",)}), "not there"),
        ("tied", Edit("resized", {}, {"out_features": (5, 3)}), "is 4, and should be 5"),
        ("tied", Edit("resized", {}, {"T_destination": (5, 3)}), "is None, and should be 5"),
    ],
)
def test_another_architecture_is_left_as_it_is(path: str, edit: Edit, message: str) -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        edited(net, {**HALF, path: edit})
    assert not any(isinstance(module, Gone) for module in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_gone_modules_keep_what_other_code_reads() -> None:
    net = edited(Net().eval(), HALF)
    gone = net.blocks[1].second
    assert (gone.out_features, gone.training) == (4, False)
    assert "Linear, gone: gives zero" in repr(net)
    assert not list(gone.parameters())


def test_templates_give_nested_values_of_the_right_size() -> None:
    gives = {
        "tuple": [
            {"fill": 1, "shape": [[0, 1, False], 0, [1, 2, True]], "like": [0, "x"]},
            {"dict": {"a": {"list": [{"input": [1, "y"]}, None]}}},
        ]
    }
    gone = Gone(nn.Identity(), Edit("gone", gives=gives))
    x, y = torch.randn(3, 5), torch.randn(2)
    for made, rest in (gone(x, y), gone(x, y=y), gone(x=x, y=y)):
        assert made.shape == (3, 0, 3)
        assert rest["a"][0] is y
    assert "no channels" in repr(gone)


WITHHELD = {"input": [0, "x"], "fill": {"single": 0}, "to": ["blocks.0.first"]}


@pytest.mark.parametrize("fill", [{"single": 0}, 0])
def test_code_does_without_an_input_that_a_child_reads(fill) -> None:
    torch.manual_seed(0)
    net = Net()
    x = torch.randn(2, 4)
    wanted = net.blocks[0].second(net.blocks[0].first(x))
    edited(net, {"blocks.0": Edit("resized", withheld=({**WITHHELD, "fill": fill},))})
    block = net.blocks[0]
    assert isinstance(block, Block)
    assert isinstance(block, Fed)
    for again in (block, copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(again(x), wanted)
        assert torch.equal(again(x=x), wanted)
        assert again.withholds[0].value is None  # nothing is held between calls
    assert "reaches blocks.0.first only" in str(Edit("resized", withheld=(WITHHELD,)))


def test_code_does_without_an_output_that_a_module_reads() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            return torch.cat([y, self.b(y)], 1)

    chain, x = Chain(), torch.randn(2, 4)
    wanted = chain(x)[:, 4:]
    held = {"input": None, "fill": {"no channels": 1}, "to": ["b"]}
    edited(chain, {"a": Edit("resized", withheld=(held,))})
    assert torch.equal(chain(x), wanted)
