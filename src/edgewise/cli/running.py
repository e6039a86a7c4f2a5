"""A job's steps, told on the screen: search, choose, prune, fine-tune."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..values.quantities import duration

if TYPE_CHECKING:
    from ..evaluation.objective import Objective, Recovery
    from ..graph.graph import Graph
    from ..pruning.plan import Plan
    from ..study.study import Study
    from .job.config import Config
    from .screen import Screen


def run_job(config: Config, screen: Screen, port: int | None = None) -> None:
    """Search, choose, prune and fine-tune, as a job says; the report on a port meanwhile."""
    from ..pruning.weights import require_savable
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
    graph = trace_job(config, screen.say)
    require_healing(config, graph)
    require_savable(graph.program.module)
    table = latency_table(config, graph, screen.say)
    study = open_study(config, graph, measuring=True, latency=table)
    with study, _live(config, graph, port, screen):
        plan = _search(config, study, screen)
        paths, insight = write_results(config, graph, study, plan)
        show_plan(screen, plan)
        if config.heal is not None:
            paths += heal_plan(config, graph, study.objective, plan, screen)
            write_page(config, graph, study, plan, insight)  # with what healing gave, too
    for path in dict.fromkeys(paths):
        screen.path(path)


def _search(config: Config, study: Study, screen: Screen) -> Plan:
    from ..study.statistics import examples_seen

    kept = [e for e in study.evaluations if e.split.startswith("search")]
    done = round(examples_seen(kept) / study.objective.samples("search"))
    if done:
        screen.say(f"Resuming study {config.name!r}: {done} evaluations are kept from before")
    _foresee(config, study, done, screen)
    screen.say(f"Searching among {len(study.graph.units)} units, budget {config.budget}")
    search = config.search
    with screen.progress() as progress:
        study.run(
            evaluations=search.evaluations,
            examples=search.examples,
            budget=config.budget,
            seed=search.seed,
            surrogate=search.surrogate,
            patience=search.patience,
            progress=progress,
        )
    recovery = _recovery(config, study, screen)
    with screen.progress() as progress:
        return study.plan(
            finalists=search.finalists, certify=search.certify, recovery=recovery, progress=progress
        )


def _recovery(config: Config, study: Study, screen: Screen) -> Recovery | None:
    """That of the finalists, if a job asks for it; what it takes is said."""
    if config.result.recovery == "none":
        return None
    from ..evaluation.recover import estimate
    from .job.job import read_recovery

    recovery = read_recovery(config, study.graph, config.result.recovery)
    if recovery.kind == "linear":
        screen.say(f"A few finalists are recovered. {estimate(study.graph, recovery, once=True)}")
    return recovery


def _foresee(config: Config, study: Study, done: int, screen: Screen) -> None:
    """Say what the unpruned network scores, and how long the search will take."""
    assert config.budget is not None
    unpruned = study.preview(study.graph.empty)
    if unpruned.loss is None:
        return  # the search will say why
    scores = {**unpruned.metrics, "loss": unpruned.loss}
    told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    screen.say(f"Unpruned, on the {unpruned.samples} examples of the search split: {told}")
    name, value = next(iter(scores.items()))
    expected = config.objective.expected
    if expected is not None and abs(value - expected) > _slack(expected, name, unpruned.samples):
        screen.warn(
            f"[objective] expected {name} {expected:g}, measured {value:.4g}. Are the inputs "
            "normalised as in training, the weights loaded, the classes in the same order?"
        )
    mask = study.space(config.budget).reachable()
    begin = time.monotonic()
    record, spent = study.preview(mask), time.monotonic() - begin
    limit, examples = config.search.evaluations, config.search.examples
    if examples is not None:
        limit = round(examples / unpruned.samples)
    seconds, left = max(record.seconds, spent), max(limit - done, 0)
    screen.say(
        f"One mask takes {duration(seconds)}: the search about "
        f"{timedelta(seconds=round(seconds * left))} for {left}"
    )


def _slack(expected: float, name: str, samples: int) -> float:
    """By how much a score may differ: by three standard errors, if it is a share."""
    share = name != "loss" and 0 <= expected <= 1
    return max(0.02, 3 * math.sqrt(expected * (1 - expected) / samples) if share else expected / 10)


def heal_plan(
    config: Config, graph: Graph, objective: Objective, plan: Plan, screen: Screen
) -> list[Path]:
    """Fine-tune the pruned model of a plan; the paths of its weights and of what it scores."""
    from ..pruning.plan import Measured
    from ..pruning.prune import prune, unpruned
    from .job.healing import forget, heal_job, write_outcome
    from .job.job import HEALED, write_model

    assert config.heal is not None
    screen.say(f"Fine-tuning for {config.heal.epochs} epochs, taught by the unpruned model")
    small = prune(graph, plan, form=config.result.form)
    with screen.steps("healing") as progress:
        healed = heal_job(config, graph, objective, small, progress)
    models = {"unpruned": unpruned(graph), "pruned": small, "healed": healed}
    measured = {name: objective.score(model, objective.last) for name, model in models.items()}
    scores = {name: {"loss": found.loss, **found.metrics} for name, found in measured.items()}
    screen.put(split=objective.last, scores=scores)
    _show_scores(screen, plan, f"On the {objective.last} split", scores)
    before, after = measured["unpruned"], measured["healed"]
    samples = objective.samples(objective.last)
    outcome = Measured(after.loss, after.metrics, samples, before.loss, before.metrics)
    told = replace(plan, measured={**plan.measured, objective.last: outcome})  # by its model card
    paths = [
        *write_model(config, healed, told, config.directory / HEALED),
        write_outcome(config, plan, outcome),
    ]
    forget(config)
    return paths


def show_plan(screen: Screen, plan: Plan) -> None:
    """What the network costs and scores, unpruned and pruned, on the report split if measured."""
    screen.put(plan=plan.to_dict(), promises=plan.promises)
    split = next((name for name in ("report", "verify", "search") if name in plan.measured), None)
    if plan.latency is not None:
        screen.show(str(plan.latency))
    scores: dict[str, dict[str, float]] = {"unpruned": {}, "pruned": {}}
    if split is not None:
        found = plan.measured[split]
        scores["unpruned"] = {"loss": found.unpruned_loss, **found.unpruned_metrics}
        scores["pruned"] = {"loss": found.loss, **found.metrics}
    screen.show(f"Units removed: {', '.join(plan.labels or plan.removed) or 'none'}")
    _show_scores(screen, plan, f"Measured on the {split} split" if split else "Cost", scores)
    for promise in plan.promises:
        screen.show(promise)


def _show_scores(
    screen: Screen, plan: Plan, title: str, scores: Mapping[str, Mapping[str, float]]
) -> None:
    """What the unpruned network costs and scores, and what became of it, as a table."""
    rows, latency = [], plan.latency
    for name, found in scores.items():
        whole = name == "unpruned"
        cost = plan.before if whole else plan.after
        row = [name, f"{cost.params:,}", f"{cost.macs:,}"]
        row += [duration(latency.unpruned if whole else latency.seconds)] if latency else []
        rows.append([*row, *(f"{value:.4f}" for value in found.values())])
    head = ["", "params", "MACs", *(["latency"] if latency else []), *scores["unpruned"]]
    screen.table(title, head, rows)


@contextmanager
def _live(config: Config, graph: Graph, port: int | None, screen: Screen) -> Iterator[None]:
    """The report on a port while the block runs, if one is asked for."""
    if port is None:
        yield
        return
    from ..report.live import serving
    from .job.job import live_pages

    with serving(live_pages(config, graph, lambda: screen.now), port) as address:
        screen.say(f"The report so far: {address}")
        yield
