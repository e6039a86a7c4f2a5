"""How long the operators of a graph take on one target: a file that can be used again."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import LatencyError
from ..graph.graph import Graph
from ..graph.times import OperatorTimes, corrected
from ..values.files import read_json, write_text
from ..values.reading import read_fields

SCHEMA = 1
NEAR = 100.0  # networks elsewhere that one near the budget counts as much as
_AGAIN = "Measure it again with ew.latency.measure(graph)."
_WORDS = {"machine": "the machine", "device": "device", "threads": "threads =", "batch": "batch =",
          "dtype": "dtype", "torch": "torch"}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What a latency holds for.

    Args:
        machine: the processor's name, or the accelerator's.
        device: "cpu", "cuda", …
        threads: of torch.
        batch: examples that go through the network together.
        dtype: of the weights.
        torch: its version.
    """

    machine: str
    device: str
    threads: int
    batch: int
    dtype: str
    torch: str

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}"
        return (
            f"batch {self.batch}, {self.dtype}, {self.machine}"
            f"{threads if self.device == 'cpu' else ''}"
        )


@dataclass(frozen=True)
class Ratio:
    """A pruned network's time relative to the unpruned one's, which took turns with it.

    Args:
        bits: the mask as text.
        median: of the ratios of all rounds.
        interval: their quartiles.
        rounds: how many.
        seconds: medians of the unpruned and of the pruned network in this run.
        weight: with which the table's correction is fitted to it.
    """

    bits: str
    median: float
    interval: tuple[float, float]
    rounds: int
    seconds: tuple[float, float]
    weight: float = 1.0


@dataclass(frozen=True)
class LatencyTable:
    """How long each operator of a graph takes on a target, and a few whole pruned networks.

    Args:
        fingerprint: of the graph.
        target: machine, device, threads, batch size and dtype.
        unpruned: seconds of one batch through the unpruned network.
        parts: for each vertex, seconds that do not depend on its widths, and those in proportion
            to its MACs, to the elements that it reads, and to those that it gives.
        networks: pruned networks that were measured, by which the sum is corrected.

    Examples:
        >>> path = ew.latency.measure(graph, rounds=3).save("latency.json")
        >>> ew.latency.LatencyTable.load(path).target.batch
        2
    """

    fingerprint: str
    target: Target
    unpruned: float
    parts: tuple[tuple[float, ...], ...]
    networks: tuple[Ratio, ...]

    def times(self, graph: Graph) -> OperatorTimes:
        """What predicts the latency of masks of the graph, corrected."""
        measured = [(graph.mask(bits=r.bits), r.median, r.weight) for r in self.networks]
        return corrected(graph, np.array(self.parts), self.unpruned, measured)

    def refitted(self, found: Ratio) -> LatencyTable:
        """The table corrected by a network near the budget, which counts more than others."""
        return replace(self, networks=(*self.networks, replace(found, weight=NEAR)))

    def check(
        self,
        graph: Graph,
        *,
        batch: int | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> LatencyTable:
        """This table, if it is of a graph, of this machine, and of the given settings.

        Raises:
            LatencyError: it is of something else; says of what, and what was expected.
        """
        if graph.fingerprint != self.fingerprint or len(self.parts) != len(graph.vertices):
            raise LatencyError(
                f"The latency table is of another model or other units: graph "
                f"{self.fingerprint[:12]}, this one is {graph.fingerprint[:12]}. {_AGAIN}"
            )
        mine = self.target
        here = target_of(
            graph,
            batch or mine.batch,
            threads or mine.threads,
            torch.device(device).type if device else mine.device,
        )
        for field in fields(Target):
            was, now = getattr(mine, field.name), getattr(here, field.name)
            if was != now:
                raise LatencyError(
                    f"The latency table was measured with {_WORDS[field.name]} {was}, but this is "
                    f"{now}. {_AGAIN}"
                )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON-ready data."""
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write the table as JSON.

        Raises:
            LatencyError: the place cannot be written to.
        """
        path, text = Path(path), json.dumps(self.to_dict()) + "\n"
        try:
            write_text(path, text)
        except OSError as error:
            raise LatencyError(f"The latency table cannot be written to {path}: {error}") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table.

        Raises:
            LatencyError: the file is missing, damaged, or newer than this program.
        """
        try:
            data = read_json(Path(path))
            schema = data.pop("schema")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LatencyError(f"{path} is not a readable latency table: {error!r}") from error
        if schema != SCHEMA:
            raise LatencyError(
                f"{path} has schema {schema!r}, this edgewise reads {SCHEMA}. {_AGAIN}"
            )
        try:
            table = read_fields(cls, data, "", known=())
            if any(len(row) != 4 or min(row) < 0 for row in table.parts):
                raise ValueError("every operator has four parts, none below 0")
            if any(set(found.bits) - {"0", "1"} for found in table.networks):
                raise ValueError("bits are 0 or 1")
            if not table.unpruned > 0:
                raise ValueError(f"unpruned must be above 0, got {table.unpruned}")
        except ValueError as error:
            raise LatencyError(f"{path} is damaged: {error}. {_AGAIN}") from error
        return table


def target_of(graph: Graph, batch: int, threads: int, device: str | None = None) -> Target:
    """This machine, for a graph and these settings.

    Raises:
        LatencyError: the device is none, or there is none like it here.
    """
    tensors = [t for t in graph.program.module.state_dict().values() if t.is_floating_point()]
    try:
        place = torch.device(device or (tensors[0].device if tensors else "cpu"))
        machine = torch.cuda.get_device_name(place) if place.type == "cuda" else processor()
    except (RuntimeError, AssertionError) as error:
        raise LatencyError(f"Device {device!r} cannot be used here: {error}") from error
    dtype = str(tensors[0].dtype).removeprefix("torch.") if tensors else "float32"
    version = torch.__version__.partition("+")[0]
    return Target(machine, place.type, threads, batch, dtype, version)


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
