"""Operators that work along an image, a signal or an axis: pools, samples, reductions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from . import absence, products, reference, resize
from . import calls as read
from . import macs as count
from .rule import Rule
from .runtime import largest, smallest
from .spellings import aten, modules, spelled


def fill_spatial(add: Callable[..., Any]) -> None:
    for dims in (1, 2, 3):
        kinds = "MaxPool AvgPool AdaptiveAvgPool AdaptiveMaxPool LPPool"
        kinds += " ZeroPad ReflectionPad ReplicationPad ConstantPad CircularPad"
        names = "max_pool avg_pool adaptive_avg_pool adaptive_max_pool lp_pool"
        add(
            Rule(f"pool{dims}d", absence.by_axes, read=read.leading_axes(dims)),
            *(getattr(nn, f"{kind}{dims}d") for kind in kinds.split()),
            *(getattr(F, f"{name}{dims}d") for name in names.split()),
            getattr(F, f"max_pool{dims}d_with_indices"),
            getattr(F, f"adaptive_max_pool{dims}d_with_indices"),
        )
    upsample = (
        "upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec "
        "upsample_linear1d.vec upsample_bilinear2d.vec upsample_trilinear3d.vec "
        "upsample_bicubic2d.vec _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec "
        "_upsample_nearest_exact2d.vec"
    )
    add(
        Rule("resample", absence.by_axes, "input", read.apart_by_channels),
        *modules("Upsample UpsamplingNearest2d UpsamplingBilinear2d"), F.interpolate, F.upsample,
        *aten(upsample),
    )  # fmt: skip
    softmax = Rule("softmax", absence.by_axes, "input dim", read.but_axis("dim", None))
    add(softmax, *modules("Softmax LogSoftmax Softmin"), *spelled("softmax log_softmax"))
    add(Rule("softmax2d", absence.by_axes, read=read.but_channels), nn.Softmax2d)
    add(Rule("pad", absence.by_axes, "input pad mode value", read.padded), F.pad)
    add(
        Rule("roll", absence.by_axes, "input shifts dims", read.but_axis("dims", None)),
        *spelled("roll"),
    )
    add(Rule("flip", absence.by_axes, "input dims", read.but_axis("dims", None)), *spelled("flip"))
    add(Rule("triangle", absence.by_axes, read=read.leading_axes(2)), *spelled("tril triu"))
    add(Rule("reduce", absence.by_axes, "input dim keepdim", read.reduced), *spelled("all any"))
    for name in ["mean", "sum", "amax", "amin", "prod", "logsumexp"]:
        taken = Rule(name, absence.reduce, "input dim keepdim", read.reduced,
                     reference=reference.reduced)  # fmt: skip
        add(taken, *spelled(name), *{"amax": [largest], "amin": [smallest]}.get(name, []))
    add(
        Rule("extremum", absence.by_axes, "input dim keepdim", read.extreme),
        *spelled("max min argmax argmin"),
    )
    add(
        Rule("spread", absence.join), *spelled("std var norm std_mean var_mean"),
        torch.linalg.norm, torch.linalg.vector_norm, *aten("linalg_vector_norm.default"),
    )  # fmt: skip
    add(
        Rule("accumulate", absence.by_axes, "input dim", read.but_axis("dim", None)),
        *spelled("cumsum cumprod"),
    )
    add(Rule("normalize", absence.by_axes, "input p dim", read.but_axis("dim", 1)), F.normalize)
    add(Rule("glu", absence.halves, "input dim", read.halved), nn.GLU, F.glu)


def fill_signals(add: Callable[..., Any]) -> None:
    """Samples at given places, windows of an image as channels, and transforms."""
    add(
        Rule("unpool", replace(absence.contract, makes=False), "input indices", products.unpooled),
        *modules("MaxUnpool1d MaxUnpool2d MaxUnpool3d"),
        F.max_unpool1d, F.max_unpool2d, F.max_unpool3d,
        torch._C._nn.max_unpool2d, torch._C._nn.max_unpool3d,
    )  # fmt: skip
    add(
        Rule("sample", replace(absence.contract, makes=False), "input grid", products.sampled,
             products.sampled_follows),
        F.grid_sample, torch.grid_sampler,
    )  # fmt: skip
    add(
        Rule("write", replace(absence.contract, makes=False), "input src dim", products.written,
             products.written_follows),
        *spelled("slice_scatter select_scatter"),
        *aten("slice_scatter.default select_scatter.default"),
    )  # fmt: skip
    for name, signature, target in (
        ("deform_conv", "input offset weight bias stride padding dilation mask", "deform_conv2d"),
        ("deform_conv_layer", "input offset mask", "DeformConv2d"),
    ):
        add(
            Rule(name, absence.contract, signature, products.deformed, products.deformed_follows,
                 count.conv_macs, resize=resize.conv_resize),
            f"torchvision.ops.deform_conv.{target}",
        )  # fmt: skip
    add(
        Rule("regroup", absence.mix, read=read.regrouped(3)),
        *modules("PixelShuffle PixelUnshuffle Unfold"), F.unfold,
        *spelled("pixel_shuffle pixel_unshuffle"),
    )  # fmt: skip
    add(Rule("fold", absence.mix, read=read.regrouped(2)), nn.Fold, F.fold)
    last: dict[str, Any] = {"": -1, "2": (-2, -1), "n": None}
    for name, default in last.items():
        add(
            Rule(f"fft{name}", absence.by_axes, "input n dim norm", read.but_axis("dim", default)),
            *(getattr(torch.fft, f"{kind}fft{name}") for kind in ("", "i", "r", "ir", "h", "ih")),
        )
    add(
        Rule("fftshift", absence.by_axes, "input dim", read.but_axis("dim", None)),
        torch.fft.fftshift, torch.fft.ifftshift,
    )  # fmt: skip
    add(Rule("stft", absence.by_axes, read=read.leading_axes(1)), *spelled("stft"))
    add(Rule("istft", absence.by_axes, read=read.leading_axes(2)), *spelled("istft"))
    add(Rule("parts", absence.by_axes, read=read.leading_axes(0)), torch.view_as_real)
    add(Rule("whole", absence.by_axes, read=read.leading_axes(1)), torch.view_as_complex)
