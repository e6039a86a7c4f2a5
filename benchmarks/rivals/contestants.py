"""What edgewise, its baselines and other tools choose for the same shares of the MACs.

Everybody sees the same 500 search images, the same 1 500 training images to score by, and
batch-norm recovery from the same 500 training images (shifted and mirrored as in training);
searches measure likeness to the outputs of the unpruned network, and their finalists meet on
2 000 verify images.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import edgewise as ew
from branches import data
from edgewise.evaluation.records import Progress
from edgewise.study import scores
from edgewise.study.bench import baselines, bench
from resnet_cifar import ResNet, resnet20, resnet56
from rivals import channels, fastnas, kirigami
from widths import FLOOR, Targets, accuracy, cropped, imitation

MACS = (0.4, 0.6, 0.8)  # the budgets, in the order in which edgewise searches them
LIMIT, LATER, FINALISTS = 120, 60, 8  # evaluations at the first budget, at the others
GREEDY = 600  # as many as it needs
NETWORKS = {"resnet20": resnet20, "resnet56": resnet56}
OURS = ("edgewise-branches", "edgewise-joint")
FASTNAS = "fastnas"
SCORED = ("magnitude", "taylor", "influence")
SEARCHED = ("random", "leave-one-out", "evolution", "greedy")
METHODS = (*OURS, *channels.IMPORTANCE, *kirigami.SCORES, FASTNAS, *SCORED, *SEARCHED)


@dataclass(frozen=True)
class Choice:
    """A pruned network, not recovered.

    Args:
        macs: the share of the MACs that was asked for.
        model: the network.
        reached: its share of the MACs.
        params: its parameters.
        evaluations: masks measured for it, on any split.
        seconds: spent on it.
        mask: of what graph and which units are gone, where there is a graph.
    """

    macs: float
    model: nn.Module
    reached: float
    params: int
    evaluations: int
    seconds: float
    mask: tuple[ew.Graph, ew.Mask] | None = None


@dataclass(frozen=True)
class Contest:
    """A trained network, and the data of one seed."""

    network: str
    seed: int
    folder: Path
    storage: str
    calibrated: bool = False  # whether searches see the outputs after temperature scaling
    device: str = "cpu"

    def model(self) -> ResNet:
        model = NETWORKS[self.network]()
        model.load_state_dict(load_file(self.folder / f"{self.network}_cifar10.safetensors"))
        return model.to(self.device).eval()

    @property
    def example(self) -> Tensor:
        example = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        return example.to(self.device)

    @property
    def calibration(self) -> Tensor:
        first = 2000 * self.seed
        images = torch.cat([x for x, _ in data(self.folder, "train", first, first + 500)])
        return cropped(images, self.seed).to(self.device)

    @property
    def scoring(self) -> list:
        first = 2000 * self.seed
        return self.read("train", first, first + 1500)

    def read(self, name: str, start: int, stop: int) -> list:
        """Batches of the data, on the device."""
        found = data(self.folder, name, start, stop)
        return [(x.to(self.device), y.to(self.device)) for x, y in found]

    def imitated(self, start: int, stop: int) -> list:
        """Test images with (labels, what the unpruned network gives)."""
        model = self.model()
        with torch.no_grad():
            found = self.read("test", start, stop)
            return [(x, (y, model(x).softmax(1))) for x, y in found]

    @property
    def start(self) -> int:
        """The first of the 500 test images that searches see."""
        return 250 * (self.seed % 3)

    def objective(self) -> ew.Objective:
        return ew.Objective(
            self.imitated(self.start, self.start + 500),
            loss=calibrated if self.calibrated else imitation,
            metrics={"accuracy": accuracy},
            recovery=ew.Recovery("batchnorm", [self.calibration]),
            verify=self.imitated(1000, 3000),
        )

    def study(self, kinds: tuple[str, ...]) -> ew.Study:
        """The study of the network's branches, or of these and of widths, that save MACs."""
        taylor = ew.importance.taylor(self.scoring, F.cross_entropy)
        graph = ew.trace(self.model(), (self.example,), granularity=kinds, importance=taylor)
        graph = graph.select(lambda unit: unit.kind != "edge" or unit.cost.macs > 0)
        name = f"{self.network}-{'-'.join(kinds)}-{self.seed}{'-calibrated' * self.calibrated}"
        return ew.Study(graph, self.objective(), self.storage, name)


