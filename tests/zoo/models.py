"""Tiny models, one for every way data flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Example = tuple[nn.Module, tuple[Any, ...]]
ZOO: dict[str, Callable[[], Example]] = {}


def example(make: Callable[[], Example]) -> Callable[[], Example]:
    """Add a model and its inputs to the zoo, under the function's name."""
    ZOO[make.__name__] = make
    return make


def images(channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size)


def conv(inner: int, outer: int, size: int = 3, **options: Any) -> nn.Sequential:
    layer = nn.Conv2d(inner, outer, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.ReLU())


class Head(nn.Module):
    def __init__(self, channels: int, classes: int = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    """conv-bn-relu-conv-bn plus identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.conv(self.first(x))))


class PreActivation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(torch.relu(self.norm(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = conv(channels, channels)
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        gate = self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))).sigmoid()
        return x + y * gate


class Dense(nn.Module):
    """Every layer reads the concatenation of all before, through a per-channel norm."""

    def __init__(self, channels: int, growth: int = 4, layers: int = 3) -> None:
        super().__init__()
        widths = [channels + i * growth for i in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(w), nn.ReLU(inplace=True), nn.Conv2d(w, growth, 3, padding=1)
            )
            for w in widths
        )
        self.norm = nn.BatchNorm2d(channels + layers * growth)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return F.relu(self.norm(torch.cat(features, 1)))


class Inception(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.three = conv(channels, 4, 1), conv(channels, 6)
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.pool(x)], dim=1)


class Shuffle(nn.Module):
    """Split, depthwise branch, concatenation and channel shuffle, sizes read from the tensor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1),
            nn.Conv2d(half, half, 3, padding=1, groups=half),
            conv(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), 1)
        b, c, h, w = x.size()
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down, self.middle = conv(3, 8), conv(8, 12), conv(12, 12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.out = nn.Sequential(conv(16, 8), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        top = self.enter(x)
        low = self.down(F.max_pool2d(top, 2))
        low = low + self.middle(low)
        return self.out(torch.cat([top, self.up(low)], 1))


class Parallel(nn.Module):
    """The same tensor twice into one operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        square = a * a
        double = a + a
        return self.out(torch.cat([square, double], -1))


class Twice(nn.Module):
    """One module called twice, once on a concatenation that may lose a piece."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.layer = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.left(x), self.right(x)], 1)
        return self.out(x + self.layer(y) + self.layer(x))


class Several(nn.Module):
    """Two inputs, two outputs, one of them in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = conv(3, 6), nn.Linear(4, 6)
        self.block, self.first, self.second = Block(6), Head(6), Head(6)

    def forward(self, image: Tensor, vector: Tensor, scale: float = 2.0) -> dict[str, Any]:
        x = self.image(image) * scale + self.vector(vector)[:, :, None, None]
        y = self.block(x)
        return {"scores": self.first(y), "rest": (self.second(x + y), y)}


class Attention(nn.Module):
    """A transformer block, its attention written by hand."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        qkv = self.qkv(self.before(x)).reshape(b, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5).softmax(dim=-1)
        x = x + self.project((weights @ v).transpose(1, 2).reshape(b, n, width))
        return x + self.mlp(self.after(x))


class FastAttention(nn.Module):
    """nn.MultiheadAttention and scaled_dot_product_attention, with a class token."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 6, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        x = x + self.attention(x, x, x, need_weights=False)[0]
        y = self.norm(x)
        x = x + F.scaled_dot_product_attention(self.q(y), self.k(y), self.v(y))
        return self.out(x[:, 0])


class LayerScale(nn.Module):
    """ConvNeXt's block: a parameter used outside modules, norms over permuted concatenations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, channels // 2, 1), nn.Conv2d(3, channels // 2, 1)
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))
        self.shift = nn.Parameter(torch.randn(channels))
        self.depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen, self.shrink = nn.Linear(channels, 12), nn.Linear(12, channels)
        self.head = Head(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        y = self.norm(self.depth(x * self.scale).permute(0, 2, 3, 1)) + self.shift
        y = F.layer_norm(y, (y.shape[-1],), self.shift)
        y = self.shrink(F.gelu(self.widen(y))).permute(0, 3, 1, 2)
        return self.head(x + y * self.scale)


class InPlace(nn.Module):
    """In-place operators and later readers of what they wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.third, self.act, self.head = nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        y = self.second(x)
        y += x
        z = self.third(y)
        y.relu_()
        z.add_(y)
        z = z * 0.5
        z -= self.third(y)
        return self.head(F.relu(z, inplace=True))


class Dropouts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.relu(self.first(x)))
        x = x + F.dropout(self.second(x), 0.2, self.training)
        return self.third(x)


class GroupNorms(nn.Module):
    """Group norms over a concatenation: whole groups may go, or parts of them."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, width, 3, padding=1) for width in (4, 6, 2))
        self.coarse, self.fine = nn.GroupNorm(2, 12), nn.GroupNorm(6, 12)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([branch(x) for branch in self.branches], 1)
        return self.head(self.fine(F.relu(y)) - self.coarse(y))


class Broadcast(nn.Module):
    """Sums, differences and quotients of different shapes, and a stack that is summed."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.pooled, self.row = nn.Conv2d(3, 4, 1), nn.Linear(3, 4), nn.Conv2d(3, 1, 1)
        self.head = Head(4)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean((2, 3))).unsqueeze(-1).unsqueeze(-1)
        y = pooled + self.wide(x)
        y = torch.stack([y, self.wide(x) / (1 + y * y)]).sum(0)
        y = 1.5 - torch.sub(pooled, y, alpha=2)
        return self.head(y + self.row(x))


class Gated(nn.Module):
    """A gated unit on a concatenation, split unevenly and unbound."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 2)
        self.out = nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.rand(10))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.a(x), self.b(x), self.c(x)], -1) * self.scale
        value, gate = y.chunk(2, dim=-1)
        first, second, third = y.split([5, 2, 3], dim=-1)
        mixed: Tensor = self.out(value * gate.sigmoid() + first)
        return mixed + torch.cat([second, third], 1).mean(1, True)


