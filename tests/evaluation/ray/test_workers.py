"""How many workers a cluster has room for."""

from types import SimpleNamespace

import pytest

from edgewise.evaluation.ray.workers import Workers


@pytest.mark.parametrize(
    ("cpus", "gpus", "threads", "each", "count", "wanted"),
    [
        (8, 0, 1, 0, None, 8),
        (8, 0, 3, 0, None, 2),
        (1, 0, 2, 0, None, 1),  # it waits for a larger machine
        (64, 2, 4, 1, None, 2),
        (64, 1, 1, 0.1, None, 10),
        (4, 1, 1, 0.1, None, 4),
        (8, 1, 1, 1, 5, 5),  # as asked
    ],
)
def test_workers_wanted(
    cpus: int, gpus: int, threads: int, each: float, count: int | None, wanted: int
) -> None:
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": cpus, "GPU": gpus})
    asked = SimpleNamespace(ray=ray, count=count, threads=threads, gpus=each)
    asked._takes = Workers._takes.fget(asked)
    assert Workers._wanted(asked) == wanted
