"""A config made real: the graph, the objective and the study of a job, and the files it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...errors import ConfigError, LatencyError, OtherStudyError, PlanError, StorageError
from ...evaluation.losses import imitated
from ...evaluation.objective import Objective, Recovery, RecoveryKind
from ...graph.graph import Graph
from ...pruning import hf
from ...pruning.plan import Plan
from ...pruning.prune import Form, prune
from ...pruning.weights import save
from ...tracing.trace import trace
from ...values.arguments import split_arguments
from ...values.files import read_text, write_text
from ...values.nested import moved
from .config import Config
from .datasets import following, load_batches
from .evaluations_file import write_evaluations
from .healing import healed_of
from .importance import importance_of
from .kept import make_directory, read_kept
from .sources import load_function, load_loss, load_metrics, load_model, loading
from .texts import tokenizer_of
from .toml_sections import Rows
from .units import select_units, servable

if TYPE_CHECKING:
    from ...evaluation.records import Progress
    from ...graph.times import OperatorTimes
    from ...latency import LatencyTable
    from ...report import Insight, Outcome
    from ...report.live import Pages
    from ...study.bench import Row
    from ...study.study import Study

PRUNED, HEALED, CHECKPOINT = "pruned.safetensors", "healed.safetensors", "checkpoint"
FILES = {
    HEALED: "weights of the pruned network, fine-tuned",
    PRUNED: "weights of the pruned network",
    CHECKPOINT: "the network, fine-tuned if it was, as transformers loads it, with a model card",
    "plan.json": "what was chosen and why",
    "plan.tensors.safetensors": "recovered statistics and weights: stays beside plan.json",
    "evaluations.csv": "every evaluation",
}


def require_search(config: Config) -> None:
    """Raise ConfigError unless there are a budget and the objective's functions.

    Called first: nothing is traced or timed for a search that cannot begin.
    """
    if config.budget is None:
        raise ConfigError(
            f"{config.path.name} has no [budget]: add one with e.g. macs = 0.7, or say "
            "--budget macs=0.7."
        )
    load_loss(config.objective.loss)
    load_metrics(config.objective.metrics)


def trace_job(config: Config, say: Callable[[str], None] = lambda _: None) -> Graph:
    """The graph of a config's model, offering the units that [units] and [result] select.

    Raises:
        ConfigError: the model, its weights or the data that order its widths cannot be used, a glob
            names no unit, or no unit has the form of the result.
        TraceError: the model cannot be traced.
    """
    model = load_model(config.model)
    graph = trace(
        model,
        *moved(split_arguments(_example(config, model)), torch.device(config.model.device)),
        granularity=config.units.granularity,
        slices=config.units.slices,
        round_to=config.units.round_to,
        importance=importance_of(config, model, say),
        part=config.model.part,
        costs=config.model.costs,
    )
    return servable(config, select_units(graph, config.units), say)


def _example(config: Config, model: nn.Module) -> Any:
    """[1, ...]: random numbers of the given input shape, else the first row of the search split."""
    if config.model.input is not None:
        return random_example(config.model.input)
    first = config.data.search.start
    return load_batches(following(config.data, model), Rows(first, first + 1))[0][0]


def random_example(shape: Sequence[int]) -> torch.Tensor:
    """[1, *shape] of normal numbers, always the same."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def read_objective(config: Config, graph: Graph) -> Objective:
    """Data, loss, metrics and recovery of a config, read from disk as its model takes them.

    Raises:
        ConfigError: some of it cannot be read, or does not have the model's input shape.
    """
    config = replace(config, data=following(config.data, graph.program.args[0]))
    data, objective = config.data, config.objective
    search = load_batches(data, data.search)
    _check_shape(config, search[0][0])
    splits: list[Any] = [search, load_batches(data, data.verify), load_batches(data, data.report)]
    if objective.loss == "likeness":
        splits = [imitated(graph.program.model, batches) for batches in splits]
    return Objective(
        splits[0],
        loss=load_loss(objective.loss),
        metrics=load_metrics(objective.metrics),
        recovery=read_recovery(config, graph, objective.recovery),
        verify=splits[1],
        report=splits[2],
        run=load_function(objective.run) if objective.run else None,
        precision=objective.precision,
    )


def read_recovery(config: Config, graph: Graph, kind: RecoveryKind) -> Recovery:
    """A recovery with the calibration data of a config."""
    if config.calibration is None or kind == "none":
        return Recovery()
    data = following(config.calibration_data, graph.program.args[0])
    return Recovery(kind, load_batches(data, config.calibration.rows))


