"""Stand-ins for trackers that the tests do not install: they note what they are told."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class Trackers:
    """Modules of the names `wandb` and `mlflow` with the functions that the page uses."""

    def __init__(self) -> None:
        self.told: dict[str, list[Any]] = {"wandb": [], "mlflow": [], "files": []}
        run = SimpleNamespace(log=self.told["wandb"].append)
        self.modules = {
            "wandb": SimpleNamespace(init=lambda project, config: self._run(run)),
            "mlflow": SimpleNamespace(
                start_run=lambda: self._run(run),
                log_metrics=lambda values, step: self.told["mlflow"].append((step, values)),
                log_artifact=self.told["files"].append,
            ),
        }

    @contextmanager
    def _run(self, run: Any) -> Any:
        yield run
