"""The command line as users run it: whole jobs on a tiny network, mistakes, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import edgewise as ew
from edgewise.cli import app
from edgewise.cli import screen as console
from edgewise.cli.job import job as steps
from edgewise.cli.job.sources import load_function
from edgewise.errors import EdgewiseWarning, FormError
from edgewise.evaluation.records import Progress
from edgewise.pruning import prune as pruning
from edgewise.pruning.edits import from_dict
from edgewise.pruning.plan import Plan
from edgewise.values.quantities import duration
from edgewise.values.version import __version__

CODE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self, width=4, blocks=2, scale=1.0):
        super().__init__()
        self.scale = scale
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)) * self.scale)


def make(**arguments):
    torch.manual_seed(0)
    return Net(**arguments)


def chain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""
JOB = """
[model]
source = "net.py:make"
arguments = { blocks = 3 }
input = [3, 6, 6]

[data]
source = "data.parquet"
search = "0:24"
verify = "24:48"
report = "48:"
batch = 16
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]

[objective]
recovery = "batchnorm"

[calibration]
source = "train.parquet"
rows = "0:16"

[units]
granularity = ["edge"]

[budget]
macs = 0.75

[search]
evaluations = 10
surrogate = "Linear"
finalists = 2
"""
OUTPUTS = ("plan.json", "pruned.safetensors", "evaluations.csv", "report.html", "study.db")


def write_images(path: Path, count: int, seed: int) -> None:
    """Rows of random images [6, 6, 3] as nested lists, and labels 0-2."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8).tolist()
    pq.write_table(pa.table({"image": images, "label": rng.integers(0, 3, count).tolist()}), path)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(CODE)
    write_images(tmp_path / "data.parquet", 72, seed=0)
    write_images(tmp_path / "train.parquet", 16, seed=1)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def call(*words: object) -> Any:
    return CliRunner().invoke(app.app, [str(word) for word in words])


def said(result: Any) -> str:
    """Everything on both streams, with line breaks as blanks."""
    return " ".join(result.output.split())


def test_a_whole_job(job: Path) -> None:
    result = call("run", job)
    assert result.exit_code == 0, result.output
    folder = job.parent / "job-pruned"
    for name in OUTPUTS:
        assert (folder / name).exists()
        assert name == "study.db" or str(folder / name) in result.stdout
    plan = Plan.load(folder / "plan.json")
    assert plan.after.macs <= 0.75 * plan.before.macs
    assert f"{plan.before.params:,}" in result.stdout
    assert f"{plan.after.params:,}" in result.stdout
    assert f"{plan.measured['report'].loss:.4f}" in result.stdout
    assert "Measured on the report split" in result.stdout
    assert "leave-one-out: 1/10" in result.stderr
    first, *_ = (line for line in result.stderr.splitlines() if not line.startswith("Reading"))
    assert first.startswith("Unpruned, on the 24 examples of the search split: accuracy 0.")
    assert "One mask takes " in said(result)
    assert "s: the search about 0:00:0" in said(result)
    assert max(map(len, result.stderr.splitlines())) <= 80
    assert "\x1b" not in result.output
    params = sum(t.numel() for k, t in load_file(folder / "pruned.safetensors").items()
                 if "running" not in k and "batches" not in k)  # fmt: skip
    assert params == plan.after.params


def test_a_run_warns_where_it_sees_something_else_than_expected(job: Path) -> None:
    words = "Warning: [objective] expected accuracy 0.9, measured 0."
    job.write_text(JOB.replace("[objective]", "[objective]\nexpected = 0.9"))
    assert words in said(call("run", job))
    seen = Plan.load(job.parent / "job-pruned" / "plan.json").measured["search"]
    known = round(seen.unpruned_metrics["accuracy"], 2)
    job.write_text(JOB.replace("[objective]", f"[objective]\nexpected = {known}"))
    assert "expected accuracy" not in said(call("run", job))


