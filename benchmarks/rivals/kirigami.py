"""torch-kirigami 0.2.1 as its quick start uses it, in rounds, for benchmarks.

Its budgets are parameters, so 3 % of what is left go in each round, of a new graph and with new
scores, until the share of the MACs is reached.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from rivals import channels

LEFT = 0.97  # of the parameters, after a round
SCORES = ("kirigami-group", "kirigami-taylor")


def pruned(
    model: nn.Module, example: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], score: str,
    targets: Sequence[float],
) -> Iterator[tuple[float, nn.Module]]:  # fmt: skip
    """(target, pruned copy) for every share of the MACs, from the largest on.

    Args:
        model: a network of examples/resnet_cifar.py; is changed.
        example: one input.
        pairs: data whose gradients score.
        score: one of SCORES.
        targets: shares of the MACs to reach.
    """
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import Greedy, GroupMagnitude, ParameterBudget, Pruner, WeightTaylor

    whole = channels.macs(model, example)
    model = channels.with_shortcuts(model).to(example.device)
    for target in sorted(targets, reverse=True):
        while channels.macs(model, example) > target * whole:
            if score == "kirigami-taylor":
                channels.add_gradients(model, pairs)
            pruner = Pruner(model, graph=DependencyGraph.build(model, args=(example,)))
            left = int(LEFT * sum(p.numel() for p in model.parameters()))
            model, _ = pruner.prune(
                pruner.discover_candidates(), budget=ParameterBudget(max_params=left),
                strategy=Greedy(WeightTaylor() if score == "kirigami-taylor" else GroupMagnitude()),
            )  # fmt: skip
        yield target, copy.deepcopy(model)
