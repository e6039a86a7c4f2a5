"""Plans and weights: written, read back, refused where they do not belong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import edgewise as ew
import jobs
from edgewise.errors import PlanError, TraceError
from edgewise.pruning.verify import compare
from zoo import ZOO, build, traced

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def plan() -> ew.Plan:
    return jobs.plan_of(None, evaluations=24)


def test_round_trip(plan: ew.Plan, tmp_path: Path) -> None:
    path = plan.save(tmp_path / "deep" / "plan.json")
    again = ew.Plan.load(path)
    assert again == plan
    assert again.to_dict() == plan.to_dict()
    assert again.tensors.keys() == plan.tensors.keys()
    assert all(torch.equal(again.tensors[k], v) for k, v in plan.tensors.items())
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "plan.json",
        "plan.tensors.safetensors",
    ]


def test_damaged_plans_are_refused(plan: ew.Plan, tmp_path: Path) -> None:
    path = plan.save(tmp_path / "plan.json")
    data = json.loads(path.read_text())
    with pytest.raises(PlanError, match="There is no plan"):
        ew.Plan.load(tmp_path / "missing.json")
    for change, message in [
        ({"schema": 99}, "has schema 99"),
        ({"schema": 3}, "has schema 3, this edgewise reads 4"),
        ({"before": {}}, "is damaged"),
        ({"latency": {"bits": 3}}, "is damaged"),
        ({"tensors": {"file": "none.safetensors", "sha256": ""}}, "tensors are missing"),
        ({"tensors": {**data["tensors"], "sha256": "0"}}, "SHA-256 differs"),
    ]:
        path.write_text(json.dumps(data | change))
        with pytest.raises(PlanError, match=message):
            ew.Plan.load(path)
    path.write_text("[]")
    with pytest.raises(PlanError, match="not a plan"):
        ew.Plan.load(path)


def test_a_plan_of_another_model_is_refused(plan: ew.Plan) -> None:
    model, args = build("preactivation")
    with pytest.raises(PlanError, match="The plan was made for graph"):
        ew.prune(ew.trace(model, args, granularity=("edge", "layer")), plan)


def test_an_unwritable_place_is_explained(plan: ew.Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be written"):
        plan.save(tmp_path / "file" / "plan.json")
    graph, _ = jobs.make()
    with pytest.raises(PlanError, match="cannot be written"):
        ew.save(ew.prune(graph, plan), tmp_path / "file" / "small.safetensors")


def test_a_fresh_process_builds_the_model_again(plan: ew.Plan, tmp_path: Path) -> None:
    graph, objective = jobs.make()
    small = ew.prune(graph, plan).eval()
    with torch.no_grad():
        small.get_parameter("head.linear.bias").add_(1.0)  # as if it had been fine-tuned
    plan.save(tmp_path / "plan.json")
    ew.save(small, tmp_path / "small.safetensors")
    x = objective.splits["report"][0][0][0]
    torch.save(x, tmp_path / "x.pt")
    code = (
        f"import sys; sys.path.append({str(HERE)!r})\n"
        "import torch, edgewise as ew; from zoo import build\n"
        "small = ew.load(lambda: build('residual', seed=5)[0], 'plan.json', 'small.safetensors')\n"
        "torch.save(small(torch.load('x.pt')).detach(), 'y.pt')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert torch.allclose(torch.load(tmp_path / "y.pt"), small(x), rtol=1e-6, atol=1e-6)


def test_loading_into_something_else_is_refused(plan: ew.Plan, tmp_path: Path) -> None:
    graph, _ = jobs.make()
    path = ew.save(ew.prune(graph, plan), tmp_path / "small.safetensors")
    stored = plan.save(tmp_path / "plan.json")  # keeps the order in which the data flow
    for known in (plan, stored):
        with pytest.raises(PlanError, match=r"another network \(Body\).*no parameter 'blocks.0"):
            ew.load(lambda: build("dense")[0], known, path)
    narrow = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4))
    with pytest.raises(PlanError, match=r"another network.*no parameter 'stem\.0\.weight'"):
        ew.load(lambda: narrow, plan, path)  # cannot even run on the plan's inputs
    with pytest.raises(TraceError, match=r"takes an nn\.Module, got str"):
        ew.load(lambda: "a model", plan, path)
    other = ew.save(ew.prune(graph, graph.empty), tmp_path / "other.safetensors")
    with pytest.raises(PlanError, match="are not those of the plan"):
        ew.load(lambda: build("residual")[0], plan, other)
    with pytest.raises(PlanError, match="cannot be read"):
        ew.load(lambda: build("residual")[0], plan, tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ZOO)
def test_weights_of_every_zoo_model_round_trip(name: str, tmp_path: Path) -> None:
    """Also those with tied weights."""
    graph, other = traced(name), traced(name, seed=3)
    mask = graph.mask([0])
    small = ew.prune(graph, mask)
    path = ew.save(small, tmp_path / "small.safetensors")
    from safetensors.torch import load_model

    again = ew.prune(other, mask)
    load_model(again, str(path))
    worst, _ = compare(small, again, graph.program.arguments)
    assert worst == 0.0
