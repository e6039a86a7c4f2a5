"""The demo, run whole: what a newcomer sees first must work."""

import html
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import edgewise as ew
from edgewise.cli import demo
from edgewise.cli.app import app
from edgewise.cli.demo import TRAIN, DigitsNet, digits
from edgewise.cli.job.config import read_config
from edgewise.cli.job.datasets import load_batches
from edgewise.cli.job.toml_sections import Rows

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md", "docs/report.md", "docs/storage.md", "docs/bench.md", "docs/howto/own_model.md",
    "docs/howto/using.md",
]  # fmt: skip
FEWER = {
    "run": ["--evaluations", "8"],
    "bench": ["--evaluations", "6", "--seeds", "0", "--methods", "edgewise,greedy"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("first") / "edgewise-demo"


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    """The demo, run once with a third of its evaluations for the tests of what it leaves."""
    assert "evaluations = 90\n" in demo.JOB
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "JOB", demo.JOB.replace("evaluations = 90\n", "evaluations = 30\n"))
        done = CliRunner().invoke(app, ["demo", "--directory", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.xdist_group("demo")
def test_the_demo_prunes_half_and_keeps_the_accuracy(
    result: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpruned, pruned, healed = (result["scores"][n] for n in ("unpruned", "pruned", "healed"))
    before, after = result["plan"]["before"], result["plan"]["after"]
    assert unpruned["accuracy"] > 0.95
    assert after["macs"] <= 0.5 * before["macs"]
    assert after["params"] < before["params"]
    assert healed["accuracy"] > 0.95
    assert healed["loss"] < pruned["loss"]
    assert all(Path(file).exists() for file in result["files"])
    page, names = (folder / "report.html").read_text(), dict[str, Any]()
    assert "fewer MACs" in page
    load = re.search(r"<h2>How to load it</h2><pre[^>]*>(.*?)</pre>", page, re.S)
    assert load is not None
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    exec(html.unescape(load[1]), names)
    x, _ = digits()
    small = ew.load(DigitsNet, "plan.json", "healed.safetensors")
    assert torch.equal(names["small"](x), small(x))
    data = read_config(folder / "job.toml").data
    read = torch.cat([inputs for inputs, _ in load_batches(data, Rows(0, None))])
    assert len(read) == len(x) - TRAIN  # what was trained on is not measured on
    files = {row.numpy().tobytes() for row in ((read + 1) * 127.5).round().int()}
    assert files == {row.numpy().tobytes() for row in ((x[TRAIN:] + 1) * 127.5).round().int()}


@pytest.mark.filterwarnings("ignore:None of .* epochs")  # so few digits may have nothing to teach
@pytest.mark.xdist_group("demo")
@pytest.mark.usefixtures("result")
def test_the_commands_of_the_pages_run_on_what_it_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, in a folder that is not the repository's; fewer masks, methods and digits.

    Those that go on from the README's; others say on their page what they need.
    """
    few = shutil.ignore_patterns("*[1-9].png")  # those whose number ends in 0 stay
    shutil.copytree(folder, tmp_path / folder.name, ignore=few)
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
        lines = [shlex.split(line, comments=True) for block in blocks for line in block.split("\n")]
        found = [words for words in lines if words[:1] == ["edgewise"] and "--live" not in words]
        assert found, page
        for _, name, *words in found:
            result = CliRunner().invoke(app, [name, *words, *FEWER.get(name, [])])
            assert result.exit_code == 0, f"{page}: {name} {words}: {result.output}"
    assert Path("job-pruned/report.html").exists()
