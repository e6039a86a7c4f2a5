"""Widths of SmolLM2-135M: channels of MLPs and groups of heads go, with branches or without.

FLAP (An et al. 2024, written from the paper), the ranking by Taylor's importance, and edgewise's
search over branches and widths, at the shares of compare.py and on its texts. Channels are ordered
by calibration text; search text decides, which all methods see as often as there. Rows go to the
JSON of compare.py, and rows that are in it are not measured again.

    python benchmarks/language/widths.py --data ../shared/data/text --layers 8 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewise as ew
from edgewise.evaluation.losses import perplexity
from edgewise.graph.coupling import Place
from edgewise.graph.graph import Graph, Mask
from edgewise.search import Space
from edgewise.search.picks import ranked_pick
from edgewise.study.statistics import examples_seen
from language.compare import recovered
from language.problem import LAYERS, Problem, following, judged, label
from language.rivals import EVALUATIONS
from machine import describe

FINE = 48  # slices a width, for masks that are not searched
TOGETHER = 4  # sequences whose gradients are held
# a graph and its mask, what finding it took, and the pruned model where it is a rival's own
Found = tuple[Graph, Mask, dict[str, Any], Callable[..., Any] | None]


class Widths:
    """The model, its texts, and graphs of its widths."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.calibration = problem.splits["calibration"]

    def batches(self, split: str) -> list[tuple[dict[str, Tensor], Tensor]]:
        ids = self.problem.splits[split]
        return [({"input_ids": ids}, following(ids))]

    def graph(self, importance: Any, kinds: Sequence[str], slices: int) -> Graph:
        ids = self.problem.splits["search"][:2, :32]
        branches = {label(k) for k in range(len(self.problem.params))}
        graph = ew.trace(
            self.problem.model, (), {"input_ids": ids, "use_cache": False},
            granularity=kinds, slices=slices, importance=importance,
        )  # fmt: skip
        return graph.select(lambda unit: bool(unit.group) or unit.label in branches)

    def taylor(self) -> Any:
        few = [({"input_ids": x}, following(x)) for x in self.calibration.split(TOGETHER)]
        return ew.importance.taylor(few, perplexity)

    @cache  # noqa: B019 - one of each a process
    def searched(self) -> Graph:
        return self.graph(self.taylor(), ("branch", "hidden", "heads"), 8)

    @cache  # noqa: B019
    def ranked(self) -> Graph:
        return self.graph(self.taylor(), ("hidden", "heads"), FINE)

    def budget(self, share: float) -> ew.Budget:
        whole = sum(p.numel() for p in self.problem.model.parameters())
        return ew.Budget(params=whole - int(share * self.problem.params.sum()))


def taylor(widths: Widths, share: float, seed: int) -> Found:
    """The channels and heads that Taylor's importance calls least, in one ranking of all."""
    graph = widths.ranked()
    mask = ranked_pick(Space(graph, widths.budget(share)))
    assert mask is not None
    return graph, mask, {"evaluations": 0.0, "tokens": 0}, None


def edgewise(widths: Widths, share: float, seed: int) -> Found:
    """The joint search; verify text decides."""
    graph, problem = widths.searched(), widths.problem
    objective = ew.Objective(
        widths.batches("search"), loss="perplexity", verify=widths.batches("verify"),
        precision="bfloat16",
    )  # fmt: skip
    study = ew.Study(graph, objective)
    study.run(EVALUATIONS, widths.budget(share), seed=seed)
    search = [e for e in study.evaluations if e.split.startswith("search")]
    seen, text = examples_seen(search), problem.splits["search"]
    spent = {
        "evaluations": seen / len(text), "tokens": seen * text.shape[1],
        "measuring_seconds": round(sum(e.seconds for e in search), 1),
    }  # fmt: skip
    return graph, graph.mask(bits=study.plan().bits), spent, None


