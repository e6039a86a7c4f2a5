"""What an evaluation measures: data, loss, metrics and recovery."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import starmap
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..errors import ObjectiveError
from ..tracing.program import evaluating
from ..values.arguments import arguments, call, inputs_in, placed
from ..values.description import digest, lines
from ..values.markup import card
from ..values.nested import device_of, tensors_of
from .loaders import (
    Batch,
    check_disjoint,
    examples,
    inputs_of,
    items,
    pair_of,
    read,
    require_examples,
)
from .losses import named_loss, named_metrics, perplexity, reads_places
from .measurement import Measurement, OfBatch, gathered, gathers, mean_of, metric_of, values_of
from .records import Split, whole_of
from .sizes import Lots

RecoveryKind = Literal["none", "batchnorm", "linear"]

FEWEST = 32  # calibration examples, or tokens of some, to fit weights to
_TOKENS = (torch.int64, torch.int32)
TRIAL, LEAST = 4, 100  # a trial sees a quarter of the verify split, and at least 100 examples


@dataclass(frozen=True, eq=False)
class Recovery:
    """Training-free repair of the weights that stay, part of every evaluation.

    Args:
        kind: "batchnorm" takes the statistics of every batch norm behind a removal from the
            calibration data, layer by layer (Li et al., EagleEye, ECCV 2020); "linear" also fits
            the weights of the layers behind a removal there, by least squares, so that each
            gives what it gave in the unpruned network (docs/engine.md); "none" does nothing.
        calibration: an iterable of (inputs, targets) or of inputs (of a model of two, pairs of
            tensors are inputs), from training data and as
            training saw them, augmented likewise: what a network loses by other statistics, every
            mask loses. It is one batch, however it is cut; 500 to 2 000 examples suffice.

    Raises:
        ObjectiveError: unknown kind, no calibration data, or too few for "linear".

    Examples:
        >>> recovery = ew.Recovery("batchnorm", [inputs for inputs, _ in batches])
        >>> objective = ew.Objective(batches, loss=F.cross_entropy, recovery=recovery)
    """

    kind: RecoveryKind = "none"
    calibration: Any = None
    items: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(RecoveryKind):
            known = ", ".join(f'"{kind}"' for kind in get_args(RecoveryKind))
            raise ObjectiveError(f"Recovery is one of {known}, got {self.kind!r}.")
        if self.kind != "none" and self.calibration is None:
            raise ObjectiveError(
                f'Recovery("{self.kind}") needs calibration data: a few hundred inputs.'
            )
        object.__setattr__(self, "items", items(self.calibration))
        batches = self.batches
        for number, inputs in enumerate(batches):
            require_examples(inputs, f"Calibration batch {number}")
        if self.kind != "none" and not batches:
            raise ObjectiveError("The calibration loader is empty.")
        count = sum(starmap(examples, map(pair_of, self.items)))
        rows = sum(map(_tokens, batches)) if count > 1 else 0
        if self.kind == "linear" and max(count, rows) < FEWEST:
            raise ObjectiveError(
                f'Recovery("linear") fits weights to the calibration data, which have {count} '
                f"examples. Give it at least {FEWEST}, or of text two sequences of together as "
                "many tokens; 500 to 2 000 are good."
            )

    @property
    def batches(self) -> tuple[Any, ...]:
        """The inputs of each batch; of pairs the first, as long as nobody says it takes two."""
        return tuple(inputs_of(item) for item in self.items)

    def pairs(self, raw: bool) -> tuple[Batch, ...]:
        """The batches with their targets, where they have any; as they are, or arguments."""
        pairs = map(pair_of, self.items)
        return tuple((i if raw else arguments(i), targets) for i, targets in pairs)

    def placed(self, names: Sequence[str]) -> Recovery:
        """The same with all inputs as tuples in the order of `names`, and no targets."""
        found = [placed(inputs_in(item, len(names)), names) for item in self.items]
        return replace(self, calibration=[(inputs, None) for inputs in found] or None)


def _tokens(inputs: Any) -> int:
    """The numbers of tokens [batch, length] in a batch, if it has any."""
    found = [t.numel() for t in tensors_of(inputs) if t.ndim > 1 and t.dtype in _TOKENS]
    return max(found, default=0)


@dataclass(frozen=True, eq=False)
class Objective:
    """Data, loss and metrics.

    The data are read once and kept in memory, so that every mask sees the same examples.

    Args:
        loader: the search split, an iterable of (inputs, targets) batches; inputs are a tensor, a
            tuple of them, or a dict by the names that the traced model gives them. A data set of
            single examples, or a pair of arrays or tensors of all of them, will do.
        loss: called as loss(outputs, targets); gives the mean over the batch (a scalar) or one
            value an example ([batch]). Per-example values also give confidence intervals. Or the
            name of a built-in one, as in a job file.
        metrics: further measures by name, called and averaged likewise; or objects with `reset`,
            `update(outputs, targets)` and `compute()`, such as torchmetrics', for what is no
            mean (AUC), and whose dicts are several. Names of built-in ones will do, and one or a
            list instead of a dict.
        recovery: training-free repair before measuring.
        verify: a second split that decides among the finalists. Its first quarter, in whole
            batches of together at least 100 examples, is the trial that most of them do not pass.
        report: a third, used once, for the chosen network.
        run: called as run(model, (inputs, targets)) where calling the model on a batch's inputs is
            not enough, with a batch as the loader gives it; what it returns goes to loss and
            metrics. It gets the model in eval mode, which it may change, and the same random
            numbers for every mask. It needs a graph of a part.
        precision: "bfloat16" or "float16", in which masks are measured on the search split, where
            that is faster, by torch's autocast; on all other splits, and in recovery, in that of
            the model.

    Raises:
        ObjectiveError: a loader is empty or gives something else than pairs.

    Examples:
        >>> objective = ew.Objective(batches, loss=F.cross_entropy, metrics={"hits": accuracy_fn})
        >>> objective.samples("search")
        32
    """

    loader: Any
    loss: Any
    metrics: Any = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)
    verify: Any = None
    report: Any = None
    run: Callable[[torch.nn.Module, Any], Any] | None = None
    precision: Literal["bfloat16", "float16"] | None = None
    splits: Mapping[Split, tuple[Batch, ...]] = field(init=False, repr=False)
    _lots: dict[Split, Lots] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in (None, "bfloat16", "float16"):
            raise ObjectiveError(f"precision is bfloat16 or float16, got {self.precision!r}.")
        object.__setattr__(self, "loss", named_loss(self.loss))
        object.__setattr__(self, "metrics", named_metrics(self.metrics))
        raw = self.run is not None
        splits: dict[Split, tuple[Batch, ...]] = {"search": read(self.loader, "search", raw)}
        if self.verify is not None:
            verify = read(self.verify, "verify", raw)
            trial = verify[: len(verify) // TRIAL]
            if sum(starmap(examples, trial)) >= LEAST:
                splits["trial"] = trial
            splits["verify"] = verify
        if self.report is not None:
            splits["report"] = read(self.report, "report", raw)
        if not isinstance(self.loader, tuple):  # as `over` gives them
            check_disjoint(splits)
        object.__setattr__(self, "splits", splits)

    def __repr__(self) -> str:
        return f"Objective({', '.join(f'{k}: {v}' for k, v in self._facts().items())})"

    def _repr_html_(self) -> str:
        return card("Objective", self._facts())

    def _facts(self) -> dict[str, str]:
        return {
            "loss": getattr(self.loss, "__name__", type(self.loss).__name__).lstrip("_"),
            "metrics": ", ".join(self.metrics) or "none",
            "recovery": self.recovery.kind,
            "examples": ", ".join(f"{self.samples(s)} {s}" for s in self.splits if s != "trial"),
        }

    def samples(self, split: Split) -> int:
        """Examples in a split, or in a size of one."""
        return len(self.lots(split).rows(split))

    def lots(self, split: Split) -> Lots:
        """How the examples of a split are dealt."""
        whole = whole_of(split)
        if whole not in self._lots:
            self._lots[whole] = Lots(self.splits[whole], self.run is None)
        return self._lots[whole]

    def numbered(self, split: Split) -> list[tuple[int, Batch]]:
        """The batches of a split, or of a size of one, with their numbers in the whole split."""
        return self.lots(split).of(split)

    def batches(self, split: Split) -> list[Batch]:
        """The batches of a split, or of a size of one."""
        return [batch for _, batch in self.numbered(split)]

    def measure(self, outputs: Iterable[Any], split: Split) -> Measurement:
        """Loss and metrics of the outputs of all batches of a split.

        Measures of a user's own get copies of outputs, since they may write into them. Batches
        count by the number of their inputs.

        Raises:
            ObjectiveError: a measure gives something else than a scalar or one value an example.
        """
        return self.together([self.of_batch(o, split, n) for n, o in enumerate(outputs)], split)

    def of_batch(self, outputs: Any, split: Split, number: int) -> OfBatch:
        """What loss and metrics say of a batch; its outputs where a metric wants all at once."""
        metrics = {name: m for name, m in self.metrics.items() if not gathers(m)}
        named = {"loss": self.loss} | {f"metric {name}": m for name, m in metrics.items()}
        loss, *found = values_of(named, outputs, self.batches(split)[number])
        values = dict(zip(metrics, found, strict=True))
        return OfBatch(loss, values, outputs if any(map(gathers, self.metrics.values())) else None)

    def together(self, batches: Sequence[OfBatch], split: Split) -> Measurement:
        """Loss and metrics of all batches of a split."""
        losses, found = [batch.loss for batch in batches], dict[str, tuple[float, int | None]]()
        for name, metric in self.metrics.items():
            if gathers(metric):
                outputs = [batch.outputs for batch in batches]
                found |= gathered(name, metric, zip(outputs, self.batches(split), strict=True))
            else:
                found[name] = metric_of(metric, [batch.metrics[name] for batch in batches])
        known = all(value.numel() == count for value, count in losses)
        return Measurement(
            loss=mean_of(losses),
            metrics={name: value for name, (value, _) in found.items()},
            each=torch.cat([value.reshape(-1) for value, _ in losses]) if known else None,
            counts={name: n for name, (_, n) in found.items() if n is not None},
        )

    @property
    def by_place(self) -> bool:
        """Whether all that is measured can be told from the logits of a few places at a time."""
        return all(map(reads_places, (self.loss, *self.metrics.values())))

    @property
    def adds_up(self) -> bool:
        """Whether what is measured of a split follows from what is measured of its parts."""
        return not any(map(gathers, self.metrics.values()))

    def average(self, name: str, values: Sequence[float], weights: Sequence[int]) -> float:
        """The loss ("") or a metric of all parts of a split, from what it is of each."""
        logs = self.metrics.get(name) is perplexity
        mean = np.average(np.log(values) if logs else values, weights=weights)
        return float(np.exp(mean) if logs else mean)

    @property
    def last(self) -> Split:
        """The split that choices have seen least of."""
        order: tuple[Split, ...] = ("report", "verify", "search")
        return next(split for split in order if split in self.splits)

    def score(self, model: torch.nn.Module, split: Split) -> Measurement:
        """Loss and metrics of a model as it is, in eval mode, without recovery."""

        def outputs() -> Iterator[Any]:  # one batch after another: logits of all take gigabytes
            for number, batch in self.numbered(split):
                with evaluating(model), torch.inference_mode():
                    found = self.outputs(model, batch, number)
                yield found

        return self.measure(outputs(), split)

    def outputs(self, model: torch.nn.Module, batch: Batch, number: int) -> Any:
        """What goes to loss and metrics of a batch; any random numbers depend on its number."""
        home = device_of(model) or device_of(batch[0])
        devices = [home] if home is not None and home.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(number)
            for device in devices:
                torch.cuda.default_generators[device.index].manual_seed(number)
            return call(model, batch[0]) if self.run is None else self.run(model, batch)

    def placed(self, names: Sequence[str]) -> Objective:
        """The same with all inputs as tuples, those of dicts in the order of `names`.

        Raises:
            ObjectiveError: a dict has other names.
        """
        own = copy.copy(self)
        own.__dict__["measures"] = self.measures  # as `over` does
        object.__setattr__(own, "recovery", self.recovery.placed(names))
        return own.over(lambda inputs: placed(inputs, names))

    def over(self, change: Callable[[Any], Any]) -> Objective:
        """The same with the batches that were read, their inputs changed, in place of loaders."""
        splits = {
            split: tuple((change(inputs), targets) for inputs, targets in part)
            for split, part in self.splits.items()
        }
        batches: Any = [(change(inputs), None) for inputs in self.recovery.batches] or None
        batches = batches if self.run is None else self.recovery.items or None
        changed = replace(
            self,
            loader=splits["search"],
            verify=splits.get("verify"),
            report=splits.get("report"),
            recovery=replace(self.recovery, calibration=batches),
        )
        # What a loss notes while it measures must not make another objective of it.
        changed.__dict__["measures"] = self.measures
        return changed

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """One line for whatever decides what loss, metrics and recovery compute."""
        named = {"loss": self.loss} | {f"metric {n}": m for n, m in sorted(self.metrics.items())}
        named |= {} if self.run is None else {"run": self.run}
        found = [line for name, measure in named.items() for line in lines(name, measure)]
        found += [f"precision: {self.precision}"] if self.precision else []
        return (*found, f"recovery: {self.recovery.kind}")

    @property
    def identity(self) -> tuple[str, ...]:
        """One line for each split, for the calibration data, and for what is measured on them."""
        data: dict[str, Any] = {k: v for k, v in self.splits.items() if k != "trial"}
        data |= {"calibration": self.recovery.batches} if self.recovery.batches else {}
        found = (
            f"{name} data: {digest(line for part in data[name] for line in lines('', part))}"
            for name in sorted(data)
        )
        return (*found, *self.measures)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all data and of what loss, metrics and recovery compute.

        Functions count by their code, closure, defaults and the globals that they read, objects by
        their state, tensors and arrays by their content; those of installed packages by name.
        """
        return digest(self.identity)
