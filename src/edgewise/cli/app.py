"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from ..values.quantities import duration
from ..values.version import __version__
from .shell import Debug, Json, Quiet, open_screen
from .study import app as study_app

if TYPE_CHECKING:
    from ..evaluation.objective import Objective
    from ..graph.graph import Graph
    from ..pruning.plan import Plan
    from ..study.study import Study
    from .job.config import Config
    from .screen import Screen

app = typer.Typer(
    help="Prune connections, layers and blocks of PyTorch models, chosen jointly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(study_app, name="study")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The job's file.")]
Limits = Annotated[
    list[str] | None, typer.Option(help="Limits such as macs=0.7, instead of those in the file.")
]
KEPT = "Interrupted. Finished evaluations are kept; the same command resumes."


def main() -> None:
    """Run the command line."""
    app(prog_name="edgewise")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgewise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    directory: Annotated[Path, typer.Option(help="Where results go.")] = Path("edgewise-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Prune and fine-tune a small network on bundled data, without network access."""
    with open_screen(quiet, debug, json=json) as screen:
        from .demo import run_demo

        with screen.progress() as progress:
            found = run_demo(directory, seed=seed, say=screen.say, progress=progress)
        rows = [[name, *_figures(row)] for name, row in found.rows.items()]
        screen.put(rows=found.rows)
        screen.table("Result", ["", "params", "MACs", "latency (ms)", "accuracy"], rows)
        for path in found.files.values():
            screen.path(path)


def _figures(row: Mapping[str, float]) -> list[str]:
    formats = {"params": ",", "macs": ",", "latency_ms": ".2f", "accuracy": ".1%"}
    return [format(row[name], form) for name, form in formats.items()]


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="torchvision:NAME, timm:NAME or FILE.py:FUNCTION.")],
    input: Annotated[str, typer.Option(help="Shape of one example.")] = "3,224,224",
    weights: Annotated[Path | None, typer.Option(help="safetensors or state dict.")] = None,
    granularity: Annotated[str, typer.Option(help="Kinds of units.")] = "edge,layer",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what of a model can be removed, block by block, and what that saves."""
    with open_screen(False, debug, json=json) as screen:
        from . import inspect as inspection

        graph = inspection.trace_named(model, input, weights, granularity)
        screen.put(**inspection.to_dict(graph))
        screen.table(inspection.title(graph), inspection.COLUMNS, inspection.rows(graph), 2)


class _Run(TyperCommand):
    """`--ray` takes an address or none, `--live` a port or none."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        nexts = [*args[1:], "-"]
        bare = (f"{a}=" if a in ("--ray", "--live") and (b[:1] == "-" or b.endswith(".toml")) else a
                for a, b in zip(args, nexts, strict=False))  # fmt: skip
        return super().parse_args(ctx, list(bare))


