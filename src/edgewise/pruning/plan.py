"""The chosen mask with everything needed to trust, apply and reproduce it; a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..errors import PlanError
from ..graph.graph import Cost
from ..values.files import read_json, sha256, write_atomically, write_text
from ..values.markup import card
from ..values.quantities import duration
from ..values.reading import read_fields, read_value
from .certificate import Certificate
from .edits import from_dict
from .recorded import check_trace, read_tensors

SCHEMA = 4
TOLERANCE = 0.05  # by which a measured latency may exceed its limit


@dataclass(frozen=True)
class Measured:
    """A loss and metrics measured on one split, beside those of the unpruned network there.

    `interval` is a 95 % bootstrap interval of the mean loss when per-sample losses are known, and
    `metric_intervals` the exact 95 % intervals (Clopper & Pearson 1934) of metrics that are 0 or 1
    for every example, such as accuracy. On the report split, which had no part in the choice, they
    hold for the chosen network on new data of the same kind.
    """

    loss: float
    metrics: Mapping[str, float]
    samples: int
    unpruned_loss: float
    unpruned_metrics: Mapping[str, float]
    interval: tuple[float, float] | None = None
    metric_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def intervals(self) -> str:
        """The 95 % intervals in words; empty if there are none."""
        found = {"loss": (self.loss, self.interval)} if self.interval else {}
        for name, interval in self.metric_intervals.items():
            found[name] = (self.metrics[name], interval)
        return "; ".join(
            f"{name} {value:.4f}, 95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
            for name, (value, interval) in found.items()
        )


@dataclass(frozen=True)
class Clocked:
    """The latency of the pruned model, measured in turns with the unpruned one.

    Ratios of the two are what is measured, since a busy machine slows both alike; seconds are these
    ratios times what the unpruned network took when the latency table was measured.

    Args:
        bits: the mask as text.
        seconds: of one batch, the median.
        interval: its quartiles.
        unpruned: seconds of the unpruned network, as in the table.
        limit: seconds that the budget allows.
        predicted: seconds that the table predicted, after its corrections.
        tries: masks that were chosen and measured, this one included.
        rounds: how often both models were run.
        run: median seconds of the unpruned and the pruned model in this run itself.
        target: machine, device, threads, batch size and dtype.
    """

    bits: str
    seconds: float
    interval: tuple[float, float]
    unpruned: float
    limit: float
    predicted: float
    tries: int
    rounds: int
    run: tuple[float, float]
    target: Mapping[str, Any]

    def __str__(self) -> str:
        low, high = map(duration, self.interval)
        missed = "" if self.met else ": MISSED"
        rest = {k: v for k, v in self.target.items() if k != "torch"}
        return (
            f"Latency of the pruned model: {duration(self.seconds)} (quartiles {low} to {high}), "
            f"limit {duration(self.limit)}{missed}; "
            f"{', '.join(f'{name} {value}' for name, value in rest.items())}"
        )

    @property
    def met(self) -> bool:
        """Whether the limit is kept within 5 %."""
        return self.seconds <= self.limit * (1 + TOLERANCE)

    @property
    def off(self) -> bool:
        """Whether the limit is missed, or was not used because too much was predicted."""
        least = min(self.limit, self.predicted) * (1 - TOLERANCE)
        return not self.met or self.seconds < least


@dataclass(frozen=True)
class Plan:
    """A mask chosen for a budget.

    Args:
        bits: the mask as text, "1" = removed.
        fingerprint: of the graph the mask belongs to.
        removed: names of the removed units.
        protected: names of the units whose single removal is fatal.
        budget: the limits it was chosen for.
        before: cost of the unpruned network.
        after: cost of the pruned network.
        predicted: the surrogate's loss and its standard deviation on the search split.
        measured: by split ("search", "verify", "report") what was measured.
        surrogate: name of the surrogate that chose.
        recovery: "none", "batchnorm" or "linear"; the recovered tensors are in `tensors`.
        trace: what `ew.load` needs to trace the model again: granularity, unit names and the
            shapes and dtypes of the example inputs.
        provenance: study, seed, counts of evaluations, versions.
        latency: measured on the real pruned model, if latency was limited.
        certificate: what is promised beside the measurements.
        edits: what becomes of each module of the model, {"modules": ...} as data of
            `edgewise.pruning.edits`, or {"reason": why its own class cannot do it}.
        tensors: recovered tensors by name, stored beside the JSON as safetensors.
        labels: what a person calls that which is removed, of nested slices the last.

    Examples:
        >>> path = study.plan().save("plan.json")
        >>> plan = ew.Plan.load(path)
        >>> plan.removed == tuple(graph.units[u].name for u in graph.mask(bits=plan.bits).removed)
        True
    """

    bits: str
    fingerprint: str
    removed: tuple[str, ...]
    protected: tuple[str, ...]
    budget: Mapping[str, float | str]
    before: Cost
    after: Cost
    predicted: Mapping[str, float | None]
    measured: Mapping[str, Measured]
    surrogate: str
    recovery: str
    trace: Mapping[str, Any]
    provenance: Mapping[str, Any]
    latency: Clocked | None = None
    certificate: Certificate | None = None
    edits: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)
    labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{k}: {v}' for k, v in self._facts().items())})"

    def _repr_html_(self) -> str:
        return card(
            "Plan",
            {**self._facts(), "removed": ", ".join(self.labels or self.removed) or "nothing"},
        )

    def _facts(self) -> dict[str, str]:
        """What it removes, saves and scores, a line each."""
        facts = {"removed": f"{len(self.removed)} of {len(self.bits)} units"}
        for name, key in (("MACs", "macs"), ("parameters", "params")):
            before, after = getattr(self.before, key), getattr(self.after, key)
            facts[name] = f"{before:,} → {after:,} ({after / max(before, 1) - 1:+.1%})"
        for split, found in self.measured.items():
            values = {"loss": found.loss, **found.metrics}
            facts[split] = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        return facts

    @property
    def promises(self) -> tuple[str, ...]:
        """All that is promised of this plan, one sentence each; see docs/certificate.md."""
        found, report = self.certificate or Certificate(), self.measured.get("report")
        new = report.intervals if report else ""
        held = (
            f"On {report.samples:,} examples that had no part in the choice: {new}."
            if report
            else ""
        )
        parts = (found.proof, held if new else "", found.rivals)
        return tuple(str(part) for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready data, without the tensors."""
        data = asdict(replace(self, tensors={}))
        del data["tensors"]
        return {"schema": SCHEMA, **data}

    def save(self, path: str | Path) -> Path:
        """Write PATH, and the recovered tensors beside it as PATH with suffix .safetensors.

        Raises:
            PlanError: the place cannot be written to.
        """
        path = Path(path)
        data = self.to_dict()
        try:
            if self.tensors:
                weights = path.with_suffix(".tensors.safetensors")
                tensors = {k: v.detach().cpu().contiguous() for k, v in self.tensors.items()}
                write_atomically(weights, lambda to: save_file(tensors, to))
                data["tensors"] = {"file": weights.name, "sha256": sha256(weights)}
            text = json.dumps(data, indent=2) + "\n"
            write_text(path, text)
        except OSError as error:
            raise PlanError(f"The plan cannot be written to {path}: {error}") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan and its tensors.

        Raises:
            PlanError: the file is missing, damaged, or of another schema.
        """
        path = Path(path)
        try:
            data = read_json(path)
        except FileNotFoundError:
            raise PlanError(
                f"There is no plan {path}: `edgewise run` or plan.save(...) writes one."
            ) from None
        except (OSError, ValueError) as error:
            raise PlanError(f"{path} is not a readable plan: {error}") from error
        if not isinstance(data, dict) or "schema" not in data:
            raise PlanError(f"{path} is not a plan: it has no schema version.")
        try:
            schema = read_value(int, data.pop("schema"), "schema")
            if schema != SCHEMA:
                raise PlanError(
                    f"{path} has schema {schema}, this edgewise reads {SCHEMA}. Read it with the "
                    "edgewise that wrote it, or have the study plan again."
                )
            return cls._from_dict(data, path.parent)
        except ValueError as error:
            raise PlanError(f"{path} is damaged: {error}. Use the plan as it was saved.") from error

    @classmethod
    def _from_dict(cls, data: dict[str, Any], folder: Path) -> Plan:
        plan = read_fields(cls, data, "", known=("tensors",), tensors={})
        if set(plan.bits) - {"0", "1"}:
            raise ValueError("its bits are not all 0 or 1")
        check_trace(plan.trace, plan.bits)
        if plan.edits.get("bits", plan.bits) != plan.bits:
            raise ValueError("its edits are those of another mask than its bits")
        if "modules" in plan.edits:
            from_dict(plan.edits)
        for split, found in plan.measured.items():
            names = found.metrics.keys()
            if names != found.unpruned_metrics.keys() or found.metric_intervals.keys() - names:
                raise ValueError(f"measured.{split} has other metrics before than after")
        if plan.certificate is not None:
            plan.certificate.check(data["certificate"])
        return replace(plan, tensors=read_tensors(data.get("tensors"), folder))
