"""Shared settings: one thread, reproducible examples, and small traced graphs."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

import edgewise as ew
import jobs
from edgewise.latency import measurement
from meters import Formula
from postgres import Server, missing
from zoo import build

torch.set_num_threads(1)
gc.set_threshold(50_000, 20, 20)  # looking for garbage takes a tenth of the time of exports
settings.register_profile(
    "edgewise",
    deadline=None,
    derandomize=True,
    max_examples=8,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("edgewise")


@pytest.fixture(scope="session")
def residual() -> ew.Graph:
    """Three residual blocks."""
    model, args = build("residual")
    return ew.trace(model, args, granularity=("edge", "layer"))


@pytest.fixture(scope="session")
def branches(residual: ew.Graph) -> ew.Graph:
    """The same, offering only the three branches and the three skips."""
    return residual.select(lambda unit: unit.kind == "edge")


@pytest.fixture(scope="session")
def reference() -> ew.Plan:
    """The plan of the job in jobs.py when nothing goes wrong."""
    return jobs.plan_of(None)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server of our own; on CI there must be one."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency goes by a formula, in place of every stopwatch."""
    monkeypatch.setattr(
        measurement, "stopwatch", lambda graph, target, rounds: Formula(graph.program.args, rounds)
    )
