"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from ..values.version import __version__
from .running import heal_plan, run_job, show_plan
from .shell import Debug, Form, Json, Quiet, open_screen
from .study import app as study_app

app = typer.Typer(
    help="Prune connections, layers and blocks of PyTorch models, chosen jointly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: edgewise init net.py:make photos --weights net.pt && edgewise run job.toml",
)
app.add_typer(study_app, name="study")

MODEL = "torchvision:NAME, timm:NAME, hf:FOLDER or FILE.py:FUNCTION."
Weights = Annotated[Path | None, typer.Option(help="safetensors or state dict.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The job's file.")]
Limits = Annotated[
    list[str] | None, typer.Option(help="Limits such as macs=0.7, instead of those in the file.")
]
NEXT = "edgewise init {0}/network.py:DigitsNet {0}/digits --weights {0}/network.safetensors"
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


def _example(words: str) -> str:
    return f"Example: edgewise {words}"


@app.command(epilog=_example("demo --directory first"))
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

        run_demo(directory, screen, seed=seed)
        screen.next(NEXT.format(directory.as_posix()))


@app.command(epilog=_example("init torchvision:resnet18 photos --weights mine.pt"))
def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of class folders, or of train and val; or FILE.py:FUNCTION.",
        ),
    ],
    weights: Weights = None,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("job.toml"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a job file for a model and its data, and say what it takes them for."""
    with open_screen(False, debug, json=json) as screen:
        from .init import write_job

        screen.path(write_job(model, data, weights, output, screen.say))
        screen.next(f"edgewise run {output}")


@app.command(epilog=_example("inspect torchvision:resnet50"))
def inspect(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=f"{MODEL[:-1]}, or a JOB.toml.")
    ] = None,
    input: Annotated[
        str, typer.Option(help="Shape of an example: 3,224,224, or 128 tokens of hf:.")
    ] = "",
    weights: Weights = None,
    granularity: Annotated[str, typer.Option(help="Kinds of units.")] = "branch,layer",
    part: Annotated[
        str | None, typer.Option(help="Path of the part to trace, or several: backbone,neck.")
    ] = None,
    units: Annotated[bool, typer.Option("--units", help="List every unit.")] = False,
    form: Annotated[
        Form, typer.Option(help="module: also say what the model's own class does without.")
    ] = "program",
    plan: Annotated[
        Path | None, typer.Option(metavar="PLAN.json", help="A plan, instead of a model.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what of a model can be removed, and what that saves; or a plan's edits of modules."""
    with open_screen(False, debug, json=json) as screen:
        from ..errors import ConfigError
        from . import inspect as inspection
        from .job.config import read_config
        from .job.job import trace_job

        if plan is not None and model is None:
            inspection.show_edits(screen, plan)
        elif model is not None and plan is None:
            if model.endswith(".toml"):
                graph = trace_job(read_config(model), screen.say)
            else:
                graph = inspection.trace_named(model, input, weights, granularity, part)
            inspection.show_units(screen, graph, form, units)
        else:
            raise ConfigError("inspect takes either a model or --plan PLAN.json.")


class _Run(TyperCommand):
    """`--ray` takes an address or none, `--live` a port or none."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        nexts = [*args[1:], "-"]
        bare = (f"{a}=" if a in ("--ray", "--live") and (b[:1] == "-" or b.endswith(".toml")) else a
                for a, b in zip(args, nexts, strict=False))  # fmt: skip
        return super().parse_args(ctx, list(bare))


@app.command(cls=_Run, epilog=_example("run job.toml --evaluations 50 --budget macs=0.5"))
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
        run_job(job, screen, _port(live))


def _port(text: str | None) -> int | None:
    from ..errors import ConfigError
    from ..report.live import PORT

    if text is None:
        return None
    if not text:
        return PORT
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"--live takes a port from 0 to 65535, or nothing; got {text!r}.")
    return int(text)


@app.command(epilog=_example("bench job.toml --methods greedy,taylor"))
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
        graph = trace_job(job, screen.say)
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


@app.command(epilog=_example("prune job.toml job-pruned/plan.json --form module"))
def prune(
    config: ConfigFile,
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="The plan to apply.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the weights.")] = None,
    form: Annotated[
        Form | None, typer.Option(help="The model's own class or a program, not as in the job.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Apply a plan to the model of a config again, verified, and save the weights."""
    with open_screen(quiet, debug, json=json) as screen:
        from ..pruning.plan import Plan
        from .job.config import read_config
        from .job.job import trace_job, write_weights
        from .job.kept import make_directory

        job, chosen = read_config(config), Plan.load(plan)
        folder = output or job.directory
        graph = trace_job(job, screen.say)
        make_directory(folder)
        paths = write_weights(job, graph, chosen, form, folder)
        show_plan(screen, chosen)
        for path in paths:
            screen.path(path)


@app.command(epilog=_example("heal job.toml"))
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
        from .job.job import read_objective, trace_job
        from .job.kept import make_directory

        job = read_config(config)
        if job.heal is None:
            raise ConfigError(f"{config.name} has no [heal]: add one with at least rows.")
        chosen = Plan.load(plan or job.directory / "plan.json")
        graph = trace_job(job, screen.say)
        make_directory(job.directory)
        for path in heal_plan(job, graph, read_objective(job, graph), chosen, screen):
            screen.path(path)


@app.command(epilog=_example("report job.toml"))
def report(
    config: ConfigFile, json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Write the report of a study so far."""
    with open_screen(quiet, debug, json=json) as screen:
        from .job.config import read_config
        from .job.job import insight_of, load_plan, open_study, trace_job, write_page

        job = read_config(config)
        graph = trace_job(job, screen.say)
        study = open_study(job, graph)
        plan = load_plan(job, graph)
        screen.path(write_page(job, graph, study, plan, insight_of(job, study, plan)))


@app.command(epilog=_example("schema > edgewise.schema.json"))
def schema() -> None:
    """Print the JSON schema of job files, from which editors complete and check them."""
    typer.echo(
        (files("edgewise.cli.job") / "edgewise.schema.json").read_text(encoding="utf-8"),
        nl=False,
    )