class Tied(nn.Module):
    """One weight used by two layers, and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.first(x)
        x = x + self.second(x).tanh()
        return self.out(x)


class Body(nn.Module):
    """Blocks between a stem and a head."""

    def __init__(self, *blocks: nn.Module, width: int = 8, out: int | None = None) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = (
            conv(3, width),
            nn.Sequential(*blocks),
            Head(out or width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


def add(name: str, make: Callable[[], nn.Module], *inputs: Callable[[], Tensor]) -> None:
    ZOO[name] = lambda: (make(), tuple(i() for i in inputs or (images,)))


def rows(size: int = 6) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, size)


add("residual", lambda: Body(Block(8), Block(8), Block(8)))
add("preactivation", lambda: Body(PreActivation(8), PreActivation(8)))
add("squeeze_excite", lambda: Body(SqueezeExcite(8), SqueezeExcite(8)))
add("dense", lambda: Body(Dense(8), nn.Conv2d(20, 8, 1), Dense(8), out=20))
add("inception", lambda: Body(Inception(8), Inception(12), out=12))
add("shuffle", lambda: Body(Shuffle(8), Shuffle(8)))
add(
    "depthwise",
    lambda: Body(Inception(8), nn.Conv2d(12, 24, 3, padding=1, groups=12), Block(24), out=24),
)
add(
    "grouped",
    lambda: Body(Inception(8), nn.Conv2d(12, 12, 3, padding=1, groups=3), Block(12), out=12),
)
add("unet", UNet)
add("parallel", Parallel, rows())
add("twice", Twice, rows())
add("several", Several, images, rows(4))
add("attention", lambda: nn.Sequential(Attention(), Attention()), lambda: torch.randn(2, 5, 8))
add("fast_attention", FastAttention, lambda: torch.randn(2, 5, 8))
add("layer_scale", lambda: LayerScale(8))
add("in_place", InPlace)
add("dropouts", Dropouts, rows())
add("group_norms", GroupNorms)
add("broadcast", Broadcast)
add("gated", Gated, rows())
add("tied", Tied, lambda: torch.randint(0, 11, (2, 4)))


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Example:
    """A model of the zoo and its inputs, batch-norm statistics made interesting."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, args = ZOO[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0.0, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.normal_(module.bias)
    cast = tuple(a.to(dtype) if a.dtype.is_floating_point else a for a in args)
    return model.to(dtype).eval(), cast
