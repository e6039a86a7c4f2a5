"""A meter without a clock: operators take the time that a formula gives, exactly."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn


class Formula:
    """Seconds of a node: a part for itself, for what it multiplies, and for what it gives.

    `bend` makes whole networks slower or faster than their operators add up to: a network of x
    times the unpruned one's operators takes x ** bend of its time. `speeds` are those of the
    machine in one call after the other, which no result may depend on.
    """

    def __init__(self, args, rounds=3, bend=1.0, speeds=(1.0,)):
        self.args, self.rounds, self.bend, self.speeds = args, rounds, bend, speeds
        self.calls = 0
        self.seen = []

    def speed(self):
        self.calls += 1
        return self.speeds[self.calls % len(self.speeds)]

    def networks(self, models):
        self.seen.append(len(models))
        sums = [sum(self._seconds(model).values()) for model in models]
        whole = [sums[0] * (one / sums[0]) ** self.bend for one in sums]
        speed = self.speed()
        self.now = speed
        return np.array([whole] * self.rounds) * speed

    def operators(self, program):
        return {name: seconds * self.now for name, seconds in self._seconds(program).items()}

    def _seconds(self, program):
        counter = _Counter(program)
        with torch.no_grad():
            counter.run(*self.args)
        return counter.seconds


class _Counter(fx.Interpreter):
    def __init__(self, program):
        super().__init__(program)
        self.seconds = {}

    def run_node(self, n):
        result = super().run_node(n)
        self.seconds[n.name] = 0.0
        if n.op.startswith("call") and isinstance(result, torch.Tensor):
            each = 0
            if n.op == "call_module":
                module = self.fetch_attr(n.target)
                if isinstance(module, nn.Conv2d | nn.Linear):
                    each = module.weight[0].numel()
            self.seconds[n.name] = 1e-6 * (5 + result.numel() * (0.01 + 0.001 * each))
        return result
