"""The path-sum model: a surrogate shaped like the network itself."""

import numpy as np

from ..graph.graph import Graph
from .path_fit import fit_path_sum, leave_one_out, path_sum
from .path_graph import push_weights
from .reduction import reduce_graph
from .surrogate import Surrogate
from .validation import Array, Link


class PathSum(Surrogate):
    """The graph surrogate G(γ, M): z_in = 1, z_v = Σ_u a_uv · keep_uv · z_u.

    The target on the link scale is intercept + slope · (1 - z_out): removed connections take away
    the flow of all the paths through them (Ivanov & Bakhteev, "Few-shot structural neural network
    pruning using computational graph information", 2026). The a are softmax-normalised over
    incoming edges, so that z_out = 1 with nothing removed; the reported γ is the same model
    normalised over outgoing edges. A layer unit is two parallel ways through its vertex: one
    through the layer and one around it. Without leave-one-out masks the fit starts from equal
    weights, with them from their closed form.

    It has no predictive standard deviation.

    Args:
        graph: whose units the masks remove.
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".
        saturate: predict from (1 - exp(-κ z)) / (1 - exp(-κ)) of z_out, κ learned.

    Attributes:
        gamma_: [n_edges] in [0, 1]; the outgoing γ of every live vertex sum to 1.
        kirchhoff_: [n_vertices] Σ_in Δ - Σ_out Δ of leave-one-out losses on the link scale, 0 for
            a network that is a path sum; NaN where an edge has no known Δ, None if the empty mask
            was not measured.
        intercept_, slope_, kappa_: on the link scale; kappa_ is 0 unless `saturate`.

    Examples:
        >>> model = ew.surrogates.PathSum(graph).fit(X, losses)
        >>> model.gamma_.shape == (len(graph.edges),)
        True
    """

    def __init__(self, graph: Graph, *, link: Link = "log", saturate: bool = False) -> None:
        self.graph = graph
        self.link = link
        self.saturate = saturate

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        self.flow_ = reduce_graph(self.graph)
        self.fit_ = fit_path_sum(self.flow_, masks, target, self.saturate)
        self.intercept_, self.slope_ = self.fit_.intercept, self.fit_.slope
        self.kappa_ = self.fit_.kappa
        self.gamma_ = push_weights(self.flow_, self.fit_.weights, self.graph)
        drops = leave_one_out(masks, target)
        self.kirchhoff_ = None if drops is None else kirchhoff(self.graph, drops)

    def _mean(self, masks: Array) -> Array:
        return path_sum(self.flow_, self.fit_, masks)


def kirchhoff(graph: Graph, drops: Array) -> Array:
    """[n_vertices] Σ Δ of the units cutting edges into a vertex less those cutting edges out of it.

    The unit flow of a path-sum model is conserved, so its residuals are 0 where each unit cuts one
    way only; a unit that cuts edges out of several vertices loses more than flows through any of
    them. NaN at inputs, outputs and wherever an edge has no unit or its Δ is unknown.
    """
    owner = np.full(len(graph.edges), -1)
    for index, unit in enumerate(graph.units):
        owner[list(unit.removal.edges)] = index

    def through(edges: tuple[int, ...]) -> float:
        units = {int(owner[e]) for e in edges}
        return np.nan if not units or -1 in units else float(sum(drops[u] for u in units))

    sums = zip(graph.inputs, graph.consumers, strict=True)
    return np.array([through(into) - through(out) for into, out in sums], dtype=np.float64)
