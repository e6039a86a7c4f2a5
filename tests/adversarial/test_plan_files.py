"""Plans, jobs, tables and weights of strangers: read as they are, or one error with the name."""

import copy
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import edgewise as ew
import jobs
from edgewise.cli.job.config import Config, read_config
from edgewise.cli.job.healing import write_outcome
from edgewise.cli.job.job import _Compared, load_outcome
from edgewise.cli.job.kept import read_kept
from edgewise.errors import ConfigError, EdgewiseError, LatencyError, PlanError
from edgewise.latency.table import LatencyTable, Ratio, Target
from edgewise.pruning.plan import Measured
from edgewise.values.files import DEEPEST, sha256
from zoo import build, traced

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.just(-1), st.floats(),
    st.text(max_size=5),
    st.just(float("nan")), st.just("\x1b[31m"), st.just([]), st.just({}), st.just([[1.0, "a"]]),
    st.just({"a": {"b": [None]}}), st.just(2**63),
)  # fmt: skip
TEXTS = [b"", b"\xff\xfe\x00", b"\x80", b"{", b"[" * 10**5,
         b'{"a":' * 10**5, b"null", b"3", b'"a"', b"[]",
         b"\x00" * 64, b"NaN", b"1" * 5000, '{"schema": 3}'.encode("utf-16")]  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> ew.Plan:
    return jobs.plan_of(None, evaluations=16)


@pytest.fixture(scope="module")
def folder(plan: ew.Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    plan.save(folder / "plan.json")
    return folder


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of nested data are."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def mutated(draw: Callable[[Any], Any], data: Any) -> Any:
    """Data with something replaced, gone, added or nested."""
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.sampled_from(list(places(data))))
        holder = data
        for key in where[:-1]:
            holder = holder[key]
        how = draw(st.sampled_from(["replace", "replace", "replace", "delete", "nest", "add"]))
        if how == "replace":
            holder[where[-1]] = draw(ODD)
        elif how == "delete":
            del holder[where[-1]]
        elif how == "nest":
            holder[where[-1]] = [holder[where[-1]]]
        elif isinstance(holder, dict):
            holder["unknown"] = draw(ODD)
        else:
            holder.append(draw(ODD))
        if not list(places(data)):
            break
    return data


@settings(max_examples=100)
@given(st.data())
def test_a_changed_plan_is_read_as_it_is_or_refused(folder: Path, data: st.DataObject) -> None:
    found = mutated(data.draw, json.loads((folder / "plan.json").read_text()))
    path = folder / "changed.json"
    path.write_text(json.dumps(found))
    try:
        again = ew.Plan.load(path)
    except PlanError as error:
        assert "changed" in str(error) or "plan.tensors" in str(error) or "names" in str(error)  # noqa: PT017 - or it is read
        return
    kept = json.dumps(again.to_dict(), sort_keys=True)
    again.save(folder / "again.json")
    assert json.dumps(ew.Plan.load(folder / "again.json").to_dict(), sort_keys=True) == kept
    with suppress(EdgewiseError):  # nothing else comes of using it, either
        ew.prune(traced("residual"), again)


@settings(max_examples=40)
@given(st.data())
def test_a_changed_record_of_the_network_is_refused_or_fits(
    folder: Path, plan: ew.Plan, data: st.DataObject
) -> None:
    found = json.loads((folder / "plan.json").read_text())
    found["trace"] = mutated(data.draw, found["trace"])
    (folder / "changed.json").write_text(json.dumps(found))
    weights = folder / "small.safetensors"
    if not weights.exists():
        ew.save(ew.prune(traced("residual"), plan), weights)
    with suppress(EdgewiseError):
        ew.load(lambda: build("residual")[0], folder / "changed.json", weights)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text)
    with pytest.raises(PlanError, match=r"plan\.json"):
        ew.Plan.load(path)
    (tmp_path / "table.json").write_bytes(text)
    with pytest.raises(LatencyError, match=r"table\.json"):
        LatencyTable.load(tmp_path / "table.json")


