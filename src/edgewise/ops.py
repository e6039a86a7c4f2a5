"""The operators edgewise knows: one rule each, and how users add their own.

A rule says how absence passes through an operator (a function of `absence`), which plain data
the graph must keep of a call, how the operator's parameters follow its input and output channels,
and how many multiply-accumulates it takes. An operator without a rule is an error at trace time.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from . import absence
from .absence import FlowFunction, Live, States
from .emit import RaggedGroupNorm, assemble, ragged_group_norm
from .errors import EdgewiseError
from .graph import Follow, Shape, Vertex

Follows = Mapping[str, tuple[Follow, ...]]


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor argument that does not depend on the model's inputs."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor argument that does: data input number `index`."""

    index: int


@dataclass(frozen=True)
class Call:
    """One traced call, as a rule sees it.

    Args:
        args: arguments by name (tensors as Slot or Constant); empty for modules.
        module: the module called, if it is one.
        shapes: the shapes of the data inputs, by slot.
        out: the shape of the output, None if it is not a tensor.
    """

    args: Mapping[str, Any]
    module: nn.Module | None
    shapes: tuple[Shape | None, ...]
    out: Shape | None

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the module's attribute of that name."""
        if self.module is not None:
            return getattr(self.module, name, default)
        return self.args.get(name, default)

    @property
    def ndim(self) -> int:
        """Dimensions of the first data input."""
        return len(self.shapes[0]) if self.shapes and self.shapes[0] is not None else 0


def _nothing(call: Call) -> dict[str, Any]:
    return {}


def _broadcast(call: Call) -> Follows:
    """Constant operands follow the output's axes from the right, as in broadcasting."""
    out = call.out or ()
    found: dict[str, tuple[Follow, ...]] = {}
    for name, value in call.args.items():
        if isinstance(value, Constant):
            shift = len(out) - len(value.shape)
            found[name] = tuple(
                ("out", i + shift) if size > 1 and shift >= 0 else None
                for i, size in enumerate(value.shape)
            )
    return found


def _no_follows(call: Call) -> Follows:
    return {}


def _no_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    return 0


MacFunction = Callable[[Vertex, States, Live, Sequence[Shape | None]], int]


@dataclass(frozen=True)
class Rule:
    """What edgewise must know of an operator.

    Args:
        name: the rule's name, unique.
        flow: how absence passes (a function of `edgewise.absence`).
        signature: positional argument names of the function or method, space separated.
        read: plain data for `Vertex.attrs`, taken from the call.
        follows: for each parameter, what its dimensions follow (see `graph.Parameter`).
        macs: multiply-accumulates for one example, given what remains of inputs and output.
        view: the output is a view of the input, and takes no memory.
        resize: brings a module's attributes in line after its tensors were sliced.
    """

    name: str
    flow: FlowFunction
    signature: str = "input"
    read: Callable[[Call], dict[str, Any]] = _nothing
    follows: Callable[[Call], Follows] = _no_follows
    macs: MacFunction = _no_macs
    view: bool = False
    resize: Callable[[nn.Module], None] | None = None


@dataclass
class Table:
    """Which rule belongs to which function, method (by name) or module class."""

    rules: dict[str, Rule] = field(default_factory=dict)
    targets: dict[Any, Rule] = field(default_factory=dict)

    def add(self, rule: Rule, *targets: Any) -> Rule:
        """Register a rule for functions, module classes, "Tensor.method" or dotted class names."""
        if rule.name in self.rules and self.rules[rule.name] is not rule:
            raise EdgewiseError(f"There is already a rule called {rule.name!r}; choose another.")
        self.rules[rule.name] = rule
        for target in targets:
            self.targets[target] = rule
        return rule

    def find(self, target: Any) -> Rule | None:
        """The rule of a function or of "Tensor.method"."""
        try:
            return self.targets.get(target)
        except TypeError:
            return None

    def find_module(self, module: nn.Module) -> Rule | None:
        """The rule of a module: of its class, or of a base class whose forward it keeps."""
        for cls in type(module).__mro__:
            rule = self.targets.get(cls) or self.targets.get(f"{cls.__module__}.{cls.__qualname__}")
            if rule is not None:
                return rule if type(module).forward is cls.forward else None
        return None


