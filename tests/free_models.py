"""Random networks whose sizes are read from their inputs: any batch, length, height and width.

Every line takes tensors of one form, images [b, 8, h, w] or rows [b, n, 8], and gives one of that
form. `$...$` is as in random_models.py; `x` and `y` are any tensors before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from random_models import DIGITS, Digits, Recipe, Value, Writer

CONV, ONE, ROW = "$nn.Conv2d(8, 8, 3, padding=1)$", "$nn.Conv2d(8, 8, 1)$", "$nn.Linear(8, 8)$"
HEADS = f"q, k, v = {ROW}({{q}}).view(*{{s}}), {ROW}({{k}}).view(*{{t}}), {ROW}({{k}}).view(*{{t}})"
HEADS += "; q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)"
SIZES = "b, c, h, w = {x}.shape"

IMAGES = [
    f"{{x}} + F.relu({CONV}({{x}}))",
    f"{{x}} + {ONE}(F.relu($nn.Conv2d(8, 12, 1)$({{x}}))[:, :8])",
    f"{{x}} + {{y}} + $nn.BatchNorm2d(8)$({ONE}({{x}}))",
    "F.interpolate(F.relu($nn.Conv2d(8, 8, 3, 2, 1)$({x})), size={y}.shape[2:])",
    f"F.interpolate({CONV}(F.avg_pool2d({{y}}, 2)), size=({{x}}.shape[2], {{x}}.size(3)), "
    "mode='bilinear') + {x}",
    f"{SIZES}; g = {{x}}.view(b, c, h * w).sum(2) / (h * w); "
    f"{{x}} * {ROW}(F.relu($nn.Linear(8, 8)$(g))).sigmoid().view(b, c, 1, 1)",
    f"{SIZES}; t = {{y}}.flatten(2).transpose(1, 2); n = h * w; s = (b, n, 2, -1); "
    + HEADS.format(q="t", k="t", s="s", t="s")
    + f"; t = {ROW}(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)); "
    "{x} + t.transpose(1, 2).reshape(b, c, h, w)",
    f"{SIZES}; {ONE}({{x}}.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)) + {{y}}",
    "$nn.Conv2d(16, 8, 1)$(torch.cat([{x}, {y}], 1))",
    "torch.cat([$nn.Conv2d(8, 4, 1)$({x}), $nn.Conv2d(8, 4, 3, padding=1)$({y})], 1)",
    "{y} + {x} * torch.arange({y}.shape[3]) * 0.1",
    "{x} + $p 1, 8, 1, 1$.expand({y}.shape[0], -1, {y}.shape[2], {y}.size(3))",
    f"{ONE}({{y}}).mean((2, 3), keepdim=True).expand_as({{x}}) + {{x}}",
    f"{{x}} - torch.zeros_like({CONV}({{y}})) + {{y}}.new_full((1, 1, {{y}}.shape[2], 1), 0.1)",
    "F.pad($nn.Conv2d(8, 8, 3)$({x}), (1, 1, 1, 1)) + {y}",
    f"z = {CONV}({{x}}); {{x}} + z[:, :, : z.shape[2] - 1].sum(2, keepdim=True) / z.shape[2]",
    "F.layer_norm({x}, {x}.shape[1:]) + {y}",
    "F.group_norm({x}, 2) * {y}.sigmoid()",
]
ATTENTION = f"b, n, _ = {{x}}.shape; m = {{y}}.shape[1]; {HEADS}".format(
    x="{x}", y="{y}", q="{x}", k="{y}", s="(b, n, 2, -1)", t="(b, m, 2, -1)"
)
ROWS = [
    "{x} + $nn.Linear(12, 8)$(F.gelu($nn.Linear(8, 12)$({x})))",
    f"{{x}} + {{y}} * {ROW}({{x}}).sigmoid()",
    f"{ATTENTION}; "
    f"{{x}} + {ROW}(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))",
    f"{ATTENTION}; a = q @ k.transpose(-2, -1) * 0.5; "
    "a = a.masked_fill(torch.ones(n, m).tril() == 0, -1e9).softmax(-1); "
    f"{ROW}((a @ v).transpose(1, 2).contiguous().view(b, n, 8)) + {{x}}",
    "{x} + $nn.Embedding(64, 8)$(torch.arange({y}.size(1)))",
    "{x} + {y}.sum(1, keepdim=True) / {y}.shape[1]",
    f"{{x}} + {ROW}({{y}}).mean(1, keepdim=True).expand(-1, {{x}}.shape[1], -1)",
    f"b, n, c = {{x}}.shape; {ROW}({{x}}.reshape(b * n, c)).relu().view(b, n, c) + {{y}}",
    "$nn.Conv1d(8, 8, 3, padding=1)$({x}.transpose(1, 2)).transpose(1, 2) + {y}",
    f"torch.cat([{ROW}({{x}}), {{y}}], 1)[:, {{x}}.shape[1] :] + {{x}}",
    f"torch.cat([{ROW}({{x}}), {ROW}({{y}})], 2).view({{x}}.shape[0], -1, 2, 8).sum(2) + {{x}}",
    "$nn.LayerNorm(8)$({x}) + {y}.flip(1)",
    f"{ROW}({{x}}) / len({{y}}) + {{x}}",
    f"{{x}} + torch.stack([{ROW}({{x}}), {{y}}], 2).mean(2)",
    "{x} + $nn.Linear(8, 16)$({y}).chunk(2, -1)[0].reshape({x}.shape)",
    f"{{x}} * (1 + {ROW}({{y}}).flatten(1).view({{y}}.size(0), {{y}}.size(1), 8).tanh())",
]  # fmt: skip
FORMS: Sequence[tuple[str, Sequence[str], Sequence[str]]] = (
    ("torch.randn(2, 8, 6, 6)", IMAGES, ("$nn.Linear(8, 3)$({x}.mean((2, 3)))", f"{ONE}({{x}})")),
    ("torch.randn(2, 5, 8)", ROWS, ("$nn.Linear(8, 3)$({x})", "$nn.Linear(8, 3)$({x}.mean(1))")),
)


def write_free(form: int, steps: Sequence[tuple[int, ...]], seed: int) -> Recipe:
    """The network that some digits describe."""
    example, lines, ends = FORMS[form % len(FORMS)]
    w = Writer()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        w.space["x0"] = eval(example)
        w.values.append(Value("x0", w.space["x0"]))
        for step in steps:
            d = Digits(step)
            line, recent = d.pick(lines), w.values[::-1]
            w.emit(line.replace("{x}", recent[0].name).replace("{y}", d.near(recent).name))
        end = ends[seed % len(ends)].replace("{x}", w.values[-1].name)
        returns = w.emit(end)[0].name
    return Recipe((("x0", example),), tuple(w.setup), tuple(w.lines), returns, seed)


def free_recipes() -> st.SearchStrategy[Recipe]:
    """Models, as text."""
    digits = st.lists(st.integers(0, 119), min_size=DIGITS, max_size=DIGITS).map(tuple)
    steps = st.lists(digits, min_size=2, max_size=7)
    return st.builds(write_free, st.integers(0, 1), steps, st.integers(0, 99))
