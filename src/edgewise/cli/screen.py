"""What a terminal shows: status lines, a progress bar or log lines, tables, errors."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..evaluation.bar import Callback, drawn
from ..evaluation.records import Progress
from ..values.redact import legible, redact

LINE_EVERY = 60.0  # seconds
LEGIBLE = 16  # columns of a table's words, at least, if they have as many


class Screen:
    """Results go to standard output, everything else to standard error.

    Args:
        quiet: log lines instead of a progress bar, also on a terminal.
        data: results are data for another program, instead of words and tables: what `put` was
            given, and the paths as `files`.
    """

    def __init__(self, quiet: bool = False, data: bool = False) -> None:
        self.data: dict[str, Any] | None = {} if data else None
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)
        self.live = self.err.is_terminal and not quiet
        self.now: Progress | None = None  # where the work stands

    def say(self, text: str) -> None:
        """A line on what is going on."""
        self.err.print(_plain(text))

    def next(self, command: str) -> None:
        """What to type next, in one piece however long."""
        self.err.print(_plain(f"Next: {command}"), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something to know, although the work goes on."""
        self.err.print(_plain(f"Warning: {text}", style="yellow"))

    def fail(self, text: str) -> None:
        """Why nothing more is done."""
        self.err.print(_plain(f"Error: {text}", style="red"))

    def show(self, text: str) -> None:
        """A line of results."""
        if self.data is None:
            self.out.print(_plain(text))

    def path(self, path: Path) -> None:
        """Where a result is, in one piece however long."""
        if self.data is not None:
            self.data.setdefault("files", []).append(str(path))
        else:
            self.out.print(_plain(str(path)), soft_wrap=True)

    def put(self, **values: Any) -> None:
        """Results for another program, where it is one that asks."""
        if self.data is not None:
            self.data |= values

    def close(self) -> None:
        """Print the data, if it is data that is asked for."""
        if self.data is not None:
            sys.stdout.write(json.dumps(self.data, indent=2) + "\n")

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1
    ) -> None:
        """Results as a table: the first `words` columns to the left, numbers to the right.

        Where there is no room for the numbers and some of the words, a line a value instead.
        """
        if self.data is not None:
            return
        sizes = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
        words_need = sum(min(size, LEGIBLE) for size in sizes[:words])
        if self.out.width < words_need + sum(sizes[words:]) + 3 * len(columns) + 1:
            self._list(title, columns, rows)
            return
        table = Table(title=_cell(title, style="bold"), title_justify="left")
        for number, column in enumerate(columns):
            justify: Any = "right" if number >= words else "left"
            table.add_column(_cell(column), justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*map(_cell, row))
        self.out.print(table)

    def _list(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.out.print(_cell(title, style="bold"))
        for first, *others in rows:
            self.out.print(_cell(first, overflow="fold"))
            for column, cell in zip(columns[1:], others, strict=True):
                self.out.print(_cell(f"  {column}: {cell}"))

    @contextmanager
    def steps(self, phase: str) -> Iterator[Callable[[int, int, float], None]]:
        """As `progress`, for work that tells its step, the number of steps, and a loss."""
        begin = time.monotonic()
        with self.progress() as told:

            def update(step: int, steps: int, loss: float) -> None:
                spent = time.monotonic() - begin
                told(Progress(phase, step, steps, loss, 0, spent, step / max(spent, 1e-9)))

            yield update

    @contextmanager
    def progress(self) -> Iterator[Callback]:
        """A callback for long work: it draws a bar on a terminal, elsewhere it writes lines."""
        if not self.live:
            yield self._noted(lines(self.say))
            return
        with drawn(self.err) as update:
            yield self._noted(update)

    def _noted(self, show: Callback) -> Callback:
        """The callback, which also keeps where the work stands."""

        def update(now: Progress) -> None:
            self.now = now
            show(now)

        return update


def _plain(text: str, **look: Any) -> Text:
    """Lines of text in which nothing is markup and nothing steers the terminal or is secret."""
    return Text(legible(redact(text)), **look)


def _cell(text: str, **look: Any) -> Text:
    """The same on one line."""
    return _plain(text.replace("\n", "\\n"), **look)


def lines(say: Callable[[str], None]) -> Callback:
    """A callback that says one line a phase, one every tenth of the work, and one a minute."""
    said: dict[str, Any] = {"at": None, "seconds": 0.0}

    def update(now: Progress) -> None:
        at = (now.phase, 10 * now.done // max(now.total, 1))
        if at != said["at"] or now.seconds - said["seconds"] >= LINE_EVERY:
            said.update(at=at, seconds=now.seconds)
            say(str(now))

    return update
