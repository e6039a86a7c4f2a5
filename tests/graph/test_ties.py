"""Units that go together: what they are made of, and that pruning them is exact."""

import random
from pathlib import Path

import pytest
import torch

import edgewise as ew
import jobs
from edgewise.testing import laws
from hugging_face import one_process, pruned
from ruled import LAYERS, vit
from zoo import build


@one_process
@pytest.mark.parametrize("form", ["program", "module"])
def test_each_decoder_layer_of_a_llama_is_one_unit(form: str) -> None:
    graph = ew.restrict(pruned("Llama")[0], tie="model.layers.*", keep="model.norm")
    assert [unit.name for unit in graph.units] == [f"model.layers.{i}" for i in range(3)]
    assert {len(unit.tied) for unit in graph.units} == {len(graph.units[0].tied)}
    one = graph.mask(["model.layers.1"])
    layer = sum(p.numel() for p in graph.program.model.model.layers[1].parameters())
    assert ew.cost(graph).params - ew.cost(graph, one).params == layer
    ids = torch.randint(0, 64, (2, 5))
    small = ew.prune(graph, one, form=form)(input_ids=ids, use_cache=False)
    full = ew.masked(graph, one)(input_ids=ids, use_cache=False)
    torch.testing.assert_close(small["logits"], full["logits"], rtol=1e-4, atol=1e-5)


@one_process
def test_alike_layers_have_the_same_widths() -> None:
    widths = pruned("Llama")[0].select(lambda unit: bool(unit.group))
    graph = ew.restrict(widths, alike=["hidden:model.layers.*"])
    hidden = [unit for unit in graph.units if unit.kind == "hidden"]
    assert [unit.name for unit in hidden] == ["hidden:model.layers.*.mlp.gate_proj@32/64"]
    assert hidden[0].counts == (96, 192)
    rng = random.Random(0)
    for _ in range(3):
        mask = graph.nest(laws.random_mask(graph, rng))
        laws.law_pruned_is_masked(graph, mask)
        laws.law_cost_is_exact(graph, mask)
        small = ew.prune(graph, mask)
        sizes = {m.out_features for n, m in small.named_modules() if n.endswith("gate_proj")}
        assert len(sizes) == 1


def test_what_disconnects_beside_the_rest_is_offered_no_longer(residual: ew.Graph) -> None:
    """A skip and its branch: the branch saves more."""
    graph = ew.restrict(residual, tie=["blocks.0", "blocks.2"])
    assert graph.units[0].name == "blocks.0"
    assert all("->" not in name for name in graph.units[0].tied)
    offered = {name for unit in graph.units for name in (unit.tied or (unit.name,))}
    skips = {"stem.2->blocks.0.add", "blocks.1.relu->blocks.2.add"}
    assert {unit.name for unit in residual.units} - offered == skips
    assert ew.liveness(graph, graph.mask(range(2))).connected


def test_a_tie_is_a_unit_of_its_own_identity() -> None:
    tied = ew.restrict(vit(), tie=LAYERS)
    assert tied.fingerprint != vit().fingerprint
    assert set(tied.units[0].members) > set(vit().units[0].members)


@pytest.mark.parametrize(
    ("kinds", "rules"),
    [(("edge", "layer"), {"tie": "blocks.*"}), (("edge", "hidden"), {"alike": "hidden:blocks.*"})],
)
def test_plans_of_tied_units_load_from_the_factory_alone(
    kinds: tuple[str, ...], rules: dict[str, str], tmp_path: Path
) -> None:
    graph, objective = jobs.make(recovery="none", kinds=kinds)
    ruled = ew.restrict(graph, **rules)
    with ew.Study(ruled, objective) as study:
        study.run(8, ew.Budget(macs=0.5))
        plan = study.plan(finalists=2)
    assert any(ruled.units[ruled.unit_index[name]].tied for name in plan.removed)
    ((rule, key),) = rules.items()
    assert plan.provenance["rules"] == f"{rule}={key!r}"
    plan.save(tmp_path / "plan.json")
    small = ew.prune(ruled, plan)
    weights = ew.save(small, tmp_path / "small.safetensors")
    again = ew.load(lambda: build("residual", seed=3)[0], tmp_path / "plan.json", weights)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(again(x), small(x))
