"""`edgewise study …`: what a storage holds, without the model or the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..values.quantities import limit_text
from .shell import Debug, Json, open_screen

if TYPE_CHECKING:
    from ..evaluation.records import Evaluation
    from ..study.storage.storage import Storage

app = typer.Typer(help="Look at the studies of a storage.", no_args_is_help=True)

Place = Annotated[
    str, typer.Argument(metavar="STORAGE", help="A database's URL or file, or a job's CONFIG.toml.")
]
Name = Annotated[str | None, typer.Option("--name", "-n", help="Which study, if it has several.")]
_ANYWHERE = ("unpruned", "leave-one-out")  # evaluations that heed no budget


@app.command("list", epilog="Example: edgewise study list job.toml")
def list_studies(storage: Place, json: Json = False, debug: Debug = False) -> None:
    """The studies of a storage: how many evaluations, the best loss, failures."""
    with open_screen(False, debug, json=json) as screen:
        from ..study.storage.database import Database
        from ..study.storage.storage import Storage, study_names

        url, _ = _locate(storage)
        names = study_names(Database(url, create=False))
        found = [_summary(name, Storage(url, name, None).evaluations()) for name in names]
        screen.put(studies=found)
        rows = [[_text(value) for value in summary.values()] for summary in found]
        columns = ["study", "evaluations", "failed", "unpruned loss", "best loss"]
        screen.table("Studies", columns, rows)


@app.command(epilog="Example: edgewise study show job.toml --best 3")
def show(
    storage: Place,
    name: Name = None,
    best: Annotated[int, typer.Option(min=1, help="How many masks.")] = 5,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """One study: its runs, its evaluations by split and status, its best masks."""
    with open_screen(False, debug, json=json) as screen:
        study = _find(storage, name)
        records = study.evaluations()
        screen.put(
            **_summary(study.name, records),
            runs=[{**run.settings, "before": run.before} for run in study.runs()],
            best=[asdict(e) for e in _best(records)[:best]],
        )
        runs = [
            [", ".join(f"{k}={limit_text(v)}" for k, v in s.get("budget", {}).items()),
             str(s.get("surrogate", "")), str(s.get("seed", "")), str(run.before)]
            for run in study.runs() for s in [run.settings]
        ]  # fmt: skip
        screen.table(f"Runs of {study.name}", ["budget", "surrogate", "seed", "before"], runs, 2)
        counts = Counter((e.split, e.status) for e in records)
        rows = [[split, status, str(n)] for (split, status), n in sorted(counts.items())]
        screen.table("Evaluations", ["split", "status", "count"], rows, 2)
        screen.table(
            "Best masks on the search split", ["mask", "removed", "loss", "origin"],
            [[e.mask, str(e.mask.count("1")), f"{e.loss:.4g}", e.origin]
             for e in _best(records)[:best]],
        )  # fmt: skip
        reasons = Counter(f"{e.status}: {e.error}" for e in records if not e.ok)
        for reason, count in reasons.most_common(3):
            screen.show(f"{count} × {reason[:300]}")


@app.command(epilog="Example: edgewise study export job.toml masks.csv --losses")
def export(
    storage: Place,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="FILE.csv or FILE.parquet.")],
    name: Name = None,
    losses: Annotated[bool, typer.Option(help="Add the loss of every example.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """All evaluations of a study as one table, one row each."""
    with open_screen(False, debug, json=json) as screen:
        from .job.evaluations_file import write_evaluations

        study = _find(storage, name)
        each = (lambda e: study.losses(e.mask, e.split, e.samples)) if losses else None
        screen.path(write_evaluations(output, study.evaluations(), each))


@app.command(epilog="Example: edgewise study prune-failed job.toml --dry-run")
def prune_failed(
    storage: Place,
    name: Name = None,
    dry_run: Annotated[bool, typer.Option(help="Only say how many there are.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove the evaluations of a study that gave no loss, so that they are tried again."""
    with open_screen(False, debug, json=json) as screen:
        study = _find(storage, name)
        records = study.evaluations()
        states = Counter(e.status for e in records if e.status != "ok")
        parts = ", ".join(f"{count} {status}" for status, count in sorted(states.items()))
        which = f"{sum(states.values())} of {len(records)} evaluations of study {study.name!r}"
        screen.show(f"{which} gave no loss{f' ({parts})' if parts else ''}.")
        dropped = study.drop_failed() if states and not dry_run else 0
        screen.put(study=study.name, failed=dict(states), removed=dropped)
        if dropped:
            screen.show(f"Removed {dropped}; the next run tries these masks again.")


def _locate(place: str) -> tuple[str, str | None]:
    """The URL of a storage given as URL, file or job, and the study that a job names."""
    if place.endswith(".toml"):
        from .job.config import read_config

        config = read_config(Path(place))
        return config.storage, config.name
    return (place if "://" in place else f"sqlite:///{place}"), None


def _find(place: str, name: str | None) -> Storage:
    """The study of that name, of the job, or the only one."""
    from ..errors import ConfigError
    from ..study.storage.database import Database
    from ..study.storage.storage import Storage, study_names

    url, named = _locate(place)
    wanted = name or named
    if wanted is None:
        database = Database(url, create=False)
        known = study_names(database)
        if len(known) != 1:
            listed = ", ".join(map(repr, known)) or "none"
            raise ConfigError(f"Say which study with --name. Studies in {database.url}: {listed}.")
        wanted = known[0]
    return Storage(url, wanted, None)


def _summary(name: str, records: Sequence[Evaluation]) -> dict[str, Any]:
    search = [e for e in records if e.split == "search" and e.origin == "unpruned"]
    losses = [group[0].loss if group else None for group in (search, _best(records))]
    return {
        "study": name,
        "evaluations": len(records),
        "failed": sum(not e.ok for e in records),
        "unpruned_loss": losses[0],
        "best_loss": losses[1],
    }


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _best(records: Sequence[Evaluation]) -> list[Evaluation]:
    """What was measured at a budget on the search split, lowest loss first."""
    found = [e for e in records if e.ok and e.split == "search" and e.origin not in _ANYWHERE]
    return sorted(found, key=lambda e: e.loss or 0.0)