def test_a_run_without_recovery_says_how_to_add_one(job: Path) -> None:
    without = JOB.replace('recovery = "batchnorm"', "")
    job.write_text(without[: without.index("[calibration]")] + without[without.index("[units]") :])
    result = call("run", job)
    assert result.exit_code == 0, result.output
    assert "No recovery is set, and 6 batch norms keep statistics" in said(result)
    assert "[calibration] with rows" in said(result)


OWN_LOSS = """

WEIGHT = 1.0


def weighted(outputs, targets):
    return WEIGHT * torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
"""
CHANGES = [
    ("job.toml", "{ blocks = 3 }", "{ blocks = 3, scale = 2.0 }", "another graph"),
    ("net.py", "T = 1.0", "T = 5.25", "another objective"),
    ("job.toml", "0:24", "0:20", "another objective"),
    ("job.toml", "mean = [0.5", "mean = [0.4", "another objective"),
]


def test_a_study_that_began_otherwise_is_not_resumed(job: Path) -> None:
    """Whatever is another; the last is given another name, as the message says."""
    (job.parent / "net.py").write_text(CODE + OWN_LOSS)
    job.write_text(job.read_text().replace("[objective]", '[objective]\nloss = "net.py:weighted"'))
    assert call("run", job).exit_code == 0
    for file, before, after, message in CHANGES:
        text = (job.parent / file).read_text()
        assert before in text
        (job.parent / file).write_text(text.replace(before, after))
        for name, module in list(sys.modules.items()):  # a file of the user's is run once a process
            if getattr(module, "__file__", None) == str(job.parent / "net.py"):
                del sys.modules[name]
        result = call("run", job)
        assert result.exit_code == 1
        assert message in said(result)
        assert "Resuming" not in said(result)
        pasted = result.stderr.partition("paste into job.toml:")[2].strip()
        changed = (job.parent / file).read_text()
        (job.parent / file).write_text(text)
    job.write_text(f"{changed}\n{pasted}\n")
    assert call("run", job).exit_code == 0


