"""The cross-gamma model: a path sum with terms for pairs of paths."""

from ..graph.graph import Graph
from .path_fit import fit_path_sum, path_sum
from .path_graph import push_weights
from .reduction import reduce_graph
from .surrogate import Surrogate
from .validation import Array, Link


class CrossGamma(Surrogate):
    """The graph surrogate with pairs of paths: w₁ z_out + w₂ z_out² + w₃ Σ (path weight)².

    The square of the path sum is a sum over all pairs of paths, and the sum of squared path
    weights is that over paths paired with themselves, so that the weights tell what paths do by
    themselves from what they do together (Ivanov & Bakhteev, "Few-shot structural neural network
    pruning using computational graph information", 2026, the variant with cross terms). Both cost
    one pass over the graph, and the three weights are fitted together with γ and, on the link
    scale, an intercept. See `PathSum`, which is the case w₂ = w₃ = 0.

    It has no predictive standard deviation.

    Args:
        graph: whose units the masks remove.
        link: "log" for losses, "logit" for accuracy or AUC in (0, 1), or "identity".

    Attributes:
        gamma_: [n_edges] in [0, 1]; the outgoing γ of every live vertex sum to 1.
        weights_: (w₁, w₂, w₃) on the link scale.
        intercept_: the prediction where no path is left, on the link scale.

    Examples:
        >>> model = ew.surrogates.CrossGamma(graph).fit(X, losses)
        >>> len(model.weights_)
        3
    """

    def __init__(self, graph: Graph, *, link: Link = "log") -> None:
        self.graph = graph
        self.link = link

    def _learn(self, masks: Array, target: Array, noise: Array) -> None:
        self.flow_ = reduce_graph(self.graph)
        self.fit_ = fit_path_sum(self.flow_, masks, target, cross=True)
        slopes = (self.fit_.slope, *self.fit_.cross)
        self.weights_ = tuple(-slope for slope in slopes)
        self.intercept_ = self.fit_.intercept + sum(slopes)
        self.gamma_ = push_weights(self.flow_, self.fit_.weights, self.graph)

    def _mean(self, masks: Array) -> Array:
        return path_sum(self.flow_, self.fit_, masks)
