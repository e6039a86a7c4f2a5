"""The operators edgewise knows: one rule each, and how users add their own.

A rule says how absence passes through an operator (a function of `absence`), which plain data
the graph must keep of a call, how the operator's parameters follow its input and output channels,
and how many multiply-accumulates it takes. An operator without a rule is an error at trace time.

Examples:
    >>> ew.ops.TABLE.find(F.relu).name
    'pointwise'
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from . import absence, lowering, products, recurrent, reference, resize
from . import calls as read
from . import macs as count
from .calls import same_axes as same_axes
from .lowering import Site as Site
from .macs import Macs as Macs
from .rule import Rule as Rule
from .rule import Table
from .runtime import RaggedGroupNorm, assemble, ragged_group_norm
from .spatial import fill_signals, fill_spatial
from .spellings import aten, modules, spelled

TABLE = Table()


def register(target: Any, rule: Rule) -> None:
    """Teach edgewise an operator of your own.

    Args:
        target: a function, an `nn.Module` class, "Tensor.name" for a tensor method, or for
            models that torch.export traces a custom operator, `torch.ops.mylib.name.default`.
        rule: the rule; `ew.Rule("swish6", flow=ew.absence.by_axes, read=ew.ops.same_axes)` is one
            for an element-wise operator.

    Raises:
        EdgewiseError: another rule has the same name.

    Examples:
        >>> def swish6(x):
        ...     return x * F.relu6(x + 3) / 6
        >>> ew.register(swish6, ew.Rule("swish6", ew.absence.by_axes, read=ew.ops.same_axes))
    """
    TABLE.add(rule, target)


# -- element by element ------------------------------------------------------------------------


def _fill_pointwise() -> None:
    TABLE.add(
        Rule("pointwise", absence.by_axes, read=read.same_axes, follows=read.broadcast),
        *spelled(
            "relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh "
            "softplus softsign tanhshrink logsigmoid threshold hardshrink softshrink rrelu "
            "sigmoid tanh exp exp2 expm1 log log1p log2 log10 sqrt rsqrt abs neg negative positive "
            "square erf erfc erfinv sin cos tan asin acos atan sinh cosh asinh acosh atanh "
            "clamp clip clamp_min clamp_max pow reciprocal floor ceil round trunc frac sign sgn "
            "sigmoid logit nan_to_num float_power "
            "eq ne gt lt ge le isnan isinf isfinite logical_not logical_and logical_or logical_xor "
            "bitwise_not bitwise_and bitwise_or bitwise_xor remainder fmod floor_divide "
            "masked_fill type_as clone detach float half double bfloat16 bool int long to type "
            "atan2 fmax fmin real imag conj angle polar resolve_conj"
        ),
        *modules(
            "ReLU ReLU6 LeakyReLU ELU SELU CELU GELU SiLU Mish Hardswish Hardsigmoid Hardtanh "
            "Softplus Softsign Tanhshrink LogSigmoid Sigmoid Tanh Threshold Hardshrink Softshrink "
            "RReLU"
        ),
        operator.neg, operator.pow, operator.floordiv, operator.mod, operator.abs, operator.gt,
        operator.lt, operator.ge, operator.le, operator.eq, operator.ne, operator.and_,
        operator.or_, operator.xor, operator.invert, torch.complex,
    )  # fmt: skip
    TABLE.add(
        Rule("identity", absence.by_axes, read=read.same_axes, view=True),
        *modules(
            "Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout"
        ),
        *spelled("dropout alpha_dropout feature_alpha_dropout contiguous"),
        F.dropout1d, F.dropout2d, F.dropout3d,
        "torchvision.ops.stochastic_depth.StochasticDepth",
        "torchvision.ops.stochastic_depth.stochastic_depth",
        "timm.layers.drop.DropPath", "timm.layers.drop.drop_path",
    )  # fmt: skip
    TABLE.add(
        Rule("prelu", absence.by_axes, "input weight", read.same_axes, read.prelu_follows,
             resize=resize.prelu_resize),
        nn.PReLU, F.prelu,
    )  # fmt: skip


def _fill_merging() -> None:
    """Sums, products and concatenations: where absence ends."""
    add = TABLE.add
    two = "input other"
    add(
        Rule("add", absence.add, two, read.summed, read.broadcast, lower=lowering.add),
        operator.add,
        *spelled("add"),
    )
    add(
        Rule("sub", absence.add, two, read.subtracted, read.broadcast, lower=lowering.add),
        operator.sub,
        *spelled("sub subtract"),
    )
    add(
        Rule("mul", absence.multiply, two, read.factors, read.broadcast),
        operator.mul,
        *spelled("mul multiply"),
    )
    add(
        Rule("div", absence.multiply, two, read.quotient, read.broadcast),
        operator.truediv,
        *spelled("div divide true_divide"),
    )
    pieces = "tensors dim"
    add(Rule("cat", absence.concat, pieces, read.concatenated),
        torch.cat, torch.concat, torch.concatenate)  # fmt: skip
    add(Rule("stack", absence.concat, pieces, read.stacked), torch.stack)


# -- layers ------------------------------------------------------------------------------------


def _fill_mixers() -> None:
    conv = Rule(
        "conv", absence.mix, "input weight bias stride padding dilation groups", read.conv_read,
        read.conv_follows, count.conv_macs, resize=resize.conv_resize, lower=lowering.conv,
    )  # fmt: skip
    TABLE.add(conv, *modules("Conv1d Conv2d Conv3d"), F.conv1d, F.conv2d, F.conv3d)
    transpose = Rule(
        "conv_transpose", absence.mix,
        "input weight bias stride padding output_padding groups dilation",
        read.conv_read, read.conv_transpose_follows, count.conv_transpose_macs,
        resize=resize.conv_transpose_resize, lower=lowering.conv,
    )  # fmt: skip
    TABLE.add(
        transpose, *modules("ConvTranspose1d ConvTranspose2d ConvTranspose3d"),
        F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    )  # fmt: skip
    linear = Rule(
        "linear", absence.mix, "input weight bias", read.linear_read, read.linear_follows,
        count.linear_macs, resize=resize.linear_resize,
    )  # fmt: skip
    dynamic = "torch.nn.modules.linear.NonDynamicallyQuantizableLinear"
    TABLE.add(linear, nn.Linear, dynamic, F.linear)


def _fill_norms() -> None:
    signature = "input running_mean running_var weight bias training momentum eps"
    for name, targets in {
        "batch_norm": [*modules("BatchNorm1d BatchNorm2d BatchNorm3d"), F.batch_norm],
        "instance_norm": [*modules("InstanceNorm1d InstanceNorm2d InstanceNorm3d"),
                          F.instance_norm],
    }.items():  # fmt: skip
        TABLE.add(
            Rule(name, absence.by_axes, signature, read.channels_alone, read.channel_follows,
                 resize=resize.features_resize),
            *targets,
        )  # fmt: skip
    layer = Rule("layer_norm", absence.norm, "input normalized_shape weight bias eps",
                 read.norm_read, read.norm_follows, sizes=lowering.norm_sizes,
                 lower=lowering.norm, reference=reference.layer_norm)  # fmt: skip
    TABLE.add(layer, nn.LayerNorm, F.layer_norm)
    rms = Rule("rms_norm", absence.norm, "input normalized_shape weight eps", read.norm_read,
               read.norm_follows, sizes=lowering.norm_sizes, lower=lowering.norm,
               reference=reference.rms_norm)  # fmt: skip
    TABLE.add(rms, nn.RMSNorm, F.rms_norm)
    group = Rule("group_norm", absence.group_norm, "input num_groups weight bias eps",
                 read.group_norm_read, read.channel_follows, sizes=lowering.group_norm_sizes,
                 lower=lowering.group_norm, reference=reference.group_norm)  # fmt: skip
    TABLE.add(group, nn.GroupNorm, F.group_norm)
    TABLE.add(
        Rule("local_response_norm", absence.by_axes, read=read.but_channels),
        nn.LocalResponseNorm, F.local_response_norm,
    )  # fmt: skip


# -- shapes ------------------------------------------------------------------------------------


def _fill_views() -> None:
    add = TABLE.add
    add(
        Rule("reshape", absence.reshape, "input shape", view=True, lower=lowering.reshape),
        *spelled("flatten reshape view squeeze unsqueeze unflatten view_as reshape_as ravel"),
        *modules("Flatten Unflatten"),
    )
    add(
        Rule("permute", absence.by_axes, "input dims", read.permuted, view=True),
        *spelled("permute"), "torchvision.ops.misc.Permute",
    )  # fmt: skip
    add(
        Rule("transpose", absence.by_axes, "input dim0 dim1", read.transposed, view=True),
        *spelled("transpose swapaxes swapdims t adjoint"), "Tensor.mT",
    )  # fmt: skip
    add(
        Rule("movedim", absence.by_axes, "input source destination", read.moved, view=True),
        *spelled("movedim moveaxis"),
    )
    add(Rule("reverse", absence.by_axes, read=read.reversed_axes, view=True), "Tensor.T")
    add(Rule("index", absence.by_axes, "input index", read.indexed, view=True), operator.getitem)
    add(
        Rule("narrow", absence.by_axes, "input dim", read.but_axis("dim", 0), view=True),
        *spelled("narrow"),
    )
    add(
        Rule("expand", absence.by_axes, read=read.same_axes, view=True, lower=lowering.expand),
        *spelled("expand expand_as broadcast_to"),
    )
    add(Rule("repeat", absence.by_axes, read=read.same_axes), *spelled("repeat tile"))
    add(Rule("interleave", absence.join), *spelled("repeat_interleave"))
    add(
        Rule(
            "split", absence.split, "input sections dim", read.cut, view=True, lower=lowering.split
        ),
        *spelled("chunk split tensor_split split_with_sizes"),
    )
    add(Rule("unbind", absence.unbind, "input dim", read.cut, view=True), *spelled("unbind"))
    add(Rule("member", absence.member, "input index", view=True), "member")
    add(Rule("piece", absence.piece, "input index", view=True, lower=lowering.piece), "piece")
    add(Rule("take", absence.take, "input index", view=True), "take")
    add(Rule("construct", absence.join, view=True), "construct")
    add(Rule("twin", absence.split, "input index", view=True), "twin")
    add(Rule("shuffle", absence.join), nn.ChannelShuffle, *spelled("channel_shuffle"))
    add(Rule("unfold", absence.join, view=True), "Tensor.unfold", "Tensor.as_strided")


# -- products of tensors, and operators that need all their inputs ------------------------------


def _fill_products() -> None:
    add = TABLE.add
    add(
        Rule("matmul", absence.contract, "input other", products.matmul_read,
             products.matmul_follows, count.bilinear_macs),
        operator.matmul,
        *spelled("matmul bmm mm"),
    )  # fmt: skip
    add(
        Rule("grouped_matmul", absence.join, "input other", products.matmul_read,
             macs=count.bilinear_macs),
        torch.mv, "Tensor.mv", "aten._grouped_mm.default",
        "transformers.grouped_mm_fallback.default",
    )  # fmt: skip
    add(
        Rule("addmm", absence.contract, "bias input other", products.addmm_read,
             products.addmm_follows, count.bilinear_macs),
        *spelled("addmm baddbmm"),
    )  # fmt: skip
    add(
        Rule("addmv", absence.join, "bias input other", products.addmm_read,
             macs=count.bilinear_macs),
        *spelled("addmv"),
    )  # fmt: skip
    add(
        Rule("einsum", absence.contract, "equation tensors", products.einsum_read,
             products.einsum_follows, count.einsum_macs),
        torch.einsum,
    )  # fmt: skip
    add(
        Rule("attention", absence.contract, "query key value attn_mask dropout_p is_causal",
             products.attention_read, products.attention_follows, count.attention_macs),
        F.scaled_dot_product_attention,
    )  # fmt: skip


def _fill_joins() -> None:
    add = TABLE.add
    add(
        Rule("multihead_attention", absence.join, "query key value", read.multihead_read,
             macs=count.multihead_macs),
        nn.MultiheadAttention,
    )  # fmt: skip
    layer = Rule("recurrent", absence.recurrent, "input hx", recurrent.recurrent_read,
                 recurrent.recurrent_follows, count.recurrent_macs,
                 resize=resize.recurrent_resize)  # fmt: skip
    add(Rule("state", absence.state, "input index", view=True), "state")
    add(
        layer, *modules("LSTM GRU RNN LSTMCell GRUCell RNNCell"),
        torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, torch.lstm_cell, torch.gru_cell,
        torch.rnn_tanh_cell, torch.rnn_relu_cell,
    )  # fmt: skip
    add(
        Rule("embedding", absence.lookup, "input weight", follows=read.embedding_follows,
             resize=resize.embedding_resize),
        *modules("Embedding EmbeddingBag"), F.embedding, F.embedding_bag,
    )  # fmt: skip
    add(Rule("emitted", absence.join), assemble, ragged_group_norm, RaggedGroupNorm)
    add(
        Rule("combine", absence.join),
        *spelled(
            "where maximum minimum gather index_select take_along_dim topk "
            "sort argsort scatter scatter_add index_add index_put index_copy index_fill "
            "masked_scatter diagonal diag diff outer cross kron "
            "lerp addcmul addcdiv bucketize searchsorted histc bincount one_hot cdist "
            "cosine_similarity affine_grid bilinear zeros_like ones_like full_like "
            "empty_like rand_like randn_like new_zeros new_ones new_full new_empty copysign "
            "logaddexp unique_consecutive"
        ),
        *modules("Bilinear CosineSimilarity PairwiseDistance"),
        torch.meshgrid,
        *aten("meshgrid.indexing copy.default fill.Tensor fill.Scalar"),
    )  # fmt: skip


def _fill() -> None:
    TABLE.add(Rule("input", absence.join), "placeholder")
    TABLE.add(Rule("output", absence.join), "output")
    fills: list[Callable[[], None]] = [
        _fill_pointwise, _fill_merging, _fill_mixers, _fill_norms, _fill_views,
        _fill_products, _fill_joins,
    ]  # fmt: skip
    for fill in fills:
        fill()
    fill_spatial(TABLE.add)
    fill_signals(TABLE.add)


_fill()
BUILT_IN = frozenset(TABLE.rules)