@app.command(cls=_Run)
def run(
    config: ConfigFile,
    evaluations: Annotated[int | None, typer.Option(min=1, help="Masks to evaluate.")] = None,
    budget: Limits = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search.")] = None,
    certify: Annotated[
        int | None,
        typer.Option(min=0, help="Fresh random masks to measure beside the chosen one."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many rounds in which nothing better is expected."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Measure on Ray workers: of this machine, or of the cluster at ADDRESS or 'auto'.",
        ),
    ] = None,
    live: Annotated[
        str | None,
        typer.Option(
            metavar="[PORT]", help="Show the report while it runs, on 127.0.0.1 (port 8642)."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search, choose and prune: the whole job of a config, resumed where it stopped."""
    with open_screen(quiet, debug, KEPT, json) as screen:
        from .job.config import override, read_config

        job = override(read_config(config), evaluations, budget or (), seed, ray, certify, patience)
        _run(job, screen, _port(live))


def _port(text: str | None) -> int | None:
    from ..errors import ConfigError
    from ..report.live import PORT, require_server

    if text is None:
        return None
    require_server()
    if not text:
        return PORT
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"--live takes a port from 0 to 65535, or nothing; got {text!r}.")
    return int(text)


@contextmanager
def _live(config: Config, graph: Graph, port: int | None, screen: Screen) -> Iterator[None]:
    """The report on a port while the block runs, if one is asked for."""
    if port is None:
        yield
        return
    from ..report.live import serving
    from .job.job import live_pages

    with serving(live_pages(config, graph), port) as address:
        screen.say(f"The report so far: {address}")
        yield


def _run(config: Config, screen: Screen, port: int | None = None) -> None:
    from .job.healing import require_healing
    from .job.job import (
        latency_table,
        open_study,
        require_search,
        trace_job,
        write_page,
        write_results,
    )

    require_search(config)
    screen.say(f"Reading the model and the data that {config.path.name} names")
    graph = trace_job(config)
    require_healing(config, graph)
    table = latency_table(config, graph, screen.say)
    study = open_study(config, graph, measuring=True, latency=table)
    with study, _live(config, graph, port, screen):
        plan = _search(config, study, screen)
        paths = write_results(config, graph, study, plan)
        _show_plan(screen, plan)
        if config.heal is not None:
            paths += _heal(config, graph, study.objective, plan, screen)
            write_page(config, graph, study, plan)  # once more, with what healing gave
    for path in paths:
        screen.path(path)


def _heal(
    config: Config, graph: Graph, objective: Objective, plan: Plan, screen: Screen
) -> list[Path]:
    """Fine-tune the pruned model of a plan; the paths of its weights and of what it scores."""
    from ..pruning.plan import Measured
    from ..pruning.prune import prune
    from ..pruning.weights import save
    from .job.healing import forget, heal_job
    from .job.job import write_outcome

    assert config.heal is not None
    screen.say(f"Fine-tuning for {config.heal.epochs} epochs, taught by the unpruned model")
    small = prune(graph, plan)
    with screen.steps("healing") as progress:
        healed = heal_job(config, graph, objective, small, progress)
    weights = save(healed, config.directory / "healed.safetensors")
    rows, names, measured = [], sorted(objective.metrics), {}
    whole = graph.program.module
    for name, model in (("unpruned", whole), ("pruned", small), ("healed", healed)):
        found = measured[name] = objective.score(model, objective.last)
        cells = [f"{value:.4f}" for value in (found.loss, *(found.metrics[n] for n in names))]
        rows.append([name, *cells])
    scores = {name: {"loss": found.loss, **found.metrics} for name, found in measured.items()}
    screen.put(split=objective.last, scores=scores)
    screen.table(f"On the {objective.last} split", ["", "loss", *names], rows)
    before, after = measured["unpruned"], measured["healed"]
    samples = objective.samples(objective.last)
    outcome = Measured(after.loss, after.metrics, samples, before.loss, before.metrics)
    outcome_file = write_outcome(config, plan, outcome)
    forget(config)
    return [weights, outcome_file]


def _search(config: Config, study: Study, screen: Screen) -> Plan:
    done = sum(e.split == "search" for e in study.evaluations)
    if done:
        screen.say(f"Resuming study {config.name!r}: {done} evaluations are kept from before")
    screen.say(f"Searching among {len(study.graph.units)} units, budget {config.budget}")
    search = config.search
    with screen.progress() as progress:
        study.run(
            evaluations=search.evaluations,
            budget=config.budget,
            seed=search.seed,
            surrogate=search.surrogate,
            patience=search.patience,
            progress=progress,
        )
    with screen.progress() as progress:
        return study.plan(finalists=search.finalists, certify=search.certify, progress=progress)


def _show_plan(screen: Screen, plan: Plan) -> None:
    """What the network costs and scores, unpruned and pruned, on the report split if measured."""
    screen.put(plan=plan.to_dict(), promises=plan.promises)
    split = next((name for name in ("report", "verify", "search") if name in plan.measured), None)
    columns, before, after = ["", "params", "MACs"], ["unpruned"], ["pruned"]
    for row, cost in ((before, plan.before), (after, plan.after)):
        row += [f"{cost.params:,}", f"{cost.macs:,}"]
    if plan.latency is not None:
        columns.append("latency")
        before.append(duration(plan.latency.unpruned))
        after.append(duration(plan.latency.seconds))
        screen.show(str(plan.latency))
    if split is not None:
        found = plan.measured[split]
        columns += ["loss", *found.metrics]
        for row, loss, metrics in (
            (before, found.unpruned_loss, found.unpruned_metrics),
            (after, found.loss, found.metrics),
        ):
            row += [f"{loss:.4f}", *(f"{metrics[name]:.4f}" for name in found.metrics)]
    screen.show(f"Units removed: {', '.join(plan.removed) or 'none'}")
    title = f"Measured on the {split} split" if split else "Cost"
    screen.table(title, columns, [before, after])
    for promise in plan.promises:
        screen.show(promise)


@app.command()
def bench(
    config: ConfigFile,
    methods: Annotated[
        str | None, typer.Option(help="Some of the methods, with commas; 'all' for every one.")
    ] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Masks each method may measure.")] = 120,
    budget: Limits = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare the joint search with the usual methods on your model, with equal means."""
    with open_screen(quiet, debug, KEPT, json) as screen:
        from ..study.bench import METHODS, bench, summary
        from .job.config import override, read_config
        from .job.job import latency_table, open_study, require_search, trace_job, write_comparison

        names = None if methods is None else [name.strip() for name in methods.split(",")]
        if names == ["all"]:
            names = list(METHODS)
        job = override(read_config(config), None, budget or (), None, None)
        require_search(job)
        assert job.budget is not None
        numbers = [_seed(text) for text in seeds.split(",")]
        graph = trace_job(job)
        table = latency_table(job, graph, screen.say)
        study = open_study(job, graph, measuring=True, latency=table, suffix="-bench")
        with study, screen.progress() as progress:
            found = bench(
                study, job.budget, names, evaluations=evaluations, seeds=numbers,
                finalists=job.search.finalists, surrogate=job.search.surrogate,
                progress=progress,
            )  # fmt: skip
            rows = list(found)
        paths = write_comparison(job, rows)
        screen.put(rows=[row.to_dict() for row in rows])
        screen.table(f"At {job.budget}", *summary(rows))
        for path in paths:
            screen.path(path)


def _seed(text: str) -> int:
    from ..errors import ConfigError

    if not text.strip().isdecimal():
        raise ConfigError(f"--seeds takes whole numbers with commas, such as 0,1,2; got {text!r}.")
    return int(text)


@app.command()
def prune(
    config: ConfigFile,
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="The plan to apply.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the weights.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Apply a plan to the model of a config again, verified, and save the weights."""
    with open_screen(quiet, debug, json=json) as screen:
        from ..pruning.plan import Plan
        from .job.config import read_config
        from .job.job import make_directory, trace_job, write_weights

        job, chosen = read_config(config), Plan.load(plan)
        folder = output or job.directory
        graph = trace_job(job)
        make_directory(folder)
        path = write_weights(folder, graph, chosen)
        _show_plan(screen, chosen)
        screen.path(path)


@app.command()
def heal(
    config: ConfigFile,
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.json]", help="By default the job's own.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune the pruned model, as the heal section says; resumed where it stopped."""
    with open_screen(quiet, debug, "Interrupted. The same command resumes.", json) as screen:
        from ..errors import ConfigError
        from ..pruning.plan import Plan
        from .job.config import read_config
        from .job.job import make_directory, read_objective, trace_job

        job = read_config(config)
        if job.heal is None:
            raise ConfigError(f"{config.name} has no [heal]: add one with at least rows.")
        chosen = Plan.load(plan or job.directory / "plan.json")
        graph = trace_job(job)
        make_directory(job.directory)
        for path in _heal(job, graph, read_objective(job), chosen, screen):
            screen.path(path)


@app.command()
def report(
    config: ConfigFile, json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Write the report of a study so far."""
    with open_screen(quiet, debug, json=json) as screen:
        from .job.config import read_config
        from .job.job import load_plan, open_study, trace_job, write_page

        job = read_config(config)
        graph = trace_job(job)
        study = open_study(job, graph)
        screen.path(write_page(job, graph, study, load_plan(job, graph)))


@app.command()
def schema() -> None:
    """Print the JSON schema of job files, from which editors complete and check them."""
    typer.echo(
        (files("edgewise.cli.job") / "edgewise.schema.json").read_text(encoding="utf-8"),
        nl=False,
    )
