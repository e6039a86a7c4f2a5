"""The operators edgewise knows: one rule each, and how users add their own.

A rule says how absence passes through an operator (a function of `absence`), which plain data
the graph must keep of a call, how the operator's parameters follow its input and output channels,
and how many multiply-accumulates it takes. An operator without a rule is an error at trace time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from . import absence, resize
from . import macs as count
from .absence import FlowFunction
from .calls import (
    Call,
    Follows,
    broadcast,
    but_axis,
    channel_follows,
    concatenated,
    conv_follows,
    conv_read,
    conv_transpose_follows,
    conv_transpose_read,
    cut,
    factors,
    group_norm_read,
    indexed,
    leading_axes,
    leading_channels,
    linear_follows,
    linear_read,
    matmul_read,
    multihead_read,
    no_follows,
    norm_follows,
    norm_read,
    nothing,
    padded,
    permuted,
    prelu_follows,
    quotient,
    reduced,
    reversed_axes,
    rolled,
    same_axes,
    stacked,
    subtracted,
    summed,
    transposed,
)
from .emit import RaggedGroupNorm, assemble, ragged_group_norm
from .errors import EdgewiseError
from .macs import MacFunction, no_macs


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
    read: Callable[[Call], dict[str, Any]] = nothing
    follows: Callable[[Call], Follows] = no_follows
    macs: MacFunction = no_macs
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
                own = getattr(cls, "forward", None)
                return rule if type(module).forward is own else None
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
        Rule("pointwise", absence.by_axes, read=same, follows=broadcast),
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
        Rule("prelu", absence.by_axes, "input weight", same, prelu_follows,
             resize=resize.prelu_resize),
        nn.PReLU, F.prelu,
    )  # fmt: skip
    add(
        Rule("add", absence.add, "input other", summed, broadcast),
        operator.add, torch.add, *_methods("add"),
    )  # fmt: skip
    add(
        Rule("sub", absence.add, "input other", subtracted, broadcast),
        operator.sub, torch.sub, torch.subtract, *_methods("sub"),
    )  # fmt: skip
    add(
        Rule("mul", absence.multiply, "input other", factors, broadcast),
        operator.mul, torch.mul, torch.multiply, *_methods("mul multiply"),
    )  # fmt: skip
    add(
        Rule("div", absence.multiply, "input other", quotient, broadcast),
        operator.truediv, torch.div, torch.true_divide, *_methods("div"),
    )  # fmt: skip
    add(
        Rule("cat", absence.concat, "tensors dim", concatenated),
        torch.cat,
        torch.concat,
        torch.concatenate,
    )
    add(Rule("stack", absence.concat, "tensors dim", stacked), torch.stack)
    _fill_mixers()
    _fill_norms()
    _fill_spatial(lead)
    _fill_views()
    _fill_joins()


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
    conv = Rule(
        "conv",
        absence.mix,
        signature,
        conv_read,
        conv_follows,
        count.conv_macs,
        False,
        resize.conv_resize,
    )
    TABLE.add(conv, nn.Conv1d, nn.Conv2d, nn.Conv3d, F.conv1d, F.conv2d, F.conv3d)
    signature = "input weight bias stride padding output_padding groups dilation"
    transpose = Rule(
        "conv_transpose", absence.mix, signature, conv_transpose_read, conv_transpose_follows,
        count.conv_transpose_macs, False, resize.conv_transpose_resize,
    )  # fmt: skip
    TABLE.add(
        transpose, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
        F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    )  # fmt: skip
    linear = Rule(
        "linear", absence.mix, "input weight bias", linear_read, linear_follows, count.linear_macs,
        False, resize.linear_resize,
    )  # fmt: skip
    dynamic = "torch.nn.modules.linear.NonDynamicallyQuantizableLinear"
    TABLE.add(linear, nn.Linear, dynamic, F.linear)


def _fill_norms() -> None:
    signature = "input running_mean running_var weight bias training momentum eps"
    batch = Rule(
        "batch_norm", absence.by_axes, signature, leading_channels, channel_follows,
        resize=resize.features_resize,
    )  # fmt: skip
    TABLE.add(batch, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, F.batch_norm)
    TABLE.add(
        Rule("instance_norm", absence.by_axes, signature, leading_channels, channel_follows,
             resize=resize.features_resize),
        nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    )  # fmt: skip
    signature = "input normalized_shape weight bias eps"
    layer = Rule("layer_norm", absence.norm, signature, norm_read, norm_follows)
    TABLE.add(layer, nn.LayerNorm, F.layer_norm)
    rms = Rule("rms_norm", absence.norm, signature, norm_read, norm_follows)
    TABLE.add(rms, nn.RMSNorm, F.rms_norm)
    signature = "input num_groups weight bias eps"
    TABLE.add(
        Rule("group_norm", absence.group_norm, signature, group_norm_read, channel_follows),
        nn.GroupNorm, F.group_norm,
    )  # fmt: skip


def _fill_spatial(lead: Callable[[int], Callable[[Call], dict[str, Any]]]) -> None:
    for dims in (1, 2, 3):
        kinds = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool")
        modules = [getattr(nn, f"{kind}{dims}d") for kind in kinds]
        pads = ("ZeroPad", "ReflectionPad", "ReplicationPad", "ConstantPad")
        modules += [getattr(nn, f"{kind}{dims}d") for kind in pads]
        names = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
        functions = [getattr(F, f"{name}{dims}d") for name in names]
        TABLE.add(Rule(f"pool{dims}d", absence.by_axes, read=lead(dims)), *modules, *functions)

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
    TABLE.add(
        Rule("roll", absence.by_axes, "input shifts dims", rolled), torch.roll, *_methods("roll")
    )
    TABLE.add(
        Rule("reduce", absence.by_axes, "input dim keepdim", reduced),
        torch.mean, torch.sum, torch.amax, torch.amin, torch.prod,
        *_methods("mean sum amax amin prod"),
    )  # fmt: skip
    TABLE.add(
        Rule("spread", absence.join), torch.std, torch.var, *_methods("std var"),
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
        torch.transpose, torch.swapaxes, *_methods("transpose swapaxes t"), "Tensor.mT",
    )  # fmt: skip
    TABLE.add(Rule("reverse", absence.by_axes, read=reversed_axes, view=True), "Tensor.T")
    TABLE.add(Rule("construct", absence.join, view=True), "construct")
    TABLE.add(Rule("index", absence.by_axes, "input index", indexed, view=True), operator.getitem)
    TABLE.add(Rule("expand", absence.join, view=True), *_methods("expand expand_as"))
    TABLE.add(
        Rule("repeat", absence.join), *_methods("repeat repeat_interleave"), torch.repeat_interleave
    )
    TABLE.add(
        Rule("split", absence.split, "input sections dim", cut, view=True),
        torch.chunk, torch.split, *_methods("chunk split"),
    )  # fmt: skip
    TABLE.add(
        Rule("unbind", absence.join, "input dim", cut, view=True),
        torch.unbind,
        *_methods("unbind"),
    )
    TABLE.add(Rule("piece", absence.piece, "input index", view=True), "piece")
    TABLE.add(Rule("shuffle", absence.join), nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
              F.pixel_shuffle, F.pixel_unshuffle)  # fmt: skip


def _fill_joins() -> None:
    matmul = Rule("matmul", absence.join, "input other", matmul_read, macs=count.bilinear_macs)
    TABLE.add(
        matmul, torch.matmul, torch.bmm, torch.mm, operator.matmul, *_methods("matmul bmm mm")
    )
    TABLE.add(
        Rule("attention", absence.join, "query key value", macs=count.attention_macs),
        F.scaled_dot_product_attention,
    )  # fmt: skip
    TABLE.add(
        Rule("multihead_attention", absence.join, "query key value", multihead_read,
             macs=count.multihead_macs),
        nn.MultiheadAttention,
    )  # fmt: skip
    TABLE.add(Rule("emitted", absence.join), assemble, ragged_group_norm, RaggedGroupNorm)
    TABLE.add(Rule("embedding", absence.join), nn.Embedding, F.embedding)
    recurrent = Rule("recurrent", absence.join, macs=count.recurrent_macs)
    TABLE.add(recurrent, nn.LSTM, nn.GRU, nn.RNN)
    TABLE.add(
        Rule("combine", absence.join, "input other"),
        torch.where, torch.maximum, torch.minimum, torch.max, torch.min, torch.cumsum,
        torch.gather, torch.index_select, torch.argmax, torch.topk, torch.addmm, torch.baddbmm,
        *_methods("where maximum minimum max min cumsum gather index_select argmax topk"),
    )  # fmt: skip


_fill()