def _check_shape(config: Config, inputs: Any) -> None:
    wanted = config.model.input
    if wanted is not None and (found := tuple(inputs.shape[1:])) != wanted:
        raise ConfigError(
            f"[model] input is {list(wanted)}, but the examples of [data] have shape {list(found)}."
        )


def latency_table(
    config: Config, graph: Graph, say: Callable[[str], None] = lambda _: None
) -> LatencyTable | None:
    """The latency table of a job that limits latency: read, or measured and kept.

    Raises:
        LatencyError: the file's table is of something else.
    """
    if config.budget is None or config.budget.latency is None:
        return None
    from ... import latency

    target, path = config.latency, config.latency_table
    if not path.exists():
        say(f"Measuring how long operators take; {path.name} keeps it")
        make_directory(path.parent)
        found = latency.measure(
            graph, batch=target.batch, threads=target.threads, device=target.device
        )
        found.save(path)
        return found
    threads = target.threads or torch.get_num_threads()
    try:
        return latency.LatencyTable.load(path).check(
            graph, batch=target.batch, threads=threads, device=target.device
        )
    except LatencyError as error:
        raise LatencyError(f"{error} Here: remove {path}, and run again.") from error


def _times(config: Config, graph: Graph) -> OperatorTimes | None:
    """The operator times of a job, wherever they were measured; None if there are none."""
    from ...latency import LatencyTable

    if not config.latency_table.exists():
        return None
    table = LatencyTable.load(config.latency_table)
    return table.times(graph) if table.fingerprint == graph.fingerprint else None


def open_study(
    config: Config,
    graph: Graph,
    *,
    measuring: bool = False,
    latency: LatencyTable | None = None,
    suffix: str = "",
) -> Study:
    """The study of a config, with the evaluations there are.

    Args:
        measuring: whether to start the workers that the config asks for.
        latency: the table that a budget of latency needs.
        suffix: of the study's name, for one beside it.

    Raises:
        ConfigError: the output directory cannot be made.
        ExecutorError: the workers cannot be started.
        StorageError: the study belongs to something else.
    """
    from ...evaluation.evaluator import MakeExecutor, Serial
    from ...study.study import Study

    executor: MakeExecutor = Serial
    if measuring and config.ray is not None:
        from ...evaluation.ray.executor import Ray

        executor = Ray(config.ray.address, config.ray.workers, config.ray.threads, config.ray.gpus)
    make_directory(config.directory)
    objective = read_objective(config, graph)
    try:
        return Study(
            graph, objective, config.storage, config.name + suffix,
            executor=executor, engine=config.engine, latency=latency,
        )  # fmt: skip
    except OtherStudyError as error:
        raise StorageError(
            f"{error}\nTo begin another beside it, paste into {config.path.name}:\n\n"
            f'[study]\nname = "{config.name}-2"'
        ) from error


def load_plan(config: Config, graph: Graph) -> Plan | None:
    """The plan in the output directory, None if there is none for this graph."""
    path = config.directory / "plan.json"
    if not path.exists():
        return None
    plan = Plan.load(path)
    return plan if plan.fingerprint == graph.fingerprint else None


def write_results(
    config: Config, graph: Graph, study: Study, plan: Plan
) -> tuple[list[Path], Insight]:
    """Plan, pruned weights, evaluations and report in the output directory.

    Returns:
        The paths, and the insight of the report, which takes longer than all that is written.

    Raises:
        FormError: the plan has not the form of [result]; all but the weights is written.
        VerificationError: the pruned model differs from the masked one.
    """
    folder = config.directory
    saved = plan.save(folder / "plan.json")
    beside = [saved.with_suffix(".tensors.safetensors")] if plan.tensors else []
    table = write_evaluations(folder / "evaluations.csv", study.evaluations)
    try:
        weights = write_weights(config, graph, plan)
    finally:  # whether it refuses or not, and names the files that there are
        insight = insight_of(config, study, plan)
        page = write_page(config, graph, study, plan, insight)
    return [saved, *beside, *weights, table, page], insight


def write_weights(
    config: Config, graph: Graph, plan: Plan, form: Form | None = None, folder: Path | None = None
) -> list[Path]:
    """The pruned, verified model in a folder: its weights, and what transformers loads."""
    small = prune(graph, plan, form=form or config.result.form)
    return write_model(config, small, plan, (folder or config.directory) / PRUNED)


