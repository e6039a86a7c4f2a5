"""What a terminal shows: status lines, a progress bar or log lines, tables, errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from .records import Progress

Callback = Callable[[Progress], None]
PACE_AFTER = 1.0  # seconds


class Screen:
    """Results go to standard output, everything else to standard error.

    Args:
        quiet: log lines instead of a progress bar, also on a terminal.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)
        self.live = self.err.is_terminal and not quiet

    def say(self, text: str) -> None:
        """A line on what is going on."""
        self.err.print(Text(text))

    def warn(self, text: str) -> None:
        """Something to know, although the work goes on."""
        self.err.print(Text(f"Warning: {text}", style="yellow"))

    def fail(self, text: str) -> None:
        """Why nothing more is done."""
        self.err.print(Text(f"Error: {text}", style="red"))

    def show(self, text: str) -> None:
        """A line of results."""
        self.out.print(Text(text))

    def path(self, path: Path) -> None:
        """Where a result is, in one piece however long."""
        self.out.print(Text(str(path)), soft_wrap=True)

    def json(self, data: Any) -> None:
        """Results for another program."""
        sys.stdout.write(json.dumps(data, indent=2) + "\n")

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1
    ) -> None:
        """Results as a table: the first `words` columns to the left, numbers to the right."""
        table = Table(title=Text(title, style="bold"), title_justify="left")
        for number, column in enumerate(columns):
            justify: Any = "right" if number >= words else "left"
            table.add_column(column, justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self.out.print(table)

    @contextmanager
    def progress(self) -> Iterator[Callback]:
        """A callback for long work: it draws a bar on a terminal, elsewhere it writes lines."""
        if not self.live:
            yield lines(self.say)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
        )
        with Bars(*columns, console=self.err, expand=True, transient=True) as bars:
            yield _bar(bars)


def _bar(bars: Bars) -> Callback:
    task: list[TaskID] = []

    def update(now: Progress) -> None:
        values: dict[str, Any] = {"total": now.total, "completed": now.done, "note": note(now)}
        if not task:
            task.append(bars.add_task(now.phase, **values))
        bars.update(task[0], description=now.phase, **values)

    return update


def lines(say: Callable[[str], None]) -> Callback:
    """A callback that says one line a phase and one every tenth of the work."""
    said: dict[str, Any] = {"at": None, "kept": 0}

    def update(now: Progress) -> None:
        if now.seconds < PACE_AFTER:
            said["kept"] = now.done  # of a resumed run: they took no time and say nothing of pace
        at = (now.phase, 10 * now.done // max(now.total, 1))
        if at != said["at"]:
            said["at"] = at
            say(f"{now.phase}: {now.done}/{now.total}, {note(now)}{_left(now, said['kept'])}")

    return update


def note(now: Progress) -> str:
    """Best loss and failures in words."""
    best = "no loss yet" if now.best is None else f"best loss {now.best:.4g}"
    return best + (f", {now.failures} failed" if now.failures else "")


def _left(now: Progress, kept: int) -> str:
    """The time left at the pace so far, if there is any pace."""
    done, waiting = now.done - kept, now.total - now.done
    if done < 1 or waiting < 1:
        return ""
    return f", {timedelta(seconds=round(now.seconds / done * waiting))} left"
