"""What others do to drop layers or sub-blocks, each as a small function on one meter.

ShortGPT (Men et al. 2024), Shortened LLaMA (Kim et al. 2024), SLEB (Song et al. 2024), BlockPruner
(Zhong et al. 2024) and EvoPress (Sieberling et al. 2024), written from their papers. Each gives a
mask that removes at least the share of the decoder's parameters that is asked for; methods of whole
layers round up.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch.nn import functional as F

from language.problem import Meter, Problem

Ranked = Sequence[int]
EVALUATIONS = 131  # passes over all search text
LONGER = 250  # as many take evolution the processor time of edgewise's slowest search of 131


def fewest(problem: Problem, order: Ranked, share: float, size: int) -> str:
    """The mask of as many as are needed of the first items, each of `size` sub-blocks."""
    removed: list[int] = []
    for item in order:
        if problem.share(problem.mask(removed)) >= share:
            break
        removed += range(item * size, item * size + size)
    return problem.mask(removed)


def shortgpt(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """Layers that turn the stream least, by their cosine, from one pass."""
    meter.count(meter.size)
    with torch.no_grad():
        states = list(problem.fast.hidden(problem.none, problem.splits["search"]))[::2]
    turned = [float(1 - F.cosine_similarity(a, b, dim=-1).mean()) for a, b in pairwise(states)]
    return fewest(problem, sorted(range(len(turned)), key=turned.__getitem__), share, 2)


def one_by_one(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """Layers whose single removal loses least; the first four and last two stay."""
    layers = range(4, len(problem.params) // 2 - 2)
    lost = {k: meter(problem.mask([2 * k, 2 * k + 1])) for k in layers}
    return fewest(problem, sorted(layers, key=lost.__getitem__), share, 2)


def one_by_one_branches(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """Sub-blocks whose single removal loses least a parameter."""
    places, whole = range(len(problem.params)), meter(problem.none)
    lost = {k: (meter(problem.mask([k])) - whole) / problem.params[k] for k in places}
    return fewest(problem, sorted(places, key=lost.__getitem__), share, 1)


def sleb(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """Layer after layer, each time the one that loses least, on half of the search text."""
    rows, removed = range(0, meter.size, 2), []
    while problem.share(problem.mask(removed)) < share:
        left = [k for k in range(len(problem.params) // 2) if 2 * k not in removed]
        lost = {k: meter(problem.mask([*removed, 2 * k, 2 * k + 1]), rows) for k in left}
        best = min(left, key=lost.__getitem__)
        removed += [2 * best, 2 * best + 1]
    return problem.mask(removed)


def block_pruner(problem: Problem, meter: Meter, share: float, seed: int = 0) -> str:
    """Sub-block after sub-block, each time the one that loses least, on a quarter of the text.

    That is more text than the others see, but all of the paper's steps.
    """
    rows, removed = range(0, meter.size, 4), list[int]()
    while problem.share(problem.mask(removed)) < share:
        left = [k for k in range(len(problem.params)) if k not in removed]
        removed.append(min(left, key=lambda k: meter(problem.mask([*removed, k]), rows)))
    return problem.mask(removed)


def evolution(
    problem: Problem, meter: Meter, share: float, seed: int = 0, evaluations: int = EVALUATIONS
) -> str:
    """Swaps of removed and kept sub-blocks of a kind: 16 on 2 of 8 sequences, 4 on 4, 1 on 8.

    As many MLPs as whole layers would need go, and as few attentions beside them as suffice.
    """
    draw, layers = random.Random(seed), range(len(problem.params) // 2)
    attention, mlp = problem.params[0], problem.params[1]
    wanted = share * problem.params.sum()
    mlps = -int(-wanted // (attention + mlp))
    attentions = max(-int(-(wanted - mlps * mlp) // attention), 0)

    def fresh() -> str:
        chosen = [2 * k for k in draw.sample(layers, attentions)]
        return problem.mask(chosen + [2 * k + 1 for k in draw.sample(layers, mlps)])

    def swapped(mask: str) -> str:
        bits = list(mask)
        for _ in range(min(draw.randint(1, 3), draw.randint(1, 3))):
            places = range(draw.randrange(2), len(bits), 2)
            out = [k for k in places if bits[k] == "1"]
            kept = [k for k in places if bits[k] == "0"]
            if out and kept:
                a, b = draw.choice(out), draw.choice(kept)
                bits[a], bits[b] = "0", "1"
        return "".join(bits)

    def selected(masks: list[str], counts: Sequence[int]) -> tuple[float, str]:
        for sequences, survivors in zip((2, 4, 8), counts, strict=True):
            rows = sorted(draw.sample(range(meter.size), sequences * meter.size // 8))
            scored = sorted((meter(mask, rows), mask) for mask in masks)[:survivors]
            masks = [mask for _, mask in scored]
        return scored[0]

    loss, best = selected([fresh() for _ in range(16)], (4, 1, 1))
    while meter.evaluations < evaluations:
        loss, best = min((loss, best), selected([swapped(best) for _ in range(16)], (4, 1, 1)))
    return best


METHODS = {
    "ShortGPT": shortgpt,
    "one by one": one_by_one,
    "one by one, branches": one_by_one_branches,
    "SLEB": sleb,
    "BlockPruner": block_pruner,
    "evolution": evolution,
    "evolution, as long": partial(evolution, evaluations=LONGER),
}
# nothing in them is drawn
ONCE = {"ShortGPT", "one by one", "one by one, branches", "SLEB", "BlockPruner"}
