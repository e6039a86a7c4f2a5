"""Torch-Pruning (Fang et al., CVPR 2023, arXiv:2301.12900) as practitioners use it, for benchmarks.

Coupled channels and heads, ranked over the whole network and scored again after every small step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

STEPS = 100  # from nothing to everything removed
HEADS_EVERY = 3  # steps, since version 1.6.1 fails where a step has no head to remove
IMPORTANCE = {
    "torch-pruning-l2": lambda: tp.importance.MagnitudeImportance(p=2, group_reduction="first"),
    "torch-pruning-group": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "torch-pruning-taylor": lambda: tp.importance.GroupTaylorImportance(),
}


class Subsampled(nn.Conv2d):
    """An option-A shortcut as a convolution, which lets a channel of its input go.

    Torch-Pruning follows channels through convolutions, but not through a padding with a fixed
    number of zeros, which breaks the pruned network. Its weights count nowhere.
    """

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__(inner, outer, 1, stride, bias=False)
        half = (outer - inner) // 2
        with torch.no_grad():
            self.weight.zero_()
            self.weight[half : half + inner, :, 0, 0] = torch.eye(inner)


class Residual(nn.Module):
    """A basic block whose shortcut is a module."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        inner, outer = block.conv1.in_channels, block.conv1.out_channels
        same = block.stride == 1
        self.shortcut = nn.Identity() if same else Subsampled(inner, outer, block.stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def with_shortcuts(model: nn.Module) -> nn.Module:
    """The network, its residual blocks with modules for shortcuts; others as they are."""
    for stage in ("layer1", "layer2", "layer3"):
        for i, block in enumerate(getattr(model, stage, ())):
            getattr(model, stage)[i] = Residual(block)
    return model


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one example, those inside attention too."""
    spare: list[int] = []

    def shortcut(module: nn.Module, inputs: object, y: Tensor) -> None:
        spare.append(module.weight.numel() * y.shape[-1] * y.shape[-2])

    found = [module for module in model.modules() if isinstance(module, Subsampled)]
    hooks = [module.register_forward_hook(shortcut) for module in found]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() // 2 - sum(spare)


def params(model: nn.Module) -> int:
    """Parameters."""
    spare = [m.weight.numel() for m in model.modules() if isinstance(m, Subsampled)]
    return sum(p.numel() for p in model.parameters()) - sum(spare)


def recover(model: nn.Module, images: Tensor) -> None:
    """Statistics of every batch norm from one batch."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def add_gradients(model: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Gradients of the summed losses of batches, and no others."""
    model.zero_grad()
    for images, labels in pairs:
        F.cross_entropy(model(images), labels).backward()


def pruned(
    model: nn.Module, example: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], importance: str,
    targets: Sequence[float],
) -> Iterator[tuple[float, nn.Module]]:  # fmt: skip
    """(target, pruned copy) for every share of the MACs, from the largest target on.

    Args:
        model: a network of examples/resnet_cifar.py or examples/vision_transformer.py; is
            changed.
        example: one input.
        pairs: data whose gradients score.
        importance: a key of IMPORTANCE.
        targets: shares of the MACs to reach.
    """
    whole = macs(model, example)
    with_shortcuts(model).to(example.device)
    attentions = [m for m in model.modules() if hasattr(m, "qkv")]
    heads = {m.qkv: m.heads for m in attentions}
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    # what joins attention heads is fixed in number and in size, unless whole heads go
    more = {"num_heads": heads, "prune_num_heads": True, "prune_head_dims": False,
            "head_pruning_ratio": 1.0} if heads else {}  # fmt: skip
    pruner = tp.pruner.BasePruner(
        model, example, IMPORTANCE[importance](), global_pruning=True, pruning_ratio=1.0,
        max_pruning_ratio=0.95, iterative_steps=STEPS, ignored_layers=[last], **more,
    )  # fmt: skip
    for target in sorted(targets, reverse=True):
        while macs(model, example) > target * whole:
            if importance.endswith("taylor"):
                add_gradients(model, pairs)
            pruner.prune_num_heads = bool(heads) and pruner.current_step % HEADS_EVERY == 0
            pruner.step()
            for attention in attentions:
                attention.heads = pruner.num_heads[attention.qkv]
        yield target, copy.deepcopy(model)
