"""Calls that name sizes, in every spelling, where channels are gone and other sizes are free."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import edgewise as ew

CALLS = {
    "sizes": lambda x: x.reshape(x.shape[0], 6, x.size(2), -1),
    "a tuple": lambda x: torch.reshape(x, (x.shape[0], 6, -1, 2)),
    "by name": lambda x: torch.reshape(input=x, shape=(-1, 6, x.shape[2], 2)),
    "a shape": lambda x: x.reshape(x.shape),
    "another's shape": lambda x: x.view_as(torch.zeros_like(x)),
    "a sum of shapes": lambda x: x.reshape((*x.shape[:2], -1, 2)),
    "flatten": lambda x: x.flatten(2).unsqueeze(3),
    "unflatten": lambda x: x.unflatten(1, (2, 3)).flatten(1, 2),
    "squeeze": lambda x: x.unsqueeze(4).squeeze(4),
    "expand": lambda x: x[:, :, :1].expand(-1, 6, x.shape[2], x.size(3)),
    "expand to a shape": lambda x: x[:, :, :1].expand(x.shape),
    "expand as": lambda x: x[:, :, :1].expand_as(x),
    "broadcast": lambda x: torch.broadcast_to(x[..., :1], x.shape),
}


class Called(nn.Module):
    """A call between channels that can be removed and a layer that mixes them."""

    def __init__(self, call) -> None:
        super().__init__()
        self.call = call
        self.a, self.b, self.o = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.o(self.call(torch.cat([torch.relu(self.a(x)), self.b(x)], 1)))


@pytest.mark.parametrize("call", CALLS)
def test_a_call_keeps_the_sizes_that_inputs_decide(call: str) -> None:
    torch.manual_seed(0)
    model, x = Called(CALLS[call]).double().eval(), torch.randn(2, 3, 4, 2).double()
    graph = ew.trace(model, x, granularity="edge")
    for unit in range(len(graph.units)):
        mask = graph.mask([unit])
        full, small = ew.masked(graph, mask), ew.prune(graph, mask)
        for shape in ((2, 3, 4, 2), (3, 3, 7, 2), (1, 3, 2, 2)):
            other = torch.randn(shape).double()
            torch.testing.assert_close(small(other), full(other))