def test_a_byte_order_mark_is_read_over(plan: ew.Plan, folder: Path, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text, encoding="utf-8-sig")
    assert ew.Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    "change",
    [
        {"bits": "0" * 5}, {"schema": True}, {"schema": "3"}, {"schema": 0}, {"unknown": 1},
        {"before": None}, {"removed": ["a", 3]}, {"measured": {"search": {"loss": float("nan")}}},
        {"provenance": {"deep": json.loads("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))}},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_values_are_named(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads((folder / "plan.json").read_text()) | change))
    with pytest.raises(PlanError, match=r"plan\.json"):
        ew.Plan.load(path)


def test_a_key_that_comes_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "plan.json").read_text().replace('"bits":', '"bits": "0",\n  "bits":', 1)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="'bits' twice"):
        ew.Plan.load(tmp_path / "plan.json")


def with_tensors(folder: Path, tmp_path: Path, entry: Any) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads((folder / "plan.json").read_text()) | {"tensors": entry}))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x.safetensors",
        "a/b",
        "..",
        ".",
        "",
        "a\\b",
        "C:x",
        "a\0b",
        "/dev/zero",
        3,
    ],
)
def test_tensors_are_a_bare_name(folder: Path, tmp_path: Path, name: Any) -> None:
    with pytest.raises(PlanError, match=r"beside it|must be a str"):
        ew.Plan.load(with_tensors(folder, tmp_path, {"file": name, "sha256": "0"}))


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "dangling"])
def test_tensors_are_a_regular_file(folder: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.safetensors"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if kind == "zero" else "nowhere")
    with pytest.raises(PlanError, match=r"x\.safetensors"):
        ew.Plan.load(with_tensors(folder, tmp_path, {"file": place.name, "sha256": "0"}))


@pytest.mark.parametrize("kind", ["pipe", "zero"])
def test_plans_and_jobs_are_regular_files(tmp_path: Path, kind: str) -> None:
    for name, read, error in (
        ("plan.json", ew.Plan.load, PlanError),
        ("table.json", LatencyTable.load, LatencyError),
        ("job.toml", read_config, ConfigError),
    ):
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(error, match="no regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize("shape", [[10**12, 10**12], [2**40], [-1, 3], [3.5], ["a"], [10**30]])
def test_sizes_are_checked_before_anything_is_made(
    folder: Path, tmp_path: Path, shape: list[Any]
) -> None:
    data = json.loads((folder / "plan.json").read_text())
    data["trace"]["inputs"][0][1] = shape
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"inputs|shape|elements"):
        ew.Plan.load(tmp_path / "plan.json")


def test_recovered_tensors_must_fit_the_network(plan: ew.Plan) -> None:
    graph, _ = jobs.make()
    name = next(n for n, t in plan.tensors.items() if t.numel() > 1)
    tensor = plan.tensors[name]
    for odd in (tensor[:1], tensor.long(), tensor[None]):
        with pytest.raises(PlanError, match="but the pruned model has it as"):
            ew.prune(graph, replace(plan, tensors={**plan.tensors, name: odd}))


def test_recovered_tensors_hold_no_nan(plan: ew.Plan, folder: Path, tmp_path: Path) -> None:
    broken = {name: torch.full_like(t, float("nan")) for name, t in plan.tensors.items()
              if t.is_floating_point()}  # fmt: skip
    save_file(broken, tmp_path / "x.safetensors")
    entry = {"file": "x.safetensors", "sha256": sha256(tmp_path / "x.safetensors")}
    with pytest.raises(PlanError, match="holds NaN"):
        ew.Plan.load(with_tensors(folder, tmp_path, entry))


def header(table: Any, body: bytes = b"") -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x" * 7, struct.pack("<Q", 2**63), header([]), header({"a": 3}),
        header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    ],
)  # fmt: skip
def test_weights_that_are_none_are_refused(plan: ew.Plan, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "small.safetensors").write_bytes(content)
    with pytest.raises(PlanError, match=r"small\.safetensors"):
        ew.load(lambda: build("residual")[0], plan, tmp_path / "small.safetensors")