TABLE = Table()


def register(target: Any, rule: Rule) -> None:
    """Teach edgewise an operator of your own.

    Args:
        target: a function, an `nn.Module` class, or "Tensor.name" for a tensor method.
        rule: the rule; `ew.Rule("swish6", flow=ew.absence.by_axes, read=ew.ops.same_axes)` is one
            for an element-wise operator.

    Raises:
        EdgewiseError: another rule has the same name.
    """
    TABLE.add(rule, target)


# -- reading calls ---------------------------------------------------------------------------


def same_axes(call: Call) -> dict[str, Any]:
    """Every axis keeps its channels: element-wise operators."""
    return {"axes": list(range(call.ndim))}


def leading_axes(count: int) -> Callable[[Call], dict[str, Any]]:
    """Axes keep their channels but the last `count`, over which the operator works."""

    def read(call: Call) -> dict[str, Any]:
        keep = call.ndim - count
        return {"axes": [i if i < keep else None for i in range(call.ndim)]}

    return read


def but_axis(name: str, default: int | None) -> Callable[[Call], dict[str, Any]]:
    """Every axis keeps its channels but the one that argument `name` gives."""

    def read(call: Call) -> dict[str, Any]:
        dim = call.get(name, default)
        gone = None if dim is None else int(dim) % call.ndim
        return {"axes": [None if i == gone or gone is None else i for i in range(call.ndim)]}

    return read


