"""Modules, studies and metrics may have any name."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

import edgewise as ew
from edgewise.cli.app import app
from edgewise.evaluation.records import Evaluation
from edgewise.pruning.verify import compare
from edgewise.report import render
from edgewise.study.storage.storage import Storage
from identities import belonging

NAMES = [
    'a"b', "a'b", "a\nb", "a\\b", "a\\", "a[0]", "[red]x", "a b", "a: b", "a->b", "class",
    "None", "3", "</script><script>alert(1)</script>", "<!--", "&amp;", "\x1b[31mred", "a\0b", "ﬁ",
    "fi", '"), __import__("os")._exit(3), getattr(self, "a'.replace(".", "_"), "{x}", "%s", "#",
    "‮", "=1+1",
]  # fmt: skip


class Block(nn.Module):
    """A residual branch whose layer has any name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self._modules[self.name](x))


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module(name, Block(name))
    model.add_module("last", nn.Sequential(Block(name), nn.Linear(4, 2)))
    return model


class _Texts(HTMLParser):
    """What an HTML page says, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_trace_prune_save_load_and_report(name: str, tmp_path: Path) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    model = make(name)
    graph = ew.trace(model, (x,))
    assert graph.frontend == "torch.fx"
    assert any(name in unit.name for unit in graph.units)
    assert torch.equal(graph.program.module(x), model.eval()(x))
    mask = graph.mask([0])
    small = ew.prune(graph, mask)
    difference, allowed = compare(ew.masked(graph, mask), small, (x,))
    assert difference <= allowed
    ew.save(small, tmp_path / "small.safetensors")
    records = [Evaluation(str(graph.empty), "search", 1.0, origin="unpruned")]
    page = render(graph, records, None, title=name)
    plain = render(graph, records, None, title="plain")
    seen, usual = _Texts(), _Texts()
    seen.feed(page)
    usual.feed(plain)
    assert seen.scripts == usual.scripts


@pytest.mark.parametrize("name", ['a"\n\\b', "</script>", "a: b"])
def test_plans_name_their_units_as_the_model_does(name: str, tmp_path: Path) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    graph = ew.trace(make(name), (x,))
    data = [(x, torch.zeros(8, dtype=torch.long))]
    study = ew.Study(graph, ew.Objective(data, loss=nn.functional.cross_entropy))
    study.run(4, ew.Budget(macs=0.8))
    plan = ew.Plan.load(study.plan(finalists=2).save(tmp_path / "plan.json"))
    small = ew.prune(graph, plan)
    weights = ew.save(small, tmp_path / "small.safetensors")
    again = ew.load(lambda: make(name), plan, weights)
    assert torch.equal(again(x), small.eval()(x))


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=12).filter(lambda text: "." not in text))
def test_any_name_traces_and_prunes(name: str) -> None:
    x = torch.ones(2, 4)
    if hasattr(Block("layer"), name) or hasattr(nn.Sequential(), name):
        return  # not a name that a module may have
    graph = ew.trace(make(name), (x,))
    assert ew.prune(graph, graph.mask([0]))(x).shape == (2, 2)


def test_names_cannot_run_code_when_a_program_is_generated() -> None:
    name = 'a"), print("run"), getattr(self, "a'
    graph = ew.trace(make(name), (torch.ones(2, 4),))
    assert 'print("run")' not in graph.program.module.code


def test_inspection_shows_names_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "from torch import nn\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.add_module('[red]\\x1b[31m', nn.Linear(4, 4))\n"
        "    def forward(self, x):\n"
        "        return x + self._modules['[red]\\x1b[31m'](x)\n"
        "def make():\n"
        "    return nn.Sequential(Block(), nn.Linear(4, 2))\n"
    )
    result = CliRunner().invoke(app, ["inspect", f"{file}:make", "--input", "4"])
    assert result.exit_code == 0
    assert "[red]" in result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize("name", [n for n in NAMES if "\0" not in n])
def test_studies_of_any_name_are_found_again(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    Storage(url, name, belonging()).add(Evaluation("0", "search", 1.0))
    assert len(Storage(url, name, None).evaluations()) == 1
