"""Programs that follow train() and eval(), although they were traced in one mode."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from ..graph.operators.runtime import by_mode, precision

DIMENSIONS = "edgewise_dimensions"  # of what a node gives


def follow_modes(graph: fx.Graph, training: fx.Graph | None) -> None:
    """Make arguments that depend on `self.training` depend on the mode of the program.

    Tracing freezes them. What they are in train mode is read off the same model traced in train
    mode; where there is no such trace, dropout follows the mode.

    Args:
        graph: traced in eval mode; changed in place.
        training: traced in train mode, or None.
    """
    pairs = aligned(graph, training) if training is not None else None
    mode = _Mode(graph)
    others: dict[fx.Node, fx.Node] = dict(pairs or ())
    for node in list(graph.nodes):
        other = others.get(node)
        if node.op not in ("call_function", "call_method"):
            continue
        if other is not None:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n)
            node.args = merged(args, other.args, mode.of)
            node.kwargs = merged(kwargs, other.kwargs, mode.of)
        elif node.target in _DROPOUTS and len(node.args) > 2:
            node.update_arg(2, mode.node)
        elif node.target in _DROPOUTS:
            node.update_kwarg("training", mode.node)


_DROPOUTS = (
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
)  # fmt: skip


def aligned(graph: fx.Graph, other: fx.Graph) -> list[tuple[fx.Node, fx.Node]] | None:
    """The nodes of two traces of one model in pairs; None if they do not run the same calls."""
    left, right = ([n for n in g.nodes if n.target is not precision] for g in (graph, other))
    same = len(left) == len(right) and all(
        a.op == b.op and a.target == b.target for a, b in zip(left, right, strict=True)
    )
    return list(zip(left, right, strict=True)) if same else None


class _Mode:
    """Stands for `self.training` in a program; made when first needed."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._node: fx.Node | None = None

    @property
    def node(self) -> fx.Node:
        if self._node is None:
            with self.graph.inserting_before(next(iter(self.graph.nodes))):
                self._node = self.graph.create_node("get_attr", "training")
        return self._node

    def of(self, evaluating: Any, training: Any) -> Any:
        """What is one value in eval mode, and perhaps another in train mode."""
        if isinstance(evaluating, fx.Node | slice) or isinstance(training, fx.Node):
            return evaluating
        if evaluating == training:
            return evaluating
        if (evaluating, training) == (False, True):
            return self.node
        with self.graph.inserting_after(self.node):
            return self.graph.call_function(by_mode, (self.node, evaluating, training))


def merged(own: Any, other: Any, leaf: Callable[[Any, Any], Any]) -> Any:
    """Arguments of a node in two traces as one, leaf by leaf; lists of other lengths stay."""
    if isinstance(own, list | tuple) and not hasattr(own, "_fields"):
        if not isinstance(other, list | tuple) or len(own) != len(other):
            return own
        return type(own)(merged(*pair, leaf) for pair in zip(own, other, strict=True))
    if isinstance(own, dict):
        return {name: merged(part, other.get(name, part), leaf) for name, part in own.items()}
    return leaf(own, other)


def batch_norm_modules(module: fx.GraphModule) -> None:
    """Functional batch norms over the tensors of one module become plain batch-norm modules.

    They then follow train() and eval() and can be recovered. Layers that add an activation to
    nn.BatchNorm2d call it this way; whatever else they hold stays where it was.
    """
    for node in module.graph.find_nodes(op="call_function", target=F.batch_norm):
        given = dict(zip(_BATCH_NORM, node.args, strict=False)) | node.kwargs
        path = _home(given)
        value = module.get_submodule(path) if path else None
        if not isinstance(value, nn.Module) or not isinstance(given["input"], fx.Node):
            continue
        plain = _plain_batch_norm(value, given, node.meta.get(DIMENSIONS, 4))
        module.set_submodule(path, plain)
        with module.graph.inserting_before(node):
            new = module.graph.call_module(path, (given["input"],))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)


_BATCH_NORM = "input running_mean running_var weight bias training momentum eps".split()  # noqa: SIM905


def _home(given: dict[str, Any]) -> str:
    """The module whose statistics and affine parameters these are; "" if there is none."""
    tensors = {name: given.get(name) for name in _BATCH_NORM[1:5]}
    paths = set()
    for name, node in tensors.items():
        if node is None and name in ("weight", "bias"):
            continue
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return ""
        path, _, last = str(node.target).rpartition(".")
        paths.add(path if last == name else "")
    return paths.pop() if len(paths) == 1 else ""


def _plain_batch_norm(source: nn.Module, given: dict[str, Any], ndim: int) -> nn.Module:
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 5: nn.BatchNorm3d}
    kind: Any = kinds.get(ndim, nn.BatchNorm2d)
    for base in (nn.BatchNorm1d, nn.BatchNorm3d):
        kind = base if isinstance(source, base) else kind
    statistics: Any = source.running_mean
    momentum = getattr(source, "momentum", 0.1)
    plain: Any = kind(len(statistics), eps=given.get("eps", 1e-5), momentum=momentum)
    plain._parameters = {name: source._parameters.get(name) for name in ("weight", "bias")}
    plain._buffers |= {k: v for k, v in source._buffers.items() if k in plain._buffers}
    plain.affine = plain.weight is not None
    for name, child in source.named_children():
        plain.add_module(name, child)
    module: nn.Module = plain.train(source.training)
    return module