def reduced(call: Call) -> dict[str, Any]:
    """A reduction over `dim` (all axes if None), with or without `keepdim`."""
    dim = call.get("dim")
    dims = range(call.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {int(d) % call.ndim for d in dims}
    axes: list[int | None] = []
    for axis in range(call.ndim):
        before = sum(d < axis for d in gone)
        axes.append(None if axis in gone else axis if call.get("keepdim") else axis - before)
    return {"axes": axes}


def permuted(call: Call) -> dict[str, Any]:
    """permute(dims) in any spelling."""
    dims = call.get("dims")
    order = [dims] if isinstance(dims, int) else list(dims)
    order += [v for k, v in sorted(call.args.items()) if k.startswith("*")]
    order = [int(d) % call.ndim for d in order]
    return {"axes": [order.index(axis) for axis in range(call.ndim)], "permute": True}


def transposed(call: Call) -> dict[str, Any]:
    """transpose(dim0, dim1); .T and .mT as the last two axes."""
    a, b = (int(call.get(n, d)) % call.ndim for n, d in (("dim0", -2), ("dim1", -1)))
    axes = list(range(call.ndim))
    axes[a], axes[b] = b, a
    return {"axes": axes}


def indexed(call: Call) -> dict[str, Any]:
    """x[index] with slices, integers, None and Ellipsis; anything else mixes its axes."""
    index = call.get("index")
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [i if i is Ellipsis else None for i in items]:
        at = next(k for k, i in enumerate(items) if i is Ellipsis)
        spare = call.ndim - sum(i is not None for i in items) + 1
        items[at : at + 1] = [slice(None)] * spare
    axes: list[int | None] = [None] * call.ndim
    axis = out = 0
    for item in items + [slice(None)] * call.ndim:
        if axis >= call.ndim:
            break
        if item is None:
            out += 1
        elif isinstance(item, slice):
            axes[axis] = out if item == slice(None) else None
            axis, out = axis + 1, out + 1
        elif isinstance(item, int):
            axis += 1
        else:
            return {"axes": [None] * call.ndim}
    return {"axes": axes}


def padded(call: Call) -> dict[str, Any]:
    """F.pad: axes that get no padding keep their channels."""
    pad = list(call.get("pad", ()))
    touched = {
        call.ndim - 1 - i // 2 for i, amount in enumerate(pad) if not isinstance(amount, int) or amount
    }
    return {"axes": [None if i in touched else i for i in range(call.ndim)]}


def rolled(call: Call) -> dict[str, Any]:
    """torch.roll(shifts, dims)."""
    dims = call.get("dims", ())
    gone = {int(d) % call.ndim for d in ([dims] if isinstance(dims, int) else dims or range(call.ndim))}
    return {"axes": [None if i in gone else i for i in range(call.ndim)]}


def summed(call: Call) -> dict[str, Any]:
    """The factors of the summands of add and sub, by slot."""
    alpha = call.get("alpha", 1)
    signs = []
    for name in ("input", "other"):
        if isinstance(call.get(name), Slot):
            signs.append(1 if name == "input" else alpha)
    return {"signs": signs or [1] * len(call.shapes)}


def subtracted(call: Call) -> dict[str, Any]:
    """As `summed`, the second summand negative."""
    signs = summed(call)["signs"]
    return {"signs": signs[:-1] + [-signs[-1]] if isinstance(call.get("other"), Slot) else signs}


def factors(call: Call) -> dict[str, Any]:
    return {"alone": [True] * len(call.shapes)}


def quotient(call: Call) -> dict[str, Any]:
    names = [n for n in ("input", "other") if isinstance(call.get(n), Slot)]
    return {"alone": [name == "input" for name in names]}


def concatenated(call: Call) -> dict[str, Any]:
    assert call.out is not None
    dim = int(call.get("dim", 0)) % len(call.out)
    pieces: list[tuple[int | None, int]] = []
    for item in call.get("tensors"):
        if isinstance(item, Slot):
            shape = call.shapes[item.index]
            pieces.append((item.index, shape[dim] if shape is not None else 1))
        else:
            pieces.append((None, item.shape[dim]))
    return {"dim": dim, "pieces": pieces}


def stacked(call: Call) -> dict[str, Any]:
    assert call.out is not None
    pieces = [(t.index if isinstance(t, Slot) else None, 1) for t in call.get("tensors")]
    return {"dim": int(call.get("dim", 0)) % len(call.out), "pieces": pieces, "stack": True}


def cut(call: Call) -> dict[str, Any]:
    """chunk, split and unbind; the front end adds start and stop to the pieces."""
    return {"dim": int(call.get("dim", 0)) % max(call.ndim, 1)}


def cut_off(call: Call) -> dict[str, Any]:
    return {**cut(call), "drops": True}


# -- parameters that follow channels -----------------------------------------------------------


def channel_follows(call: Call) -> Follows:
    names = ("weight", "bias", "running_mean", "running_var")
    return {name: (("out", 1),) for name in names}


def _conv_read(call: Call) -> dict[str, Any]:
    groups = int(call.get("groups", 1))
    axes: list[int | None] = [0] + [None] * (call.ndim - 1)
    attrs: dict[str, Any] = {"mixes": 1, "axes": axes, "groups": groups}
    if groups > 1 and call.shapes[0] is not None and call.out is not None:
        inner, outer = call.shapes[0][1], call.out[1]
        attrs["depthwise"] = outer // inner if groups == inner else 0
        attrs["grouped"] = groups != inner
    attrs["kernel"] = _kernel(call)
    return attrs


def _kernel(call: Call) -> int:
    if call.module is not None:
        return math.prod(call.module.kernel_size)  # type: ignore[arg-type]
    weight = call.args.get("weight")
    return math.prod(weight.shape[2:]) if isinstance(weight, Constant) else 0


def _conv_follows(call: Call) -> Follows:
    grouped = int(call.get("groups", 1)) > 1
    return {"weight": (("out", 1), None if grouped else ("in", 1)), "bias": (("out", 1),)}


def _conv_transpose_follows(call: Call) -> Follows:
    if int(call.get("groups", 1)) > 1:
        return {}
    return {"weight": (("in", 1), ("out", 1)), "bias": (("out", 1),)}


def _conv_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    assert vertex.shape is not None
    if len(shapes) > 1 or shapes[0] is None or ins[0] is None:
        return 0
    groups = vertex.attrs["groups"]
    inner = 1 if vertex.attrs.get("depthwise") else ins[0].shape(shapes[0])[1] // groups
    return math.prod(out.shape(vertex.shape)) * inner * int(vertex.attrs["kernel"])


def _conv_transpose_macs(
    vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]
) -> int:
    assert vertex.shape is not None
    if len(shapes) > 1 or shapes[0] is None or ins[0] is None:
        return 0
    outer = out.shape(vertex.shape)[1] // vertex.attrs["groups"]
    return math.prod(ins[0].shape(shapes[0])) * outer * int(vertex.attrs["kernel"])


