"""The feasible masks of a graph as rows for a solver: units, what is alive, what it costs."""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from ...errors import BudgetError
from ...graph.graph import Graph, Mask
from ...graph.rules import linear
from ...graph.times import OperatorTimes
from ..space import Space
from .costs import Priced, Prices
from .liveness import Remaining, essential, remaining, removals, require_outputs
from .rows import Circuit, Rows

SLACK = 1e-7  # of a limit, so that rounding never cuts off a mask; those above it are counted


class Frame:
    """Rows that every valid mask satisfies, and lower bounds of its costs.

    Widths of a group go in their order, every output is there, no limit of the graph's rules is
    broken, and what is alive is paid for.

    Args:
        graph: the traced graph.
        quantities: that are to be bounded.
        times: of the operators; latency needs them.

    Attributes:
        keeps: for each unit the variable that is 1 where it stays.
        prices: the least that each quantity is.
        carries: for an edge, variables that are 1 where a path through it is whole; empty where
            such a path does not mean that all on it is alive.
        conjunctions: for sets of variables, the one that is 1 where all of them are.

    Raises:
        BudgetError: latency is among the quantities, and there are no times.
    """

    def __init__(
        self, graph: Graph, quantities: Sequence[str], times: OperatorTimes | None = None
    ) -> None:
        if "latency" in quantities and times is None:
            raise BudgetError("Rows of latency need the times of the operators: pass times=.")
        self.graph, self.rows = graph, Rows()
        self.keeps = [self.rows.variable(integer=True) for _ in graph.units]
        for group in graph.nested:
            for first, second in pairwise(group):
                terms = {self.keeps[second]: 1.0, self.keeps[first]: -1.0}
                self.rows.at_least(terms, 0.0)
        for weights, most in zip(*linear(graph), strict=True):  # each row of weights adds up to 1
            terms = {self.keeps[unit]: weights[unit] for unit in np.flatnonzero(weights)}
            self.rows.at_least(terms, 1.0 - most - SLACK)
        # Two circuits over the same variables. In `above` a variable is at most what it stands for,
        # so that an output counts as there only if it is; in `below` it is at least that, so that
        # what lives is paid for. Either error leaves feasible masks in, and costs too low.
        units, vertices = essential(graph)
        for unit in units:
            self.rows.lower[self.keeps[unit]] = 1.0
        above = Circuit(self.rows, upper=True)
        require_outputs(graph, removals(graph, self.keeps, above, units), above)
        below = Circuit(self.rows)
        removed = removals(graph, self.keeps, below, units)
        alive = remaining(graph, removed, below, vertices)
        prices = Prices(graph, removed, alive, below, times)
        self.carries: Mapping[int, Sequence[int]] = _carries(alive, below) if alive.by_paths else {}
        self.prices: Mapping[str, Priced] = {name: prices.of(name) for name in quantities}
        self.conjunctions: Mapping[frozenset[int], int] = below.conjunctions

    def within(self, space: Space) -> Rows:
        """The rows, with those of the limits and the protected units of a space."""
        rows = self.rows.copy()
        for unit in space.protected:
            rows.lower[self.keeps[unit]] = 1.0
        for name, limit in space.limits.items():
            # Σ terms · x + constant ≤ limit, in parts of the limit: MACs and milliseconds are alike
            price, size = self.prices[name], max(limit, 1e-9)
            terms = {k: value / size for k, value in price.terms.items()}
            rows.at_most(terms, (limit - price.constant) / size + SLACK)
        return rows

    def mask(self, x: Sequence[float]) -> Mask:
        """The mask of a solution."""
        return self.graph.mask(bits=[x[keep] < 0.5 for keep in self.keeps])


def _carries(alive: Remaining, circuit: Circuit) -> dict[int, Sequence[int]]:
    """For each edge, variables that are 1 where it carries something to what lives."""
    found: dict[int, Sequence[int]] = {}
    for edge, wanted in enumerate(alive.wanted):
        if wanted:
            found[edge] = sorted({circuit.variable(wanted), *wanted})
    return found


@dataclass(frozen=True)
class Solved:
    """What HiGHS found: values of the variables (None: none yet), and a bound of the objective."""

    x: Sequence[float] | None
    bound: float
    finished: bool
    feasible: bool


def minimise(
    rows: Rows, terms: Mapping[int, float], seconds: float | None = None, nodes: int | None = None
) -> Solved:
    """Minimise Σ terms[variable] · variable by HiGHS, on one thread.

    Args:
        rows: constraints.
        terms: the objective.
        seconds: after which it stops.
        nodes: of the branch-and-bound tree, after which it stops.
    """
    options: dict[str, Any] = {"mip_rel_gap": 0.0}
    if nodes is not None:
        options["node_limit"] = nodes
    if seconds is not None:
        options["time_limit"] = max(seconds, 0.01)
    with _silent():
        result = milp(
            rows.vector(terms),
            integrality=np.array(rows.whole),
            bounds=Bounds(np.array(rows.lower), np.array(rows.upper)),
            constraints=LinearConstraint(rows.matrix, np.array(rows.bounds), np.inf)
            if rows.bounds
            else None,
            options=options,
        )
    # a solver that was stopped has the bound of the tree; without a tree only an optimum is one
    bound = getattr(result, "mip_dual_bound", None)
    if bound is None or not np.isfinite(bound):
        bound = float(result.fun) if result.status == 0 else -np.inf
    return Solved(result.x, float(bound), result.status == 0, result.status != 2)


@contextmanager
def _silent() -> Iterator[None]:
    """Lines that HiGHS writes to C's standard output unasked are lost, not mixed into results."""
    if os.name != "posix":
        yield
        return
    library = ctypes.CDLL(None)
    library.fflush(None)
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