def test_weights_of_another_kind_are_refused(plan: ew.Plan, tmp_path: Path) -> None:
    path = ew.save(small := ew.prune(jobs.make()[0], plan), tmp_path / "small.safetensors")
    state = {name: t.clone() for name, t in small.state_dict().items()}
    name = next(name for name, t in state.items() if t.is_floating_point())
    for odd in (state[name].long(), state[name].flatten()[:1]):
        save_file({**state, name: odd}, path)
        with pytest.raises(PlanError, match="not those of the plan"):
            ew.load(lambda: build("residual")[0], plan, path)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    target = Target("a machine", "cpu", 1, 1, "float32", "2.6")
    ratio = Ratio("01", 0.5, (0.4, 0.6), 9, (1.0, 0.5))
    return LatencyTable("f" * 64, target, 1.0, ((0.0, 1e-9, 0.0, 0.5),) * 3, (ratio,))


@settings(max_examples=100)
@given(st.data())
def test_a_changed_latency_table_is_read_as_it_is_or_refused(
    table: LatencyTable, folder: Path, data: st.DataObject
) -> None:
    path = folder / "table.json"
    found = mutated(data.draw, json.loads(json.dumps(table.to_dict())))
    path.write_text(json.dumps(found))
    try:
        again = LatencyTable.load(path)
    except LatencyError as error:
        assert "table.json" in str(error)  # noqa: PT017 - or it is read
    else:
        assert np.isfinite(np.array(again.parts)).all()
        again.save(path)
        assert LatencyTable.load(path) == again


JOB = {
    "model": {"source": "model.py:make", "input": [3, 8, 8], "arguments": {"width": 8}},
    "data": {"source": "data.parquet", "mean": [0.5], "std": [0.5], "search": "0:10",
             "verify": "10:20", "report": "20:", "batch": 5},
    "budget": {"macs": 0.7}, "search": {"evaluations": 20, "seed": 1},
    "study": {"storage": "sqlite:///runs.db", "name": "job"},
    "heal": {"rows": "30:40", "epochs": 2, "lr": 0.1},
    "units": {"granularity": ["edge", "layer"], "slices": 4},
}  # fmt: skip


def toml(value: Any) -> str:
    """A value as TOML has it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float) and value - value != 0:
        return str(value).replace("Infinity", "inf")
    return '""' if value is None else json.dumps(value)


@settings(max_examples=150)
@given(st.data())
def test_a_changed_job_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    found = mutated(data.draw, JOB)
    path = folder / "job.toml"
    text = "\n".join(f"{json.dumps(name)} = {toml(value)}" for name, value in found.items())
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        config = read_config(path)
    except ConfigError as error:
        assert "job.toml" in str(error)  # noqa: PT017 - or it is read
    else:
        assert read_config(path) == config


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a = " + b"[" * 10**5, b"a = 1\na = 2", b"\0"])
def test_what_is_no_job_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "job.toml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"job\.toml"):
        read_config(tmp_path / "job.toml")


@settings(max_examples=100)
@given(st.data())
def test_changed_outcomes_and_comparisons_are_read_or_refused(
    plan: ew.Plan, folder: Path, data: st.DataObject
) -> None:
    (folder / "own.toml").write_text('[model]\nsource = "m.py:f"\n[data]\nsource = "d.py:f"\n')
    config: Config = read_config(folder / "own.toml")
    path = write_outcome(config, plan, Measured(1.0, {"a": 0.5}, 3, 2.0, {"a": 0.25}))
    found = mutated(data.draw, json.loads(path.read_text()))
    path.write_text(json.dumps(found))
    rows = [{"method": "random", "seed": 0, "history": [None, 1.0, 0.5]}]
    (folder / "bench.json").write_text(json.dumps(mutated(data.draw, rows)))
    for look in (
        lambda: load_outcome(config, plan),
        lambda: read_kept(folder / "bench.json", list[_Compared]),
    ):
        try:
            look()
        except PlanError as error:
            assert ".json is damaged" in str(error)  # noqa: PT017 - or it is read