def _conv_transpose_read(call: Call) -> dict[str, Any]:
    attrs = _conv_read(call)
    if attrs["groups"] > 1:
        attrs["depthwise"], attrs["grouped"] = 0, True
    return attrs


def _conv_resize(module: nn.Module) -> None:
    outer, inner = module.weight.shape[:2]  # type: ignore[union-attr,index,misc]
    depthwise = module.groups > 1 and module.groups == module.in_channels  # type: ignore[operator]
    if depthwise:
        module.groups = module.in_channels = outer * module.in_channels // module.out_channels  # type: ignore[operator,assignment]
    else:
        module.in_channels = inner * module.groups  # type: ignore[operator,assignment]
    module.out_channels = outer  # type: ignore[assignment]


def _conv_transpose_resize(module: nn.Module) -> None:
    module.in_channels, module.out_channels = module.weight.shape[:2]  # type: ignore[union-attr,index,misc]


def _linear_read(call: Call) -> dict[str, Any]:
    last = call.ndim - 1
    return {"mixes": last, "axes": [i if i < last else None for i in range(call.ndim)]}


def _linear_follows(call: Call) -> Follows:
    out = len(call.out or ()) - 1
    return {"weight": (("out", out), ("in", call.ndim - 1)), "bias": (("out", out),)}


def _linear_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    assert vertex.shape is not None
    if len(shapes) > 1 or shapes[0] is None or ins[0] is None:
        return 0
    return math.prod(out.shape(vertex.shape)) * ins[0].shape(shapes[0])[-1]


def _linear_resize(module: nn.Module) -> None:
    module.out_features, module.in_features = module.weight.shape  # type: ignore[union-attr,misc,assignment]


def _features_resize(module: nn.Module) -> None:
    tensors = (module.weight, module.running_mean)
    module.num_features = next(len(t) for t in tensors if t is not None)  # type: ignore[arg-type,assignment]


def _bilinear_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    """matmul of data (or of data and a constant): output elements times the inner size."""
    inner = shapes[0][-1] if shapes and shapes[0] is not None else 0
    if len(shapes) == 1 and vertex.attrs.get("constant_first"):
        inner = shapes[0][-2] if shapes[0] is not None and len(shapes[0]) > 1 else inner
    return absence.elements(vertex.shape) * inner


def _matmul_read(call: Call) -> dict[str, Any]:
    return {"constant_first": isinstance(call.get("input"), Constant)}


def _attention_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    if len(shapes) < 3 or shapes[0] is None or shapes[1] is None or vertex.shape is None:
        return 0
    scores = math.prod(shapes[0][:-1]) * shapes[1][-2]
    return scores * (shapes[0][-1] + vertex.shape[-1])


def _multihead_read(call: Call) -> dict[str, Any]:
    module = call.module
    first = bool(getattr(module, "batch_first", False))
    return {"embed": int(getattr(module, "embed_dim", 0)), "batch_first": first}