def write_model(config: Config, small: nn.Module, plan: Plan, path: Path) -> list[Path]:
    """A model's weights, and beside them what transformers loads."""
    weights, checkpoint = save(small, path), path.parent / CHECKPOINT
    if not hf.is_pretrained(small):
        return [weights]
    hf.save_pretrained(small, checkpoint, plan=plan)
    if config.data.tokenizer is not None:
        tokenizer_of(config.data.tokenizer)[0].save_pretrained(checkpoint)
    return [weights, checkpoint]


def write_comparison(config: Config, rows: Sequence[Row]) -> list[Path]:
    """Rows of a comparison as `bench.json`, and as a plot where matplotlib is installed."""
    data = json.dumps([row.to_dict() for row in rows], indent=1) + "\n"
    path = config.directory / "bench.json"
    write_text(path, data)
    if find_spec("matplotlib") is None:
        return [path]
    from ...report.charts import charts, matplotlib
    from ...study.bench import histories

    figure = matplotlib.static(charts.methods(histories(rows)))
    return [path, matplotlib.save(figure, path.with_suffix(".png"))]


def write_page(
    config: Config, graph: Graph, study: Study, plan: Plan | None, insight: Insight
) -> Path:
    """The report of a study so far, and of the plan there is, as `report.html`."""
    from ...report import render, write

    page = render(
        graph, study.evaluations, plan, title=config.name, outcome=load_outcome(config, plan),
        extra=page_facts(config), times=_times(config, graph), insight=insight,
    )  # fmt: skip
    return write(config.directory / "report.html", page)


def load_outcome(config: Config, plan: Plan | None) -> Outcome:
    """What became of a plan, its files, and what can be done next."""
    from ...report import Outcome

    if plan is None:
        return Outcome()
    healed = healed_of(config, plan)
    there = {name: what for name, what in FILES.items() if (config.directory / name).exists()}
    if healed is None:
        there.pop(HEALED, None)
    weights = next((name for name in (HEALED, PRUNED) if name in there), None)
    name, left = config.path.name, plan.after.macs / max(plan.before.macs, 1)
    heal = "Fine-tune it" if config.heal else "Fine-tune it (add [heal])"
    steps = {
        **({} if healed else {heal: f"edgewise heal {name}"}),
        "Make it smaller": f"edgewise run {name} --budget macs={max(round(100 * left) - 10, 5)}%",
        "Compare methods": f"edgewise bench {name}",
        "Hand it on as ONNX": 'ew.export(small, "small.onnx")',
    }
    return Outcome(
        healed, files=there, load=loading(config.model, weights) if weights else "", next=steps
    )


@dataclass(frozen=True)
class _Compared:
    method: str
    history: tuple[float | None, ...]


def page_facts(config: Config) -> dict[str, str]:
    """What a report says of the job itself: the command and its configuration."""
    return {
        "Command": f"edgewise run {config.path.name}",
        "Configuration": read_text(config.path),
    }


def live_pages(
    config: Config, graph: Graph, progress: Callable[[], Progress | None] = lambda: None
) -> Pages:
    """The report of a job while it runs, read from the storage by a connection of its own."""
    from ...report import Facts, Insight, contents, shell
    from ...report.live import Pages
    from ...study.storage.storage import Storage

    stored = Storage(config.storage, config.name, None)

    def now() -> str:
        records, plan = stored.evaluations(), load_plan(config, graph)
        insight, times = Insight(config.budget), _times(config, graph)
        facts = Facts(graph, records, plan, load_outcome(config, plan), times, insight).check()
        return contents(facts, config.name, page_facts(config), progress())

    return Pages(lambda: shell(config.name), now)


def insight_of(config: Config, study: Study, plan: Plan | None) -> Insight:
    """What the study's surrogate says, and a comparison of methods if one was made.

    Raises:
        PlanError: there is nothing to report yet.
    """
    from ...study.bench import histories

    if not study.evaluations:
        raise PlanError(
            f"Study {config.name!r} has no evaluation yet: run `edgewise run {config.path.name}`."
        )
    path, found = config.directory / "bench.json", study.insight(plan)
    rows = read_kept(path, list[_Compared]) if path.exists() else ()
    again = f"edgewise run {config.path.name} --budget {{limits}}"
    return replace(found, histories=histories(rows), again=again)
