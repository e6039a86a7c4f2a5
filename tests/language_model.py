"""A decoder as language models have it: root mean squares, rotary embeddings, a gated MLP."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS = 16, 2


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    half = WIDTH // HEADS // 2
    other = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * angles.cos() + other * angles.sin()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in "qk")
        self.v_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in "vo")
        self.register_buffer("angles", torch.linspace(0, 1, WIDTH // HEADS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(turned(q, self.angles), turned(k, self.angles), v)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, 40, bias=False) for _ in "gu")
        self.down_proj = nn.Linear(40, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embed_tokens, self.norm = nn.Embedding(50, WIDTH), Norm()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class LanguageModel(nn.Module):
    """Of Llama's shape."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.model, self.lm_head = Decoder(layers), nn.Linear(WIDTH, 50, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.model(ids))


IDS = torch.arange(10).reshape(2, 5)
