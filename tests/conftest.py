"""Shared settings: one thread, reproducible examples, and small traced graphs."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

import edgewise as ew
from edgewise.testing import build

torch.set_num_threads(1)
settings.register_profile(
    "edgewise",
    deadline=None,
    derandomize=True,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("edgewise")


@pytest.fixture(scope="session")
def residual() -> ew.Graph:
    """Three residual blocks."""
    model, args = build("residual")
    return ew.trace(model, args)


@pytest.fixture(scope="session")
def branches(residual: ew.Graph) -> ew.Graph:
    """The same, offering only the three branches and the three skips."""
    return residual.select(lambda unit: unit.kind == "edge")
