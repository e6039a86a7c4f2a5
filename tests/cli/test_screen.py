"""Progress as a bar or as lines, and what goes to which stream."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from edgewise.cli.screen import Screen, lines
from edgewise.evaluation.records import Progress


def at(
    done: int, phase: str = "sampling", seconds: float = 0.0, failures: int = 0, pace: float = 0.0
) -> Progress:
    best, found = (0.5, {"accuracy": 0.8125}) if done > 1 else (None, {})
    return Progress(phase, done, 100, best, failures, seconds, pace or None, found)


def test_lines_come_once_a_phase_and_every_tenth() -> None:
    said: list[str] = []
    update = lines(said.append)
    for done in range(1, 101):
        update(at(done, "sampling" if done < 55 else "proposals", failures=done // 50))
    assert len(said) == 12
    assert said[0] == "sampling: 1/100, no loss yet"
    assert said[1] == "sampling: 10/100, best loss 0.5, accuracy 0.8125"
    assert said[6] == "proposals: 55/100, best loss 0.5, accuracy 0.8125, 1 failed"


def test_slow_work_says_a_line_a_minute() -> None:
    said: list[str] = []
    update = lines(said.append)
    for done in range(1, 9):
        update(at(done, seconds=25.0 * done))
    assert [line.split(",")[0] for line in said] == [f"sampling: {n}/100" for n in (1, 4, 7)]


def test_the_loss_of_a_step_is_not_called_the_best() -> None:
    assert at(50, "healing").note == "loss 0.5, accuracy 0.8125"


@pytest.mark.parametrize(("pace", "left"), [(0.1, "0:08:20"), (12.5, "0:00:04")])
def test_time_left_and_the_best_with_its_metric(pace: float, left: str) -> None:
    assert at(50, pace=pace).note == f"{left} left, best loss 0.5, accuracy 0.8125"


@pytest.mark.parametrize(("pace", "words"), [(0.1, "6.0/min"), (12.5, "12.5/s")])
def test_at_the_end_the_pace(pace: float, words: str) -> None:
    assert at(100, pace=pace).note == f"best loss 0.5, accuracy 0.8125, {words}"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_gets_a_bar_that_fits_it(width: int) -> None:
    screen, buffer = Screen(), io.StringIO()
    assert not screen.live
    screen.err = Console(file=buffer, force_terminal=True, width=width, color_system=None)
    screen.live = True
    with screen.progress() as update:
        update(at(1))
        update(at(42, "leave-one-out", failures=3, pace=2.0))
    text = buffer.getvalue()
    assert "42/100" in text
    assert "0:00:29 left" in text
    assert "best loss 0.5" in text
    assert ("leave-one-out" in text) == (width > 40)
    assert ("accuracy 0.8125, 3 failed" in text) == (width > 40)


def test_quiet_gives_lines_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Screen().live
    assert not Screen(quiet=True).live


def test_results_and_messages_take_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.say("working")
    screen.warn("odd [data]")
    screen.fail("broken [/data]")
    screen.table("Costs", ["", "MACs"], [["pruned", "1,000"]])
    screen.path(Path("/" + "long/" * 40))
    out, err = capsys.readouterr()
    assert err.splitlines() == ["working", "Warning: odd [data]", "Error: broken [/data]"]
    assert "1,000" in out
    assert "long/" * 39 + "long" in out


@pytest.mark.parametrize("width", [30, 100])
def test_a_table_without_room_is_a_list(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    name = "layer1.0.conv1..layer1.0.bn2"
    rows = [[name, "1,234,567", "98,765,432"]]
    Screen().table("Units", ["unit", "params", "MACs"], rows)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    for text in ("Units", name, "1,234,567", "98,765,432", "params", "MACs"):
        assert text in shown
    assert ("│" in shown) == (width == 100)


def test_long_messages_are_wrapped_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().fail("a sentence of some length " * 12)
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 80


def test_no_colour_codes_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.fail("broken")
    screen.table("Costs", ["", "MACs"], [["pruned", "1,000"]])
    assert "\x1b" not in "".join(capsys.readouterr())
