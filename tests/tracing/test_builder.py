"""What the builder decides of a program's operators beside their rules."""

from __future__ import annotations

import torch

import edgewise as ew
from zoo import build


def test_no_part_of_a_batch_is_removed() -> None:
    model, args = build("siamese")
    graph = ew.trace(model, args, granularity="raw")
    joined = next(v for v in graph.vertices if v.target == "cat")
    assert joined.op == "combine"
    assert graph.vertices[1].op == "input"
    small = ew.prune(graph, graph.empty)
    assert small(torch.randn(5, 6), torch.randn(5, 6)).shape == (5, 3)
