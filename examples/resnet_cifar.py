"""ResNets for 32×32 images (He et al. 2015, section 4.2), with option-A shortcuts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """conv-bn-relu-conv-bn beside a shortcut that has no parameters."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.extra = stride, outer - inner

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1:
            half = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(y + x)


class ResNet(nn.Module):
    """Three stages of `blocks` blocks with 16, 32 and 64 channels."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    def _stage(self, inner: int, outer: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(inner, outer, stride)
        return nn.Sequential(first, *(Block(outer, outer, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet20() -> ResNet:
    """20 layers, 0.27 M parameters."""
    return ResNet(3)


def resnet56() -> ResNet:
    """56 layers, 0.86 M parameters."""
    return ResNet(9)
