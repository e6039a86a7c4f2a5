"""The demo, run whole: what a newcomer sees first must work."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import edgewise as ew
from edgewise.cli.demo import DigitsNet, accuracy, digits, one_thread, run_demo


def test_the_demo_prunes_half_and_keeps_the_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, lines = [], []
    random = torch.get_rng_state()
    result = run_demo(tmp_path, say=lines.append, progress=told.append)
    assert torch.equal(torch.get_rng_state(), random)
    unpruned, pruned, tuned = (result.rows[n] for n in ("unpruned", "pruned", "fine-tuned"))
    assert unpruned["accuracy"] > 0.95
    assert pruned["macs"] <= 0.5 * unpruned["macs"]
    assert pruned["params"] < unpruned["params"]
    assert tuned["accuracy"] > 0.95
    assert tuned["loss"] < pruned["loss"]
    assert len(told) >= 90
    small = ew.load(DigitsNet, result.files["plan"], result.files["weights"])
    x, y = digits().report
    with torch.no_grad():
        assert float(accuracy(small(x), y).mean()) == tuned["accuracy"]
    page, names = result.files["report"].read_text(), dict[str, Any]()
    assert "fewer MACs" in page
    load = re.search(r"<h2>How to load it</h2><pre[^>]*>(.*?)</pre>", page, re.S)
    assert load is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec(html.unescape(load[1]), names)
    assert torch.equal(names["small"](x), small(x))


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
