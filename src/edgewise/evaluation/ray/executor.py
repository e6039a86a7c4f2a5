"""Measuring on many processes and machines with Ray: settings, connection, and who starts it."""

import logging
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...errors import ExecutorError
from ...graph.graph import Graph
from ...values.quantities import check_count
from ..engine import EngineOptions
from ..engine.order import visiting_order
from ..objective import Objective
from .shipping import pack
from .workers import Workers

CONNECT_SECONDS = 10.0
STARTS = 3


@dataclass(frozen=True)
class Ray:
    """Measure masks on Ray workers: `Study(..., executor=ew.Ray())`.

    Graph and objective are sent once to each worker; functions of files that are not installed
    travel with their code. Results equal those of one process to the last bit where the machines
    compute alike. Workers may join, die or be slow.

    Args:
        address: "local" starts Ray in this process; "auto" joins the cluster that this machine
            is part of; or its "HOST:PORT". If this process is connected already, that is used.
        workers: how many; None = as many as there is room for, also when machines join.
        threads: torch threads, and CPUs, of each worker.
        gpus: of each worker, which may share one (0.25); None = 1 if the model is on a GPU, else
            none.
        patience: seconds of silence after which a worker may be thought stuck, if it also takes
            ten times as long as others did.

    Raises:
        ExecutorError: a number makes no sense; when called: Ray is not installed, there is no
            cluster at the address, or the objective cannot be sent.

    Examples:
        >>> with ew.Study(graph, objective, executor=ew.Ray(workers=2)) as study:
        ...     study.run(20, ew.Budget(macs=0.7))
    """

    address: str = "local"
    workers: int | None = None
    threads: int = 1
    gpus: float | None = None
    patience: float = 60.0

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), error=ExecutorError)
        gpus = self.gpus
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if gpus is not None and not (number and 0 <= gpus < math.inf):
            raise ExecutorError(f"gpus must be a number of at least 0, got {gpus!r}.")
        if not self.patience > 0:
            raise ExecutorError(f"patience must be a positive number, got {self.patience!r}.")

    def __call__(
        self, graph: Graph, objective: Objective, engine: EngineOptions | None = None
    ) -> Workers:
        """Connect, send the job, and start workers."""
        ray = _require_ray()
        cargo = pack(graph, objective, ray.cloudpickle)  # before anything is started
        leave = self._connect(ray)
        gpus = float(graph.program.device.type == "cuda") if self.gpus is None else self.gpus
        try:
            return Workers(
                ray, ray.put(cargo), objective, engine or EngineOptions(),
                partial(visiting_order, graph), self.threads, gpus, self.workers, self.patience,
                leave,
            )  # fmt: skip
        except BaseException:
            leave()
            raise

    def _connect(self, ray: Any) -> Callable[[], None]:
        """Connect if need be; returns what undoes it."""
        if ray.is_initialized():
            return lambda: None
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == "local":
            options["include_dashboard"] = False
            if self.workers is not None:
                options["num_cpus"] = self.workers * self.threads
        elif self.address != "auto":
            _check_reachable(self.address)
        _init(ray, self.address, options)
        return ray.shutdown  # type: ignore[no-any-return]


def _require_ray() -> Any:
    try:
        import ray
        import ray.cloudpickle
        import ray.exceptions
    except ImportError as error:
        raise ExecutorError(
            "ray is needed for this and not installed: pip install 'edgewise[ray]'"
        ) from error
    return ray


def _init(ray: Any, address: str, options: dict[str, Any]) -> None:
    """ray.init; a busy machine may need more than the half minute that Ray gives itself."""
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address, **options)
            return
        except BaseException as error:
            ray.shutdown()
            if not isinstance(error, Exception):
                raise
            if address != "local" or attempt == STARTS:
                raise _unreachable(address, error) from error


def _check_reachable(address: str) -> None:
    """Raise ExecutorError unless something listens: Ray itself would wait for minutes."""
    host, mark, port = address.rpartition(":")
    if not mark or "/" in host or not port.isdigit():
        raise ExecutorError(
            f'A Ray address is "local", "auto" or "HOST:PORT", got {address!r}. Programs run on a '
            "machine of the cluster; the Ray client (ray://) is not supported."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ExecutorError:
    if address == "local":
        return ExecutorError(f"Ray cannot be started on this machine: {error}")
    return ExecutorError(
        f"There is no Ray cluster at {address!r} that this machine is part of: {error}. `ray start "
        "--head` on the first machine says the address, `ray start --address=ADDRESS` joins others."
    )
