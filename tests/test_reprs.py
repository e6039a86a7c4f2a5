"""What a console and a notebook show of the values that people hold."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from IPython.display import DisplayHandle

import edgewise as ew
import jobs
from edgewise.evaluation.bar import shown
from edgewise.evaluation.records import Progress


@pytest.fixture(scope="module")
def held() -> dict[str, Any]:
    """A value of each kind."""
    graph, objective = jobs.make(recovery="none")
    study = ew.Study(graph, objective, name="<digits>")
    study.run(16, ew.Budget(macs=0.7))
    return {
        "Graph": graph, "Objective": objective, "Study": study, "Plan": study.plan(),
        "Cost": ew.cost(graph), "Mask": graph.mask(range(len(graph.units))),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Graph", "Objective", "Study", "Plan", "Cost", "Mask"])
def test_a_value_is_a_line_in_a_console_and_a_small_table_in_a_notebook(
    held: dict[str, Any], name: str
) -> None:
    line, page = repr(held[name]), held[name]._repr_html_()
    assert line.startswith(f"{name}(")
    assert len(line) <= 240
    assert "\n" not in line
    assert page.startswith("<table")
    assert page.count("<tr>") in range(2, 9)
    assert "<digits>" not in page
    HTMLParser().feed(page)


def test_a_plan_says_what_it_saves_and_scores(held: dict[str, Any]) -> None:
    plan = held["Plan"]
    assert f"{len(plan.removed)} of {len(plan.bits)} units" in repr(plan)
    assert f"MACs: {plan.before.macs:,} → {plan.after.macs:,} (-" in repr(plan)
    assert f"accuracy {plan.measured['report'].metrics['accuracy']:.4g}" in repr(plan)
    assert plan.labels[0] in plan._repr_html_()


def test_a_long_mask_names_a_dozen_units(held: dict[str, Any]) -> None:
    graph = held["Graph"]
    assert repr(graph.mask([0, 2])) == f"Mask(2 of {len(graph.units)} units removed: 0, 2)"
    assert repr(graph.empty) == f"Mask(0 of {len(graph.units)} units removed)"
    long = ew.graph.graph.Mask((True,) * 40, "f")
    assert repr(long).endswith("10, 11, and 28 more)")


def test_progress_is_read_by_a_person() -> None:
    now = Progress("sampling", 50, 200, 0.412, 1, 10.0, 5.0)
    assert str(now) == "sampling: 50/200, 0:00:30 left, best loss 0.412, 1 failed"
    assert '<progress value="50" max="200">' in now._repr_html_()


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a notebook is given to show, in order."""
    seen: list[Any] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(
        "IPython.display.display", lambda now, display_id: seen.append(now) or DisplayHandle("one")
    )
    monkeypatch.setattr(DisplayHandle, "update", lambda handle, now: seen.append(now))
    return seen


def test_a_study_draws_a_bar_where_it_is_asked_to(
    held: dict[str, Any], display: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    study = ew.Study(held["Graph"], held["Objective"])
    study.run(8, ew.Budget(macs=0.7), progress=True)
    assert [now.done for now in display] == list(range(1, 9))
    study.plan(finalists=2, progress=True)
    assert display[-1].phase == "reporting"
    study.run(8, ew.Budget(macs=0.7), progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_callback_stays_what_it_is() -> None:
    with shown(print) as callback:
        assert callback is print
    with shown(None) as nothing, shown(False) as neither:
        assert nothing is neither is None
    with shown(True) as bar:
        assert bar is not None
        bar(Progress("sampling", 1, 2, None, 0, 0.0))
