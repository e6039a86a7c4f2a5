"""Progress as a bar: in a notebook, or in the lines of a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from ..values.redact import legible
from .records import Progress

Callback = Callable[[Progress], None]
NARROW = 60  # columns; below it there is no room for a bar
COUNT, NOTE = "{task.completed:.0f}/{task.total:.0f}", "{task.fields[note]}"


@contextmanager
def shown(progress: Callback | bool | None) -> Iterator[Callback | None]:
    """A callback as it is; for True one that draws a bar where the work was asked for."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    elif (console := Console(stderr=True)).is_jupyter:
        yield _displayed()
    else:
        with drawn(console) as update:
            yield update


@contextmanager
def drawn(console: Console) -> Iterator[Callback]:
    """A callback that draws a bar on a terminal, and takes it away in the end."""
    columns: list[ProgressColumn] = [_column(f"{COUNT}, {NOTE}")]
    if console.width >= NARROW:
        columns = [_column("{task.description}"), BarColumn(bar_width=None)]
        columns += [_column(COUNT), _column(NOTE)]
    with Bars(*columns, console=console, expand=True, transient=True) as bars:
        yield _bar(bars)


def _column(form: str) -> TextColumn:
    return TextColumn(form, markup=False)


def _bar(bars: Bars) -> Callback:
    task: list[TaskID] = []

    def update(now: Progress) -> None:
        values: dict[str, Any] = {"total": now.total, "completed": now.done, "note": now.note}
        phase = legible(now.phase)
        if not task:
            task.append(bars.add_task(phase, **values))
        bars.update(task[0], description=phase, **values)

    return update


def _displayed() -> Callback:
    """One output of a cell, which shows the last state; rich would need ipywidgets for it."""
    from IPython.display import display

    handles: list[Any] = []

    def update(now: Progress) -> None:
        if handles:
            handles[0].update(now)
        else:
            handles.append(display(now, display_id=True))  # type: ignore[no-untyped-call]

    return update