@pytest.fixture
def interrupted(job: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The result of a run that Ctrl-C ends after four evaluations."""

    def stop(now: Progress) -> None:
        if now.done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(console, "lines", lambda say: stop)
        return call("run", job)


def test_an_interrupted_job_is_resumed_to_the_same_plan(job: Path, interrupted: Any) -> None:
    first = interrupted
    assert first.exit_code == 130
    assert first.stderr.splitlines()[-1] == app.KEPT
    assert not (job.parent / "job-pruned" / "plan.json").exists()
    second = call("run", job)
    assert second.exit_code == 0, second.output
    assert "Resuming study 'job': 4 evaluations" in said(second)
    resumed = json.loads((job.parent / "job-pruned" / "plan.json").read_text())
    job.write_text(JOB + '[output]\ndirectory = "again"\n')
    assert call("run", job).exit_code == 0
    fresh = json.loads((job.parent / "again" / "plan.json").read_text())
    assert resumed == fresh


@pytest.mark.usefixtures("no_clock")
def test_a_job_keeps_a_latency_budget_and_its_table(job: Path) -> None:
    text = JOB.replace("macs = 0.75", 'latency = "80%"')
    job.write_text(text)
    result = call("run", job)
    assert result.exit_code == 0, result.output
    folder = job.parent / "job-pruned"
    plan = Plan.load(folder / "plan.json")
    assert plan.latency is not None
    assert plan.latency.met
    assert plan.latency.target["batch"] == 1
    assert "Measuring how long operators take; latency.json keeps it" in said(result)
    assert "Latency of the pruned model" in said(result)
    assert duration(plan.latency.seconds) in result.stdout
    assert f"limit {duration(plan.latency.limit)}" in said(result)
    page = (folder / "report.html").read_text()
    assert "Latency of the pruned model" in page
    assert "within latency=80%" in page
    before = (folder / "latency.json").read_text()
    again = call("run", job)
    assert again.exit_code == 0, again.output
    assert "Measuring how long" not in said(again)
    assert (folder / "latency.json").read_text() == before
    assert call("report", job).exit_code == 0
    job.write_text(text + "[latency]\nbatch = 8\n")
    other = call("run", job)
    assert other.exit_code == 1
    assert "measured with batch = 1, but this is 8" in said(other)
    assert "remove" in said(other)
    assert call("report", job).exit_code == 0


def test_options_replace_what_the_file_says(job: Path) -> None:
    result = call("run", job, "--budget", "params=0.8", "--budget", "macs=0.9", "--evaluations", 5,
                  "--certify", 4, "--patience", 2)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "of 4 fresh random masks at the budget" in said(result)
    page = " ".join((job.parent / "job-pruned" / "report.html").read_text().split())
    assert "of 4 fresh random masks at the budget" in page
    plan = Plan.load(job.parent / "job-pruned" / "plan.json")
    assert plan.budget == {"params": 0.8, "macs": 0.9}
    assert plan.provenance["evaluations"] <= 5


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (["--ray", "{job}"], ""),
        (["{job}", "--ray"], ""),
        (["{job}", "--ray", "auto", "--quiet"], "auto"),
        (["--ray", "10.0.0.1:6379", "{job}"], "10.0.0.1:6379"),
        (["--ray", "--seed", "1", "{job}"], ""),
        (["{job}"], None),
    ],
)
def test_an_address_may_follow_ray(
    job: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], address: str | None
) -> None:
    seen = []
    monkeypatch.setattr(
        app, "run_job", lambda config, screen, port: seen.append((config.ray, port))
    )
    result = call("run", *(word.format(job=job) for word in words))
    assert result.exit_code == 0, said(result)
    ((ray, port),) = seen
    assert (ray and ray.address) == {None: None, "": "local"}.get(address, address)
    assert port is None


@pytest.mark.parametrize(
    ("words", "port"),
    [(["--live", "{job}"], 8642), (["{job}", "--live"], 8642), (["{job}", "--live", "0"], 0)],
)
def test_a_port_may_follow_live(
    job: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], port: int
) -> None:
    seen = []
    monkeypatch.setattr(app, "run_job", lambda config, screen, port: seen.append(port))
    result = call("run", *(word.format(job=job) for word in words))
    assert result.exit_code == 0, said(result)
    assert seen == [port]
    result = call("run", str(job), "--live", "99999")
    assert result.exit_code == 2
    assert "port" in said(result)


def test_a_plan_is_applied_again_without_data(job: Path) -> None:
    assert call("run", job).exit_code == 0
    (job.parent / "data.parquet").unlink()
    folder = job.parent / "job-pruned"
    result = call("prune", job, folder / "plan.json", "--output", job.parent / "more")
    assert result.exit_code == 0, result.output
    first = load_file(folder / "pruned.safetensors")
    again = load_file(job.parent / "more" / "pruned.safetensors")
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


MODULE = JOB + '[result]\nform = "module"\n'
HEAL = '[heal]\nrows = "0:16"\nsource = "train.parquet"\nepochs = 1\n'


@pytest.fixture
def functional(job: Path) -> Path:
    """A job for the module form, of a network with calls of functions as units."""
    before = "return self.head(self.blocks(self.stem(x))"
    after = "x = self.stem(x)\n        return self.head(self.blocks(x.sin() + x.tanh())"
    assert before in CODE
    code = CODE.replace(before, after)
    (job.parent / "net.py").write_text(code)
    job.write_text(MODULE + HEAL)
    return job


@pytest.mark.filterwarnings("ignore:None of 1 epochs")
def test_a_job_ends_in_the_models_own_class(
    functional: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healed, forms = pruning.prune, []
    monkeypatch.setattr(
        pruning, "prune", lambda *job, form: forms.append(form) or healed(*job, form=form)
    )
    result = call("run", functional)
    assert result.exit_code == 0, result.output
    assert "Looking which of" in said(result)
    assert "Left out of the search: 2 of 8 units" in said(result)
    folder = functional.parent / "job-pruned"
    plan = Plan.load(folder / "plan.json")
    assert not any("sin" in name for name in plan.removed)
    make = load_function(f"{functional.parent}/net.py:make")
    for name in ("pruned", "healed"):
        small = ew.load(lambda: make(blocks=3), plan, folder / f"{name}.safetensors")
        assert type(small).__name__ == "Net"
    assert "ew.load(make_model" in (folder / "report.html").read_text()
    words = ("prune", functional, folder / "plan.json", "--output", folder / "program")
    assert forms == ["module"]
    monkeypatch.setattr(steps, "prune", lambda *_, form: forms.append(form) or small)
    assert call(*words, "--form", "program").exit_code == 0
    assert forms == ["module", "program"]
    assert call("report", functional).exit_code == 0


def test_a_plan_without_the_form_keeps_all_but_the_weights(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, form: str) -> None:
        raise FormError(f"no {form}")

    monkeypatch.setattr(steps, "prune", refuse)
    job.write_text(MODULE)
    result = call("run", job)
    assert result.exit_code == 1
    assert "Error: no module" in said(result)
    kept = {path.name for path in (job.parent / "job-pruned").iterdir()}
    assert {*OUTPUTS, "module_form.json"} - kept == {"pruned.safetensors"}


def test_inspect_shows_what_a_plan_does_to_modules(job: Path) -> None:
    assert call("run", job).exit_code == 0
    path = job.parent / "job-pruned" / "plan.json"
    edits = Plan.load(path).edits
    result = call("inspect", "--plan", path)
    assert result.exit_code == 0, result.output
    for module, edit in from_dict(edits).items():
        assert module in result.stdout
        assert str(edit)[:30] in said(result)
    assert json.loads(call("inspect", "--plan", path, "--json").stdout) == {"edits": edits}


@pytest.mark.parametrize(
    ("edits", "words"),
    [({"reason": "it does without sin"}, "it does without sin"), ({}, "it does not say why")],
)
def test_inspect_says_why_a_plan_has_no_module_form(
    job: Path, monkeypatch: pytest.MonkeyPatch, edits: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(Plan, "load", lambda path: types.SimpleNamespace(edits=edits))
    result = call("inspect", "--plan", job.parent / "plan.json")
    assert "plan.json has no module form: " in said(result)
    assert words in said(result)


def test_inspect_tells_the_units_of_the_module_form(functional: Path) -> None:
    words = ("inspect", f"{functional.parent}/net.py:make", "--input", "3,6,6", "--form", "module")
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "own class" in result.stdout
    data = json.loads(call(*words, "--json").stdout)
    assert set(data["without_module_form"]) < {unit["name"] for unit in data["units"]}
    for name in data["without_module_form"]:
        assert f"{name}: The code of" in said(result)


def test_a_plan_of_another_model_fails(job: Path) -> None:
    assert call("run", job).exit_code == 0
    job.write_text(JOB.replace("blocks = 3", "blocks = 2"))
    result = call("prune", job, job.parent / "job-pruned" / "plan.json")
    assert result.exit_code == 1
    assert "The plan was made for graph" in said(result)
    result = call("run", job)
    assert result.exit_code == 1
    assert "was made with another graph" in said(result)


@pytest.mark.usefixtures("interrupted")
def test_the_report_of_a_study_so_far(job: Path) -> None:
    page = job.parent / "job-pruned" / "report.html"
    assert not page.exists()
    result = call("report", job)
    assert result.exit_code == 0, result.output
    assert page.exists()
    assert str(page) in result.stdout
    assert not (page.parent / "plan.json").exists()


def test_the_report_of_a_finished_study_shows_its_plan(job: Path) -> None:
    assert call("run", job).exit_code == 0
    page = job.parent / "job-pruned" / "report.html"
    whole = page.read_text()
    page.unlink()
    assert call("report", job).exit_code == 0
    assert page.read_text() == whole


def test_a_report_needs_evaluations(job: Path) -> None:
    result = call("report", job)
    assert result.exit_code == 1
    assert "has no evaluation yet: run `edgewise run job.toml`" in said(result)


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("macs = 0.75", "mac = 0.7", 2, "[budget] has no key 'mac'. Did you mean 'macs'?"),
        ("[budget]\nmacs = 0.75", "", 2, "job.toml has no [budget]"),
        ("macs = 0.75", "macs = 1", 1, "budget"),
        ("net.py:make", "nets.py:make", 2, "There is no file"),
        ("net.py:make", "net.py:chain", 2, "unexpected keyword argument 'blocks'"),
        ("input = [3, 6, 6]", "input = [1, 6, 6]", 1, "fails in eval mode on the example inputs"),
        ("input = [3, 6, 6]", "input = [3, 8, 8]", 2, "have shape [3, 6, 6]"),
        ('report = "48:"', 'report = "72:"', 2, "rows 72: are asked for, but only 0"),
        ('search = "0:24"', 'search = "0:25"', 2, "splits must be disjoint"),
        ('"Linear"', '"magic"', 2, 'got "magic"'),
    ],
)
def test_mistakes_in_a_job(job: Path, old: str, new: str, code: int, words: str) -> None:
    assert old in JOB
    job.write_text(JOB.replace(old, new))
    result = call("run", job)
    assert result.exit_code == code, result.output
    assert "Error: " in result.stderr
    assert words in said(result)
    assert "Traceback" not in result.output


def test_debug_adds_the_traceback(job: Path) -> None:
    job.write_text(JOB.replace("macs = 0.75", "mac = 0.7"))
    result = call("run", job, "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "job.toml", "--evaluations", "0"),
        ("run", "none.toml"),
        ("prune", "none.toml", "plan.json"),
        ("bake",),
        ("demo", "--seed", "-1"),
        ("inspect",),
        ("inspect", "resnet18"),
        ("inspect", "torchvision:resnet18", "--plan", "plan.json"),
        ("inspect", "torchvision:resnet18", "--form", "class"),
        ("inspect", "torchvision:resnet18", "--input", "3,x"),
        ("inspect", "torchvision:resnet18", "--input", "0,3"),
        ("inspect", "torchvision:resnet18", "--granularity", "edges"),
        ("inspect", "torchvision:resnet18", "--weights", "none.pt"),
    ],
)
def test_wrong_usage_gives_2(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


def test_a_plan_that_is_no_plan_fails(job: Path) -> None:
    (job.parent / "plan.json").write_text("{}")
    result = call("prune", job, job.parent / "plan.json")
    assert (result.exit_code, "is not a plan" in said(result)) == (1, True)


def test_every_result_can_be_had_as_data(job: Path) -> None:
    """Nothing else is on the standard output, and the files are named."""
    folder = job.parent / "job-pruned"
    found = json.loads(call("run", job, "--json").stdout)
    assert found["plan"]["bits"] == Plan.load(folder / "plan.json").bits
    assert str(folder / "pruned.safetensors") in found["files"]
    again = json.loads(call("prune", job, folder / "plan.json", "--json").stdout)
    assert again["plan"] == found["plan"]
    assert again["promises"] == found["promises"]
    assert "95 % interval" in " ".join(found["promises"])
    assert again["files"] == [str(folder / "pruned.safetensors")]
    assert json.loads(call("report", job, "--json").stdout) == {
        "files": [str(folder / "report.html")]
    }
    wrong = call("prune", job, job, "--json")
    assert (wrong.exit_code, wrong.stdout) == (1, "")


def test_bench_compares_methods_and_keeps_what_it_found(job: Path) -> None:
    result = call("bench", job, "--evaluations", "12", "--seeds", "0,1", "--methods",
                  "random,greedy,taylor")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:-3])) <= 80
    for method in ("random", "greedy", "taylor"):
        assert method in result.stdout
    folder = job.parent / "job-pruned"
    rows = json.loads((folder / "bench.json").read_text())
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("random", 0), ("greedy", 0), ("taylor", 0), ("random", 1)
    ]  # fmt: skip
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    again = call("bench", job, "--evaluations", "12", "--seeds", "0,1", "--methods",
                 "random,greedy,taylor", "--json")  # fmt: skip
    assert json.loads(again.stdout)["rows"] == rows
    wrong = call("bench", job, "--methods", "gredy")
    assert (wrong.exit_code, "No method is called 'gredy'" in said(wrong)) == (1, True)
    assert call("bench", job, "--seeds", "a").exit_code == 2


def test_bad_budgets_on_the_command_line(job: Path) -> None:
    result = call("run", job, "--budget", "flops=0.7")
    assert result.exit_code == 2
    assert "no limit is called 'flops'" in said(result)


def test_inspect_shows_units_with_what_they_save(job: Path) -> None:
    source = f"{job.parent}/net.py:make"
    result = call("inspect", source, "--input", "3,6,6")
    assert result.exit_code == 0, result.output
    assert "│ 1 edge, 2 layer │" in result.stdout
    assert "│   blocks.0 branch" in result.stdout
    assert "│   blocks.1 conv2 bypass" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_inspect_as_json(job: Path) -> None:
    result = call(
        "inspect",
        f"{job.parent}/net.py:make",
        "--input",
        "3,6,6",
        "--granularity",
        "edge",
        "--json",
    )
    data = json.loads(result.stdout)
    unit = next(u for u in data["units"] if u["name"] == "blocks.0.conv1..blocks.0.bn2")
    assert (unit["kind"], unit["block"]) == ("edge", "blocks.0")
    assert unit["saves"]["params"] == 2 * (4 * 4 * 9 + 2 * 4)
    assert data["cost"]["params"] == 3 * 4 * 9 + 4 + 2 * unit["saves"]["params"] + 4 * 3 + 3


def test_inspecting_a_chain_without_units_fails(job: Path) -> None:
    result = call("inspect", f"{job.parent}/net.py:chain", "--input", "3,6,6")
    assert result.exit_code == 1
    assert "has no unit" in said(result)


def test_version() -> None:
    assert call("--version").stdout == f"edgewise {__version__}\n"


def test_it_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "edgewise", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"edgewise {__version__}\n"


def test_help_lists_the_commands_and_loads_no_torch() -> None:
    code = "import sys; sys.argv = ['edgewise', '--help']\nimport atexit, edgewise.cli.app as c\n"
    code += "atexit.register(lambda: print('torch' in sys.modules))\nc.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0
    for name in ("demo", "inspect", "run", "prune", "report"):
        assert name in result.stdout
    assert result.stdout.endswith("False\n")


def fake_demo(monkeypatch: pytest.MonkeyPatch, run_demo: Any) -> None:
    module = types.ModuleType("edgewise.cli.demo")
    module.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edgewise.cli.demo", module)


def test_the_demo_says_what_comes_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_demo(directory: Path, screen: Any, *, seed: int) -> None:
        screen.say(f"seed {seed}")
        screen.path(directory / "report.html")

    fake_demo(monkeypatch, run_demo)
    result = call("demo", "--directory", tmp_path, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "seed 3" in result.stderr
    words = f"Next: {app.NEXT.format(tmp_path.as_posix())}"
    assert words in result.stderr
    assert str(tmp_path / "report.html") in result.stdout


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (EdgewiseWarning("odd"), 0, "Warning: odd"),
    ],
)
def test_what_a_command_raises_becomes_a_message(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def run_demo(*_: Any, **__: Any) -> Any:
        if isinstance(error, Warning):
            warnings.simplefilter("always")
            warnings.warn(error, stacklevel=2)
        else:
            raise error

    fake_demo(monkeypatch, run_demo)
    result = call("demo")
    assert result.exit_code == code
    assert words in result.stderr