def calibrated(out: Tensor, targets: Targets) -> Tensor:
    """`imitation`, of outputs scaled by the number that suits them best."""
    wanted = targets[1]
    least = torch.special.entr(wanted).sum(1)
    return ew.calibrated_cross_entropy(out, wanted) - least + FLOOR


def choices(contest: Contest, method: str) -> Iterator[Choice]:
    """What a method chooses at each budget."""
    if method in (*channels.IMPORTANCE, *kirigami.SCORES, FASTNAS):
        yield from _networks(contest, method)
    elif method in OURS:
        yield from _ours(contest.study(("edge", "hidden") if "joint" in method else ("edge",)),
                         contest.seed)  # fmt: skip
    else:
        yield from _baseline(contest, method)


def _networks(contest: Contest, method: str) -> Iterator[Choice]:
    """Of tools that cut channels themselves, and leave no mask."""
    begin, model, example = time.time(), contest.model(), contest.example
    found: Iterable[tuple[float, nn.Module, int]]
    if method == FASTNAS:
        search = contest.read("test", contest.start, contest.start + 500)
        found = fastnas.pruned(contest.model, example, contest.calibration, search, MACS)
    else:
        pruned = channels.pruned if method in channels.IMPORTANCE else kirigami.pruned
        cut = pruned(contest.model(), example, contest.scoring, method, MACS)
        found = ((macs, small, 0) for macs, small in cut)
    whole = channels.macs(model, example)
    for macs, small, measured in found:
        share, params = channels.macs(small, example) / whole, channels.params(small)
        yield Choice(macs, small, share, params, measured, time.time() - begin)


def _ours(study: ew.Study, seed: int) -> Iterator[Choice]:
    """All budgets from one study; a later one starts from all that is known."""
    for number, macs in enumerate(MACS):
        begin, budget, told = time.time(), ew.Budget(macs=macs), list[Progress]()
        limit = LATER if number else LIMIT
        study.run(evaluations=limit, budget=budget, seed=seed, progress=told.append)
        plan = study.plan(budget, finalists=FINALISTS, progress=told.append)
        mask = study.graph.mask(bits=plan.bits)
        yield _choice(study, macs, mask, len(told), time.time() - begin)


def _baseline(contest: Contest, method: str) -> Iterator[Choice]:
    study = contest.study(("edge",))
    for macs in MACS:
        begin, budget = time.time(), ew.Budget(macs=macs)
        if method == "taylor":  # the loss of the search has no gradient at the unpruned network
            found = scores.taylor(study.graph, contest.scoring, F.cross_entropy)
            (asked,) = study.follow(baselines.scored(study.space(budget), found))
            mask = study.graph.mask(bits=asked.mask)
            yield _choice(study, macs, mask, 1, time.time() - begin)
            continue
        limit = {"greedy": GREEDY, "random": 1}.get(method, LIMIT)
        for row in bench(study, budget, (method,), evaluations=limit, seeds=[contest.seed],
                         finalists=FINALISTS):  # fmt: skip
            mask = study.graph.mask(row.removed)
            yield _choice(study, macs, mask, row.evaluations, row.seconds)


def _choice(
    study: ew.Study, macs: float, mask: ew.Mask, evaluations: int, seconds: float
) -> Choice:
    cost, whole = ew.cost(study.graph, mask), ew.cost(study.graph)
    small = ew.prune(study.graph, mask)
    share = cost.macs / whole.macs
    return Choice(macs, small, share, cost.params, evaluations, seconds, (study.graph, mask))
