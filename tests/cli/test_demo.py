"""The demo, run whole: what a newcomer sees first must work."""

import html
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import edgewise as ew
from edgewise.cli.app import app
from edgewise.cli.demo import DemoResult, DigitsNet, accuracy, digits, one_thread, run_demo

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md", "docs/report.md", "docs/storage.md", "docs/bench.md", "docs/howto/own_model.md",
    "docs/howto/using.md",
]  # fmt: skip
FEWER = {"run": ["--evaluations", "12"], "bench": ["--evaluations", "12", "--seeds", "0"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("first") / "edgewise-demo"


@pytest.fixture(scope="module")
def result(folder: Path) -> DemoResult:
    """The demo, run once for the tests of what it leaves."""
    told: list[Any] = []
    random = torch.get_rng_state()
    result = run_demo(folder, say=lambda _: None, progress=told.append)
    assert torch.equal(torch.get_rng_state(), random)
    assert len(told) >= 90
    return result


@pytest.mark.xdist_group("demo")
def test_the_demo_prunes_half_and_keeps_the_accuracy(
    result: DemoResult, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpruned, pruned, tuned = (result.rows[n] for n in ("unpruned", "pruned", "fine-tuned"))
    assert unpruned["accuracy"] > 0.95
    assert pruned["macs"] <= 0.5 * unpruned["macs"]
    assert pruned["params"] < unpruned["params"]
    assert tuned["accuracy"] > 0.95
    assert tuned["loss"] < pruned["loss"]
    small = ew.load(DigitsNet, result.files["plan"], result.files["weights"])
    x, y = digits().report
    with torch.no_grad():
        assert float(accuracy(small(x), y).mean()) == tuned["accuracy"]
    page, names = result.files["report"].read_text(), dict[str, Any]()
    assert "fewer MACs" in page
    load = re.search(r"<h2>How to load it</h2><pre[^>]*>(.*?)</pre>", page, re.S)
    assert load is not None
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    exec(html.unescape(load[1]), names)
    assert torch.equal(names["small"](x), small(x))


@pytest.mark.xdist_group("demo")
@pytest.mark.usefixtures("result")
def test_the_commands_of_the_pages_run_on_what_it_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, in a folder that is not the repository's, with fewer masks.

    Those that go on from the README's; others say on their page what they need.
    """
    monkeypatch.chdir(folder.parent)
    for page in PAGES:
        blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
        lines = [shlex.split(line, comments=True) for block in blocks for line in block.split("\n")]
        found = [words for words in lines if words[:1] == ["edgewise"] and "--live" not in words]
        assert found, page
        for _, name, *words in found:
            result = CliRunner().invoke(app, [name, *words, *FEWER.get(name, [])])
            assert result.exit_code == 0, f"{page}: {name} {words}: {result.output}"
    assert Path("job-pruned/report.html").exists()


def test_the_splits_are_disjoint_and_complete() -> None:
    data = digits()
    parts = [data.train, data.search, data.verify, data.report]
    assert [len(y) for _, y in parts] == [800, 300, 300, 397]
    rows = torch.cat([x.flatten(1) for x, _ in parts])
    assert len(torch.unique(rows, dim=0)) == len(rows) == 1797


def test_threads_are_given_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
