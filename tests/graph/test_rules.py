"""Rules for what may go: what they keep and count, what they refuse, and who keeps them."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from torch import nn

import edgewise as ew
import jobs
from edgewise.errors import BudgetError, MaskError, RuleError
from edgewise.graph.rules import permitted
from edgewise.search import Space
from edgewise.testing import laws
from ruled import LAYERS, RULES, vit

HALF = {f"heads:{LAYERS}": 0.5}


def heads_left(model: nn.Module) -> list[int]:
    """How many heads of four channels each layer has, none where its attention is gone."""
    sizes = {n: m.out_features // 12 for n, m in model.named_modules() if n.endswith("attn.qkv")}
    return [sizes.get(f"blocks.{layer}.attn.qkv", 0) for layer in range(2)]


@pytest.mark.parametrize("form", ["program", "module"])
def test_at_most_half_of_any_layers_heads_go(form: Any) -> None:
    """In all that may go at random, and in no more than what a rule lets."""
    graph = ew.restrict(vit(slices=4), at_most=HALF)
    masks = ew.sample_masks(graph, 12, budget=ew.Budget(params=0.75), rng=np.random.default_rng(0))
    left = [heads_left(ew.prune(graph, mask, form=form)) for mask in masks[:2]]
    assert all(min(heads) >= 2 for heads in left)
    assert min(map(min, left)) == 2
    free = ew.sample_masks(vit(slices=4), 12, removed=6, rng=np.random.default_rng(0))
    assert min(heads_left(ew.prune(vit(slices=4), free[0]))) < 2


def test_a_mask_that_breaks_a_rule_is_not_pruned() -> None:
    graph = ew.restrict(vit(), at_most=HALF)
    attention = next(unit.name for unit in graph.units if "norm1" in unit.name)
    with pytest.raises(MaskError, match=r"more than at_most={'heads:blocks.\*': 0.5} lets"):
        ew.prune(graph, graph.mask([attention]))
    assert ew.masked(graph, graph.mask([attention]))(torch.randn(1, 3, 16, 16)).shape == (1, 3)


@given(data=st.data(), kind=st.sampled_from(sorted(RULES)), seed=st.integers(0, 99))
def test_limits_count_what_a_mask_takes_and_stay_with_fewer_units(
    data: st.DataObject, kind: str, seed: int
) -> None:
    try:
        graph = ew.restrict(vit(), **{"at_most": {"edge": 0.6}, kind: data.draw(RULES[kind])})
    except RuleError:
        reject()
    mask = graph.nest(laws.random_mask(graph, random.Random(seed)))
    names = [graph.units[unit].name for unit in mask.removed]
    broken = [x for x in graph.limits if sum(x.weights.get(n, 0) for n in names) > x.most]
    assert permitted(graph, [mask, graph.empty]).tolist() == [not broken, True]
    fewer = graph.select(lambda unit: unit.name in names)
    assert permitted(fewer, [fewer.mask(names)])[0] == (not broken)


def test_what_is_kept_is_touched_by_no_unit() -> None:
    """By path, glob, class and name of a class; also by what reads fewer channels."""
    names = [unit.name for unit in vit().units]
    mlp = type(vit().program.model.blocks[0].mlp)
    for keep, gone in (
        ("blocks.0.mlp", ["blocks.0.norm2", "blocks.0.mlp"]),
        (["blocks.*.mlp", "head"], ["norm2", ".mlp"]),
        (mlp, ["norm2", ".mlp"]),
        ("Mlp", ["norm2", ".mlp"]),
        ("blocks.1.mlp.fc2", ["blocks.1.norm2", "blocks.1.mlp"]),
    ):
        left = [unit.name for unit in ew.restrict(vit(), keep=keep).units]
        assert left == [name for name in names if not any(part in name for part in gone)]
    some = ew.restrict(vit(), keep="blocks.0", at_most=HALF)  # no contradiction: blocks.1 is left
    assert [len(limit.weights) for limit in some.limits] == [3]
    whole = ew.restrict(vit(), keep="head")
    assert [unit.name for unit in whole.units] == names


def test_shares_of_a_path_are_of_its_parameters_and_those_of_a_kind_of_its_number() -> None:
    graph = vit()
    size = sum(p.numel() for p in graph.program.model.blocks[0].parameters())
    (limit,) = ew.restrict(graph, at_most={"blocks.0": 0.5}).limits
    assert limit.most == 0.5 * size
    saved = {unit.name: unit.cost.params for unit in graph.units if "blocks.0" in unit.name}
    assert limit.weights == saved
    (edges,) = ew.restrict(graph, at_most={"edge:blocks.1": 0.5}).limits
    assert [*edges.weights.values(), edges.most] == [1, 1, 1]
    (heads,) = ew.restrict(graph, at_most={"heads": 0.25}).limits
    assert sorted(heads.weights.values()) == [1, 1, 2, 2, 4, 4]  # the last two: whole attentions
    assert heads.most == 2
    two = ew.restrict(graph, at_least={"heads": 3}).limits
    assert [limit.most for limit in two] == [1, 1]


def test_a_module_called_as_a_kind_is_named_with_a_colon() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x + self.heads(x))

    graph = ew.trace(Named(), torch.randn(2, 4), granularity="edge", at_most={":heads": 0.5})
    assert graph.limits[0].most == 10
    with pytest.raises(RuleError, match="limits nothing"):
        ew.restrict(graph, at_most={"heads": 0.5})


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"keep": "block.0"}, "No module is called 'block.0'. Did you mean 'blocks.0'?"),
        ({"keep": "Mpl"}, "Did you mean 'Mlp'"),
        ({"keep": nn.LSTM}, "No module is a LSTM"),
        ({"keep": [3]}, "take paths, keep also classes; got 3"),
        ({"at_most": 0.5}, 'at_most has a number by KEY, as {"heads": …}; got 0.5'),
        ({"at_most": {"hiden": 0.5}}, "Did you mean 'hidden'"),
        ({"at_most": {"head:blocks.0": 0.5}}, "No kind of unit is called 'head'. Did you mean"),
        ({"at_most": {"heads": 2}}, "at_most={'heads': 2}: a share is at least 0 and below 1"),
        ({"at_most": {"norm": 0.5}}, "at_most={'norm': 0.5} limits nothing"),
        ({"at_least": {"heads": 2.5}}, "a whole number, at least 1"),
        ({"at_least": {"heads": 9}}, "cannot be kept: the widest there has 4"),
        ({"keep": "blocks.*.attn", "at_most": {"heads": 0.5}}, "contradicts keep='blocks.*.attn'"),
        ({"keep": "blocks"}, "Nothing may go: keep='blocks' keeps each of the 12 units"),
        (
            {"at_most": {"blocks": 0.01}},
            "each of the 12 units is more than at_most={'blocks': 0.01}",
        ),
        ({"tie": ["blocks.0", LAYERS]}, "both tie blocks.0.norm1"),
        ({"tie": "blocks.0.attn.proj"}, "ties nothing"),
        ({"alike": "blocks.0"}, "ties nothing"),
    ],
)
def test_rules_that_say_nothing_or_contradict_each_other_are_errors(
    rules: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(RuleError) as told:
        ew.restrict(vit(), **rules)
    assert words in str(told.value)


def test_no_mask_names_the_rule_that_forbids_all() -> None:
    graph = ew.restrict(vit(), at_most={"edge": 0}, at_least={"heads": 4})
    rng = np.random.default_rng(0)
    with pytest.raises(MaskError, match=r"Forbidden by at_most={'edge': 0}; also by at_least"):
        ew.sample_masks(graph, 1, removed=5, rng=rng)
    tight = ew.restrict(vit(), at_most={"edge": 0.25, "heads": 0.8})
    with pytest.raises(BudgetError, match=r"Forbidden by at_most={'edge': 0.25}: without it"):
        ew.sample_masks(tight, 1, budget=ew.Budget(params=0.56), rng=rng)
    with pytest.raises(BudgetError, match=r"\(granularity\)\.$"):
        ew.sample_masks(graph, 1, budget=ew.Budget(params=0.01), rng=rng)  # no rule's fault


def test_rules_are_added_to_those_that_there_are() -> None:
    half = ew.restrict(vit(), at_most={"heads": 0.5})
    graph = ew.restrict(half, tie=LAYERS)
    assert [unit.name for unit in graph.units] == ["blocks.0", "blocks.1"]
    assert permitted(graph, [graph.mask([0]), graph.mask([0, 1])]).tolist() == [True, False]
    assert ew.restrict(graph, at_most={"edge": 0.5}).limits[0].weights == graph.limits[0].weights
    assert ew.restrict(half, at_most={"heads": 0.9}).limits[0].most == 7.2
    with pytest.raises(BudgetError, match=r"Forbidden by at_most={'heads': 0.5}: "):
        Space(graph, ew.Budget(params=0.6)).reachable()


def test_evaluations_without_a_rule_serve_a_study_with_it(tmp_path: Path) -> None:
    """Shares leave the identity of a study alone, and no question breaks one."""
    graph, objective = jobs.make(recovery="none")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    with ew.Study(graph, objective, storage) as study:
        study.run(12, ew.Budget(macs=0.7))
        before = study.evaluations
    ruled = ew.restrict(graph, at_most={"blocks.1": 0.1, "edge": 0.7})
    assert ruled.fingerprint == graph.fingerprint
    with ew.Study(ruled, objective, storage) as study:
        assert study.evaluations == before
        study.run(24, ew.Budget(macs=0.7))
        added = [study.graph.mask(bits=e.mask) for e in study.evaluations[len(before) :]]
        assert len(added)
        assert permitted(ruled, added).all()
        assert permitted(ruled, [ruled.mask(study.plan(finalists=3).removed)])[0]
        rules = study.storage.runs()[-1].settings["rules"]
        assert rules == ["at_most={'blocks.1': 0.1}", "at_most={'edge': 0.7}"]