def _multihead_macs(vertex: Vertex, ins: States, out: Live, shapes: Sequence[Shape | None]) -> int:
    embed = vertex.attrs["embed"]
    query, key = shapes[0], shapes[1] if len(shapes) > 1 else shapes[0]
    value = shapes[2] if len(shapes) > 2 else key
    if query is None or key is None or value is None:
        return 0
    axis = (1 if vertex.attrs["batch_first"] else 0) - (3 - len(query))
    length, source = query[max(axis, 0)], key[max(axis, 0)]
    rows = math.prod(query[:-1])
    project = rows * query[-1] * embed + math.prod(key[:-1]) * key[-1] * embed
    project += math.prod(value[:-1]) * value[-1] * embed + rows * embed * embed
    return project + 2 * (rows // length) * length * source * embed


def _norm_follows(call: Call) -> Follows:
    shape = call.get("normalized_shape")
    dims = len(shape) if isinstance(shape, Sequence) else 1
    follows: tuple[Follow, ...] = tuple(("out", call.ndim - dims + i) for i in range(dims))
    return {"weight": follows, "bias": follows}


def _norm_read(call: Call) -> dict[str, Any]:
    shape = call.get("normalized_shape")
    return {"dims": len(shape) if isinstance(shape, Sequence) else 1}


def _group_norm_read(call: Call) -> dict[str, Any]:
    return {"groups": int(call.get("num_groups"))}


def _norm_resize(module: nn.Module) -> None:
    module.normalized_shape = tuple(module.weight.shape)  # type: ignore[union-attr,assignment]


# -- the table ---------------------------------------------------------------------------------


def _methods(names: str) -> list[str]:
    return [f"Tensor.{name}" for name in names.split()]


def _fill() -> None:
    same, lead = same_axes, leading_axes
    add = TABLE.add
    add(Rule("input", absence.start), "placeholder")
    add(Rule("output", absence.join), "output")
    add(Rule("take", absence.take, "input index", view=True), "take")
    add(
        Rule("pointwise", absence.by_axes, read=same, follows=_broadcast),
        *_pointwise_functions(),
        *_pointwise_modules(),
        *_methods(
            "relu sigmoid tanh clamp clamp_min clamp_max abs exp log sqrt rsqrt square neg erf sin "
            "cos pow float half double to type type_as bool int long reciprocal floor round "
            "masked_fill detach clone softplus silu logical_not mish"
        ),
    )
    add(
        Rule("identity", absence.by_axes, read=same, view=True),
        nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
        nn.FeatureAlphaDropout, "torchvision.ops.stochastic_depth.StochasticDepth",
        "timm.layers.drop.DropPath", *_methods("contiguous"),
    )  # fmt: skip
    add(
        Rule("prelu", absence.by_axes, "input weight", same, _prelu_follows, resize=_prelu_resize),
        nn.PReLU, F.prelu,
    )  # fmt: skip
    add(
        Rule("add", absence.add, "input other", summed, _broadcast),
        operator.add, torch.add, *_methods("add"),
    )  # fmt: skip
    add(
        Rule("sub", absence.add, "input other", subtracted, _broadcast),
        operator.sub, torch.sub, torch.subtract, *_methods("sub"),
    )  # fmt: skip
    add(
        Rule("mul", absence.multiply, "input other", factors, _broadcast),
        operator.mul, torch.mul, torch.multiply, *_methods("mul multiply"),
    )  # fmt: skip
    add(
        Rule("div", absence.multiply, "input other", quotient, _broadcast),
        operator.truediv, torch.div, torch.true_divide, *_methods("div"),
    )  # fmt: skip
    add(Rule("cat", absence.concat, "tensors dim", concatenated), torch.cat, torch.concat, torch.concatenate)
    add(Rule("stack", absence.concat, "tensors dim", stacked), torch.stack)
    _fill_mixers()
    _fill_norms()
    _fill_spatial(lead)
    _fill_views()
    _fill_joins()


def _prelu_follows(call: Call) -> Follows:
    wide = call.module is not None and call.module.num_parameters > 1  # type: ignore[operator]
    return {"weight": (("out", 1),)} if wide else {}


def _prelu_resize(module: nn.Module) -> None:
    module.num_parameters = len(module.weight)  # type: ignore[arg-type,assignment]


def _pointwise_functions() -> list[Any]:
    names = (
        "relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh "
        "softplus softsign tanhshrink logsigmoid sigmoid tanh"
    )
    found = [getattr(F, name) for name in names.split()]
    torch_names = (
        "relu sigmoid tanh exp log sqrt rsqrt abs neg square erf clamp sin cos pow reciprocal "
        "clip floor round log1p expm1 sign logical_not"
    )
    found += [getattr(torch, name) for name in torch_names.split()]
    return [*found, operator.neg, operator.pow, operator.floordiv, operator.gt, operator.lt,
            operator.ge, operator.le]  # fmt: skip


def _pointwise_modules() -> list[Any]:
    names = (
        "ReLU ReLU6 LeakyReLU ELU SELU CELU GELU SiLU Mish Hardswish Hardsigmoid Hardtanh "
        "Softplus Softsign Tanhshrink LogSigmoid Sigmoid Tanh Threshold Hardshrink Softshrink"
    )
    return [getattr(nn, name) for name in names.split()]


def _fill_mixers() -> None:
    signature = "input weight bias stride padding dilation groups"
    conv = Rule("conv", absence.mix, signature, _conv_read, _conv_follows, _conv_macs, False, _conv_resize)
    TABLE.add(conv, nn.Conv1d, nn.Conv2d, nn.Conv3d, F.conv1d, F.conv2d, F.conv3d)
    signature = "input weight bias stride padding output_padding groups dilation"
    transpose = Rule(
        "conv_transpose", absence.mix, signature, _conv_transpose_read, _conv_transpose_follows,
        _conv_transpose_macs, False, _conv_transpose_resize,
    )  # fmt: skip
    TABLE.add(
        transpose, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
        F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    )  # fmt: skip
    linear = Rule(
        "linear", absence.mix, "input weight bias", _linear_read, _linear_follows, _linear_macs,
        False, _linear_resize,
    )  # fmt: skip
    dynamic = "torch.nn.modules.linear.NonDynamicallyQuantizableLinear"
    TABLE.add(linear, nn.Linear, dynamic, F.linear)


def _fill_norms() -> None:
    signature = "input running_mean running_var weight bias training momentum eps"
    batch = Rule(
        "batch_norm", absence.by_axes, signature, leading_channels, channel_follows,
        resize=_features_resize,
    )  # fmt: skip
    TABLE.add(batch, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, F.batch_norm)
    TABLE.add(
        Rule("instance_norm", absence.by_axes, signature, leading_channels, channel_follows,
             resize=_features_resize),
        nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    )  # fmt: skip
    signature = "input normalized_shape weight bias eps"
    layer = Rule("layer_norm", absence.norm, signature, _norm_read, _norm_follows, resize=_norm_resize)
    TABLE.add(layer, nn.LayerNorm, F.layer_norm)
    rms = Rule("rms_norm", absence.norm, signature, _norm_read, _norm_follows, resize=_norm_resize)
    TABLE.add(rms, nn.RMSNorm, F.rms_norm)
    signature = "input num_groups weight bias eps"
    TABLE.add(
        Rule("group_norm", absence.group_norm, signature, _group_norm_read, channel_follows),
        nn.GroupNorm, F.group_norm,
    )  # fmt: skip


def leading_channels(call: Call) -> dict[str, Any]:
    """A norm with statistics of its own for every channel of axis 1."""
    return {"axes": [None, 1] + [None] * (call.ndim - 2)}


def _fill_spatial(lead: Callable[[int], Callable[[Call], dict[str, Any]]]) -> None:
    for count in (1, 2, 3):
        kinds = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool")
        modules = [getattr(nn, f"{kind}{count}d") for kind in kinds]
        pads = ("ZeroPad", "ReflectionPad", "ReplicationPad", "ConstantPad")
        modules += [getattr(nn, f"{kind}{count}d") for kind in pads]
        names = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
        functions = [getattr(F, f"{name}{count}d") for name in names]
        TABLE.add(Rule(f"pool{count}d", absence.by_axes, read=lead(count)), *modules, *functions)

    def beyond_channels(call: Call) -> dict[str, Any]:
        return {"axes": [0, 1] + [None] * (call.ndim - 2)}

    TABLE.add(
        Rule("resample", absence.by_axes, "input", beyond_channels),
        nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate,
    )  # fmt: skip
    softmax = Rule("softmax", absence.by_axes, "input dim", but_axis("dim", None))
    TABLE.add(
        softmax, nn.Softmax, nn.LogSoftmax, F.softmax, F.log_softmax, torch.softmax,
        torch.log_softmax, *_methods("softmax log_softmax"),
    )  # fmt: skip
    TABLE.add(Rule("pad", absence.by_axes, "input pad mode value", padded), F.pad)
    TABLE.add(Rule("roll", absence.by_axes, "input shifts dims", rolled), torch.roll, *_methods("roll"))
    TABLE.add(
        Rule("reduce", absence.by_axes, "input dim keepdim", reduced),
        torch.mean, torch.sum, torch.amax, torch.amin, torch.std, torch.var, torch.prod,
        *_methods("mean sum amax amin std var prod"),
    )  # fmt: skip
    normalize = Rule("normalize", absence.by_axes, "input p dim", but_axis("dim", 1))
    TABLE.add(normalize, F.normalize)


def _fill_views() -> None:
    TABLE.add(
        Rule("reshape", absence.reshape, "input shape", view=True),
        torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten,
        nn.Flatten, nn.Unflatten,
        *_methods("flatten reshape view squeeze unsqueeze unflatten"),
    )  # fmt: skip
    TABLE.add(
        Rule("permute", absence.by_axes, "input dims", permuted, view=True),
        torch.permute, *_methods("permute"), "torchvision.ops.misc.Permute",
    )  # fmt: skip
    TABLE.add(
        Rule("transpose", absence.by_axes, "input dim0 dim1", transposed, view=True),
        torch.transpose, torch.swapaxes, *_methods("transpose swapaxes t"), "Tensor.T", "Tensor.mT",
    )  # fmt: skip
    TABLE.add(Rule("index", absence.by_axes, "input index", indexed, view=True), operator.getitem)
    TABLE.add(Rule("expand", absence.join, view=True), *_methods("expand expand_as"))
    TABLE.add(Rule("repeat", absence.join), *_methods("repeat repeat_interleave"), torch.repeat_interleave)
    TABLE.add(
        Rule("split", absence.split, "input sections dim", cut, view=True),
        torch.chunk, torch.split, *_methods("chunk split"),
    )  # fmt: skip
    TABLE.add(
        Rule("unbind", absence.join, "input dim", cut_off, view=True), torch.unbind, *_methods("unbind")
    )
    TABLE.add(Rule("piece", absence.piece, "input index", view=True), "piece")
    TABLE.add(Rule("shuffle", absence.join), nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
              F.pixel_shuffle, F.pixel_unshuffle)  # fmt: skip


def _fill_joins() -> None:
    matmul = Rule("matmul", absence.join, "input other", _matmul_read, macs=_bilinear_macs)
    TABLE.add(matmul, torch.matmul, torch.bmm, torch.mm, operator.matmul, *_methods("matmul bmm mm"))
    TABLE.add(
        Rule("attention", absence.join, "query key value", macs=_attention_macs),
        F.scaled_dot_product_attention,
    )  # fmt: skip
    TABLE.add(
        Rule("multihead_attention", absence.join, "query key value", _multihead_read, macs=_multihead_macs),
        nn.MultiheadAttention,
    )  # fmt: skip
    TABLE.add(Rule("emitted", absence.join), assemble, ragged_group_norm, RaggedGroupNorm)
    TABLE.add(Rule("embedding", absence.join), nn.Embedding, F.embedding)
    TABLE.add(Rule("recurrent", absence.join), nn.LSTM, nn.GRU, nn.RNN)
    TABLE.add(
        Rule("combine", absence.join, "input other"),
        torch.where, torch.maximum, torch.minimum, torch.max, torch.min, torch.cumsum,
        torch.gather, torch.index_select, torch.argmax, torch.topk, torch.addmm, torch.baddbmm,
        *_methods("where maximum minimum max min cumsum gather index_select argmax topk"),
    )  # fmt: skip


def rules() -> Iterable[Rule]:
    """All rules, built in and registered."""
    return TABLE.rules.values()


_fill()
