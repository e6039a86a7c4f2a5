"""Progress as a bar or as lines, and what goes to which stream."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from edgewise.console import Screen, lines
from edgewise.records import Progress


def at(done: int, phase: str = "sampling", seconds: float = 0.0, failures: int = 0) -> Progress:
    return Progress(phase, done, 100, 0.5 if done > 1 else None, failures, seconds)


def test_lines_come_once_a_phase_and_every_tenth() -> None:
    said: list[str] = []
    update = lines(said.append)
    for done in range(1, 101):
        update(at(done, "sampling" if done < 55 else "proposals", failures=done // 50))
    assert len(said) == 12
    assert said[0] == "sampling: 1/100, no loss yet"
    assert said[1] == "sampling: 10/100, best loss 0.5"
    assert said[6] == "proposals: 55/100, best loss 0.5, 1 failed"


def test_the_time_left_does_not_count_what_a_resumed_run_found() -> None:
    said: list[str] = []
    update = lines(said.append)
    for done in range(1, 41):
        update(at(done, seconds=0.01))
    update(at(50, seconds=100.0))
    assert said[-1] == "sampling: 50/100, best loss 0.5, 0:08:20 left"  # 10 in 100 s, 50 to go


def test_a_terminal_gets_a_bar_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, buffer = Screen(), io.StringIO()
    assert not screen.live
    screen.err = Console(file=buffer, force_terminal=True, width=80, color_system=None)
    screen.live = True
    with screen.progress() as update:
        update(at(1))
        update(at(42, "leave-one-out", failures=3))
    text = buffer.getvalue()
    assert "leave-one-out" in text
    assert "42/100" in text
    assert "best loss 0.5, 3 failed" in text


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
    screen.json({"a": 1})
    out, err = capsys.readouterr()
    assert err.splitlines() == ["working", "Warning: odd [data]", "Error: broken [/data]"]
    assert "1,000" in out
    assert "long/" * 39 + "long" in out
    assert out.endswith('{\n  "a": 1\n}\n')


def test_long_messages_are_wrapped_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().fail("a sentence of some length " * 12)
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 80


def test_no_colour_codes_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.fail("broken")
    screen.table("Costs", ["", "MACs"], [["pruned", "1,000"]])
    assert "\x1b" not in "".join(capsys.readouterr())