class Flap:
    """The model without channels and heads as FLAP leaves it: their means stay, in biases.

    The score of a channel is how much what a layer reads of it varies, times the squared norm of
    the weights that read it; it is standardised within the layer. Channels go by 32, heads by
    groups that share keys and values, the least mean score of all first.
    """

    def __init__(self, widths: Widths, share: float) -> None:
        self.problem = widths.problem
        layers = self.problem.model.model.layers
        self.readers = [
            reader for layer in layers for reader in (layer.self_attn.o_proj, layer.mlp.down_proj)
        ]
        attention = layers[0].self_attn
        self.sizes = [
            attention.head_dim * attention.num_key_value_groups,
            self.readers[1].in_features // FINE,
        ]
        seen = self._read(widths.calibration)
        self.means = [x.mean(0) for x in seen]
        self.scores = [
            x.var(0) * reader.weight.detach().square().sum(0)
            for x, reader in zip(seen, self.readers, strict=True)
        ]
        self.gone = self._least(share)

    def _read(self, ids: Tensor) -> list[Tensor]:
        """[tokens, channels] that each reader reads."""
        seen: list[list[Tensor]] = [[] for _ in self.readers]
        with hooked(self.readers, [lambda x, found=found: found.append(x) for found in seen]):
            for some in ids.split(TOGETHER):
                self.problem.model.model(some, use_cache=False)
        return [torch.cat(found).flatten(0, 1) for found in seen]

    def _order(self, place: int) -> Tensor:
        """Channels of a reader, the least first; those of a group of heads stay together."""
        size = self.sizes[0] if place % 2 == 0 else 1
        groups = self.scores[place].view(-1, size).mean(1).argsort()
        return (groups[:, None] * size + torch.arange(size)).flatten()

    def _least(self, share: float) -> list[int]:
        """How many pieces of each reader go; one stays."""
        pieces = []
        for place, score in enumerate(self.scores):
            standard = (score - score.mean()) / score.std()
            means = standard[self._order(place)].view(-1, self.sizes[place % 2]).mean(1)[:-1]
            pieces += [(float(m), k, place) for k, m in enumerate(means)]
        gone, left = [0] * len(self.readers), share * self.problem.params.sum()
        for _, k, place in sorted(pieces):
            if left > 0:
                gone[place] = max(gone[place], k + 1)
                whole = len(self.scores[place]) // self.sizes[place % 2]
                left -= self.problem.params[place] / whole
        return gone

    def __call__(self, **inputs: Any) -> Any:
        """What the pruned model with its biases gives."""
        instead = []
        for place, (count, average) in enumerate(zip(self.gone, self.means, strict=True)):
            cut = torch.zeros(len(average), dtype=torch.bool)
            cut[self._order(place)[: count * self.sizes[place % 2]]] = True
            instead.append(lambda x, cut=cut, average=average: torch.where(cut, average, x))
        with hooked(self.readers, instead):
            return self.problem.model(**inputs)

    def importance(self, graph: Graph, writes: Sequence[Place], reads: Sequence[Place]) -> Any:
        """The same order for edgewise's widths."""
        found = {}
        for place in reads:
            vertex = graph.vertices[place.vertex]
            part = re.search(r"layers\.(\d+)\.(self_attn|mlp)$", vertex.module or "")
            at = 2 * int(part[1]) + (part[2] == "mlp") if part else -1
            if part and vertex.channels(place.axis) == len(self.scores[at]):
                found[place] = self.scores[at].double().numpy()
        return found

    def mask(self, graph: Graph) -> Mask:
        """The mask of the same pieces in a graph that this order was given."""
        removed: list[int] = []
        for group in graph.nested:
            label = graph.units[group[0]].label
            place = 2 * int(re.findall(r"\d+", label)[0]) + (" mlp " in label)
            removed += group[: self.gone[place]]
        return graph.mask(removed)


@contextmanager
def hooked(modules: Sequence[nn.Module], see: Sequence[Callable[[Tensor], Any]]) -> Iterator[None]:
    """Each module reads what its function gives of its input, or the input where that is None."""
    hooks = [
        module.register_forward_pre_hook(
            lambda _, x, own=own: None if (new := own(x[0])) is None else (new,)
        )
        for module, own in zip(modules, see, strict=True)
    ]
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def flap(widths: Widths, share: float, seed: int) -> Found:
    """FLAP's channels and heads; as pruned with its own biases."""
    own = Flap(widths, share)
    graph = widths.graph(own.importance, ("hidden", "heads"), FINE)
    return graph, own.mask(graph), {"evaluations": 0.0, "tokens": 0}, own


def row(widths: Widths, method: str, share: float, seed: int) -> dict[str, Any]:
    problem, start = widths.problem, time.process_time()
    graph, mask, spent, own = METHODS[method](widths, share, seed)
    seconds = round(time.process_time() - start, 1)
    whole, left = ew.cost(graph).params, ew.cost(graph, mask).params
    pruned = own or ew.masked(graph, mask)
    reports = [k for k in problem.splits if k.startswith("report")]
    return {
        "method": method, "share": share, "seed": seed, "mask": str(mask),
        "removed": [graph.units[unit].label for unit in mask.removed],
        "share_removed": (whole - left) / float(problem.params.sum()), **spent,
        "seconds": seconds, "search": judged(problem, pruned, "search")["loss"],
        "verify": judged(problem, pruned, "verify")["loss"],
        "pruned": {k: judged(problem, pruned, k) for k in reports},
        "text": problem.text, "search_in": "bfloat16", **recovered(problem, graph, str(mask)),
    }  # fmt: skip


METHODS: dict[str, Callable[[Widths, float, int], Found]] = {
    "Taylor, widths": taylor, "FLAP": flap, "edgewise, branches and widths": edgewise,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/language.json"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--layers", nargs="+", type=int, default=list(LAYERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--text", default="wikitext", choices=["both", "wikitext", "brown"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    widths = Widths(Problem(options.data, options.text, fast=False))
    record: dict[str, Any] = {"machine": describe(), "rows": []}
    if options.out.exists():
        record = json.loads(options.out.read_text())
    done = {(r["method"], r["share"], r["seed"], r["text"]) for r in record["rows"]}
    shares = [2 * count / len(widths.problem.params) for count in options.layers]
    asked = [
        (method, share, seed)
        for share in shares
        for method in options.methods
        for seed in (options.seeds if METHODS[method] is edgewise else [0])
    ]
    for method, share, seed in asked:
        if (method, share, seed, options.text) in done:
            continue
        record["rows"].append(row(widths, method, share, seed))
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        told = record["rows"][-1]
        told = {k: told[k] for k in ("share_removed", "search", "verify", "pruned", "recovered")}
        print(method, round(share, 3), seed, told, flush=True)


if __name__ == "__main__":
    main()
