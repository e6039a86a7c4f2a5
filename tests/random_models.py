"""Random DAG models, written down as plain Python: what test_fuzz.py runs the laws on.

A `Plan` is a list of steps, each the name of an operator and some digits that settle its inputs
and parameters. `write` turns any plan into a valid `Recipe`: a step that finds no input it can
take is left out, so that hypothesis may delete steps and lower digits as it likes. A recipe is the
source of an `nn.Module`; printing one gives a file that runs by itself.

In the code of operators `$nn.Linear(4, 3)$` is a new module, `$p 4, 1$` a new parameter of that
shape and `$b 4, 1$` a new buffer; what stands before a semicolon are lines of their own.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, BASE, DIGITS, MOST = 2, 120, 8, 16

Shape = tuple[int, ...]
INPUTS: Sequence[Shape] = ((4, 4, 4), (6, 8), (8,), (3, 4, 4), (4, 6), (4, 6, 6), (6, 2, 3))
TOKENS = len(INPUTS)  # the digit of an input of token numbers


@dataclass(frozen=True)
class Plan:
    """What settles a model: digits for inputs and outputs, and the steps between."""

    inputs: tuple[int, ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[int, ...]
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """A model as text: its inputs (name and code), its lines, and what it returns."""

    inputs: tuple[tuple[str, str], ...]
    setup: tuple[str, ...]
    lines: tuple[str, ...]
    returns: str
    seed: int

    def __repr__(self) -> str:
        first, *others = (name for name, _ in self.inputs)
        lines = [
            "class Model(nn.Module):",
            "    def __init__(self):",
            *(f"        {line}" for line in ("super().__init__()", *self.setup)),
            "",
            f"    def forward(self, {', '.join([first, *(f'{name}=None' for name in others)])}):",
            *(f"        {line}" for line in (*self.lines, f"return {self.returns}")),
            "",
            f"torch.manual_seed({self.seed})",
            f"args = ({', '.join(code for _, code in self.inputs)},)",
            "model = Model().eval()",
        ]
        return "\n".join(lines)

    def build(self, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The model and its example inputs, batch-norm statistics made interesting."""
        space: dict[str, Any] = {"torch": torch, "nn": nn, "F": F}
        with torch.random.fork_rng():
            exec(repr(self), space)
            for module in space["model"].modules():
                if getattr(module, "running_mean", None) is not None:
                    nn.init.normal_(module.running_mean, 0.0, 0.3)
                    nn.init.uniform_(module.running_var, 0.5, 2.0)
        args = (a.to(dtype) if a.is_floating_point() else a for a in space["args"])
        return space["model"].to(dtype), tuple(args)


class NoInput(Exception):
    """No value of the model fits the operator."""


class Digits:
    """Choices read off a row of digits; the first option once they are used up."""

    def __init__(self, digits: Sequence[int]) -> None:
        self.rest = list(digits)

    def pick(self, options: Sequence[Any]) -> Any:
        if not options:
            raise NoInput
        return options[(self.rest.pop(0) if self.rest else 0) % len(options)]

    def near(self, options: Sequence[Any]) -> Any:
        """One of the options, the first ones more often."""
        digit = self.rest.pop(0) if self.rest else 0
        return options[int((digit / BASE) ** 3 * len(options))]


@dataclass(frozen=True)
class Value:
    """A tensor that a line of the model gave, on the example."""

    name: str
    tensor: Tensor

    @property
    def shape(self) -> Shape:
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        return self.tensor.ndim

    def __str__(self) -> str:
        return self.name


class Writer:
    """Writes a model line by line and runs each line, so that the next knows the shapes."""

    def __init__(self) -> None:
        self.holder = nn.Module().eval()
        self.space: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "self": self.holder}
        self.setup: list[str] = []
        self.lines: list[str] = []
        self.values: list[Value] = []
        self.unused: list[str] = []
        self.tokens: list[str] = []
        self.calls: list[tuple[str, str, Shape]] = []  # module, its code, the shape it took
        self.count = 0

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def prepare(self, line: str) -> None:
        """One line of __init__."""
        self.setup.append(line)
        exec(line, self.space)
        self.holder.eval()

    def run(self, line: str, written: str = "") -> None:
        """One line of forward; what it reads is no longer unused, except what it writes into."""
        exec(line, self.space)
        self._note(line, written)

    def _note(self, line: str, written: str = "") -> None:
        self.lines.append(line)
        read = set(re.findall(r"\b[vx]\d+\b", line)) - {written}
        self.unused = [name for name in self.unused if name not in read]
        if written and written not in self.unused:
            self.unused.append(written)

    def emit(self, code: str) -> list[Value]:
        """New values: what an expression gives, one tensor or several."""
        layer = re.fullmatch(r"\$(nn\..+)\$\(([vx]\d+)\)", code)
        *before, last = re.sub(r"\$(.+?)\$", lambda found: self._made(found[1]), code).split("; ")
        if layer and not re.search("Embedding|inplace", code):
            shape = tuple(self.space[layer[2]].shape)
            self.calls.append((last.partition("(")[0], layer[1], shape))
        for line in before:
            self.run(line)
        given = eval(last, self.space)
        several = given if isinstance(given, list | tuple) else [given]
        names = [self.name("v") for _ in several]
        self._note(f"{', '.join(names)} = {last}")
        self.space.update(zip(names, several, strict=True))
        new = [Value(name, tensor) for name, tensor in zip(names, several, strict=True)]
        self.values += new
        self.unused += names
        return new

    def _made(self, code: str) -> str:
        """A new module, parameter or buffer."""
        kind = "m" if code.startswith("nn.") else code[0]
        name = self.name(kind)
        shape = code[2:].strip(" ,")
        tensor = f"torch.randn({shape}) * 0.5" if shape else "torch.tensor(0.7)"
        line = {
            "m": f"self.{name} = {code}",
            "p": f"self.{name} = nn.Parameter({tensor})",
            "b": f"self.register_buffer('{name}', {tensor})",
        }
        self.prepare(line[kind])
        return f"self.{name}"

    def some(self, d: Digits, fits: Callable[[Value], bool]) -> Value:
        """A value that fits and is not large, recent ones more often."""
        found = [v for v in reversed(self.values) if v.tensor.numel() < 1000 and fits(v)]
        if not found:
            raise NoInput
        return d.near(found)

    def other(self, d: Digits, x: Value, fits: Callable[[Value, Value], bool]) -> Value:
        """A second value, one that nothing reads yet if there is one; x itself at the end."""
        found = [v for v in reversed(self.values) if fits(x, v)]
        found.sort(key=lambda v: (v.name == x.name, v.name not in self.unused))
        if not found:
            raise NoInput
        return d.near(found)

    def alone(self, v: Value) -> bool:
        """Whether v may be written into: no other value, and no parameter, looks at its memory."""
        places = [o.tensor.untyped_storage().data_ptr() for o in self.values]
        return places.count(v.tensor.untyped_storage().data_ptr()) == 1 and v.tensor.is_contiguous()


OPERATORS: dict[str, tuple[int, Callable[[Writer, Digits], Any]]] = {}


def operator(weight: int) -> Callable[[Callable[[Writer, Digits], Any]], None]:
    """Offer an operator, `weight` times as often as one of weight 1."""

    def add(write: Callable[[Writer, Digits], Any]) -> None:
        OPERATORS[write.__name__] = (weight, write)

    return add


def forms(
    weight: int,
    fits: Callable[[Value], bool] = lambda v: True,
    second: Callable[[Value, Value], bool] | None = None,
) -> Callable[[Callable[..., list[str]]], None]:
    """Offer an operator that is one of several expressions of a value x, or of x and a second."""

    def add(write: Callable[..., list[str]]) -> None:
        def emit(w: Writer, d: Digits) -> None:
            x = w.some(d, fits)
            values = [x] if second is None else [x, w.other(d, x, second)]
            w.emit(d.pick(write(d, *values)))

        OPERATORS[write.__name__] = (weight, emit)

    return add


def options(text: str, **names: Any) -> list[str]:
    return [item.strip() for item in re.split(r"[|\n]", text.format(**names).strip())]


def some_axis(d: Digits, x: Value) -> int:
    """Any axis but that of the batch."""
    return d.pick(range(1, x.ndim))


def broadcast(x: Value, y: Value) -> bool:
    return x.ndim == y.ndim and all(
        i == j or 1 in (i, j) for i, j in zip(x.shape, y.shape, strict=True)
    )


# -- element by element ------------------------------------------------------------------------

POINTWISE = """
torch.relu({x}) | F.gelu({x}) | {x}.sigmoid() | torch.tanh({x}) | F.silu({x}) | F.relu({x})
F.leaky_relu({x}, 0.1) | F.elu({x}) | F.softplus({x}) | F.hardswish({x}) | F.relu6({x})
{x}.clamp(-1, 1) | torch.clamp({x}, min=-0.5) | {x}.abs() | -{x} | {x} * {x} | {x} ** 2
torch.exp({x}.tanh()) | torch.log1p({x}.abs()) | ({x}.abs() + 1).sqrt() | {x}.square()
({x}.square() + 1).rsqrt() | torch.erf({x}) | torch.sin({x}) | {x}.cos() | {x}.clone()
{x}.contiguous() | F.softsign({x}) | F.logsigmoid({x}) | {x} * ({x} > 0) | {x}.pow(2)
{x} * 0.5 | 1.5 - {x} | {x} + 0.1 | {x} / 2 | 2 / (1 + {x}.square()) | 0.5 * {x} | {x}.mul(0.3)
torch.sub({x}, 0.2, alpha=2) | {x}.add(0.2) | {x}.masked_fill({x} > 1, 0.5) | {x}.neg()
$nn.ReLU()$({x}) | $nn.GELU()$({x}) | $nn.SiLU()$({x}) | $nn.Tanh()$({x}) | $nn.Identity()$({x})
$nn.Softplus()$({x}) | $nn.Dropout(0.1)$({x}) | F.dropout({x}, 0.1, self.training)
$nn.LeakyReLU(0.1)$({x}) | $nn.Hardsigmoid()$({x}) | $nn.ELU()$({x}) | $nn.PReLU()$({x})
$nn.PReLU({c})$({x}) | F.prelu({x}, $p {c}$) | {x} / {x}.shape[1] | {x} * {x}.size(-1) ** -0.5
"""


@forms(5)
def pointwise(d: Digits, x: Value) -> list[str]:
    return options(POINTWISE, x=x, c=x.shape[1])


WRITES = """
{x} += {y} | {x} -= {y} | {x} *= {y}.sigmoid() | {x}.add_({y}) | {x}.relu_() | {x} /= 2
F.relu({x}, inplace=True) | torch.relu_({x}) | {x}.clamp_(-1, 1) | {x}.mul_(0.5) | {x} *= {y}
{x}.sub_({y}, alpha=0.5) | {x}.sigmoid_() | F.leaky_relu_({x}) | {x} += 0.5 | {x}.mul_({y})
"""


@operator(2)
def in_place(w: Writer, d: Digits) -> None:
    x = w.some(d, w.alone)
    y = w.other(d, x, lambda x, y: broadcast(x, y) and x.tensor.numel() >= y.tensor.numel())
    if torch.broadcast_shapes(x.shape, y.shape) == x.shape:
        w.run(d.pick(options(WRITES, x=x, y=y)), x.name)


@operator(1)
def in_place_module(w: Writer, d: Digits) -> None:
    x = w.some(d, w.alone)
    w.emit(f"$nn.{d.pick(['ReLU', 'SiLU', 'Hardswish', 'ReLU6'])}(inplace=True)$({x})")


# -- several tensors ---------------------------------------------------------------------------

PAIRS = """
{x} + {y} | {y} + {x} | {x} * {y}.sigmoid() | {x} * {y} | {x} - {y} * 0.5 | {y} - 2 * {x}
{x} / (1 + {y}.sigmoid()) | torch.add({x}, {y}, alpha=0.5) | torch.sub({y}, {x}, alpha=2)
torch.mul({y}, {x}) | torch.maximum({x}, {y}) | torch.where({y} > 0, {x}, {y}) | {x}.add({y})
sum([{x}, {y}]) | {x}.sub({y}, alpha=0.3) | {y}.tanh() / (1 + {x}.square()) | torch.min({x}, {y})
{x}.mul({y}).tanh() | torch.add({y}, other={x}) | torch.div({x}, {y}.exp() + 1) | {x} + {y} * 0.5
torch.lerp({x}, {y}, 0.3) | torch.fmax({x}, {y}) | torch.addcmul({x}, {y}, {x}) | {x} * 2 - {y}
torch.clamp({x}, min={y}) | torch.logaddexp({x}, {y}) | {y} * {x}.tanh() | {x} - {y}.sigmoid()
"""


@forms(8, second=broadcast)
def pair(d: Digits, x: Value, y: Value) -> list[str]:
    return options(PAIRS, x=x, y=y)


@forms(3, lambda v: v.ndim > 2, lambda x, y: y.ndim == 2 and y.shape[1] in x.shape[1:])
def pair_unsqueezed(d: Digits, x: Value, y: Value) -> list[str]:
    """A vector for each example, along one axis of a larger tensor."""
    axis = d.pick([a for a in range(1, x.ndim) if x.shape[a] == y.shape[1]])
    index = ", ".join(":" if a in (0, axis) else "None" for a in range(x.ndim))
    return options(PAIRS, x=x, y=f"{y}[{index}]")


CONSTANTS = """
{x} * {p} | {x} + {p} | {p} * {x} | {p} - {x} | {x} - {p} | {x} / (1 + {p}.abs())
torch.add({x}, {p}, alpha=2) | {x}.mul({p}) | {x} * {p}.sigmoid() | torch.maximum({x}, {p})
torch.where({x} > 0, {x}, {q} * {x}) | torch.clamp({x}, max={p}) | {p} / (1 + {x}.square())
{x} * (1 + {p}) + {q} | {x} * F.softplus({p}) | torch.lerp({x}, {p}, 0.5)
{x} + torch.zeros_like({x}) | {x} * {x}.new_full(({x}.shape[-1],), 0.3) - {p}
torch.addcmul({x}, {x}, {p}) | {x} * $nn.Sigmoid()$({p}) | {x} * torch.arange({x}.shape[-1]) * 0.2
{x} + $nn.LayerNorm({n})$($p {n}$) | {x} + $nn.Embedding({n}, {n})$(torch.arange({x}.shape[-1]))[0]
"""


@forms(4)
def constant(d: Digits, x: Value) -> list[str]:
    """Parameters and buffers that are used outside of modules."""
    axis = some_axis(d, x)
    line = tuple(n if a == axis else 1 for a, n in enumerate(x.shape))
    shapes = [line[axis:], x.shape[1:], (x.shape[-1],), (), (1,), line, (1, *x.shape[1:])]
    size = ", ".join(map(str, d.pick(shapes)))
    kind = d.pick(["p", "p", "b"])
    return options(CONSTANTS, x=x, p=f"${kind} {size}$", q=f"${kind} {size}$", n=x.shape[-1])


@operator(6)
def cat(w: Writer, d: Digits) -> None:
    x = w.some(d, lambda v: True)
    axis = some_axis(d, x)

    def alike(x: Value, y: Value) -> bool:
        return x.ndim == y.ndim and all(
            a == axis or x.shape[a] == y.shape[a] for a in range(x.ndim)
        )

    parts = [str(x), *(str(w.other(d, x, alike)) for _ in range(d.pick([1, 2])))]
    if d.pick([False, False, False, True]):  # a class token
        size = ", ".join(map(str, (1, *x.shape[1:])))
        token = f"${d.pick('pb')} {size}$"
        parts.insert(0, f"{token}.expand({x}.shape[0], {', '.join(['-1'] * (x.ndim - 1))})")
    form = d.pick(["torch.cat([{}], {})", "torch.cat(({}), dim={})", "torch.concat([{}], {})"])
    w.emit(form.format(", ".join(parts), d.pick([axis, axis - x.ndim])))


@forms(2, lambda v: v.ndim < 5, lambda x, y: x.shape == y.shape)
def stack(d: Digits, x: Value, y: Value) -> list[str]:
    axis = d.pick(range(x.ndim + 1))
    whole = f"torch.stack([{x}, {y}], {d.pick(['', 'dim='])}{axis})"
    after = [f".sum({axis})", f".mean({axis})", f".amax({axis})"]
    if axis:
        after += ["", f".unbind({axis})[1]", f"[{', '.join([':'] * axis)}, 0]"]
    if axis > 1:
        after.append(f".flatten({axis - 1}, {axis})")
    return [whole + end for end in after]


@forms(3, lambda v: max(v.shape[1:]) > 1)
def split(d: Digits, x: Value) -> list[str]:
    axis = d.pick([a for a in range(1, x.ndim) if x.shape[a] > 1])
    n = x.shape[axis]
    found = [f"{x}.chunk(2, {axis})", f"torch.split({x}, [1, {n - 1}], dim={axis})",
             f"{x}.split({(n + 1) // 2}, {axis - x.ndim})", f"torch.chunk({x}, 3, {axis})",
             f"torch.tensor_split({x}, 2, {axis})"]  # fmt: skip
    if x.ndim > 2 and n < 5:
        found += [f"{x}.unbind({axis})", f"torch.unbind({x}, dim={axis})"]
    return [code + end for code in found for end in ("", "[0]", "[-1]")]


# -- layers that mix channels ------------------------------------------------------------------


def _weight_norm(code: str) -> str:
    return f"$nn.utils.parametrizations.weight_norm({code})$"


@forms(6, lambda v: v.ndim in (3, 4))
def conv(d: Digits, x: Value) -> list[str]:
    inner, dims = x.shape[1], x.ndim - 2
    outer = d.pick([4, inner, 2, 6, 2 * inner])
    groups = d.pick([1, 1, 1, math.gcd(inner, outer), 2 if inner % 2 == outer % 2 == 0 else 1])
    size, stride, bias = d.pick([3, 1]), d.pick([1, 1, 1, 2]), d.pick([True, False])
    code = f"nn.Conv{dims}d({inner}, {outer}, {size}, {stride}, {size // 2}"
    code += f", groups={groups}" * (groups > 1) + ", bias=False" * (not bias)
    weight = f"$p {', '.join(map(str, (outer, inner // groups, *[size] * dims)))}$"
    b = f"$p {outer}$" if bias else "None"
    call = f"F.conv{dims}d({x}, {weight}, "
    return [f"${code})$({x})", f"${code})$({x})", f"${code}, padding_mode='circular')$({x})",
            f"{_weight_norm(code + ')')}({x})", f"{call}{b}, {stride}, {size // 2}, 1, {groups})",
            f"{call}bias={b}, stride={stride}, padding={size // 2}, groups={groups})"]  # fmt: skip


@forms(1, lambda v: v.ndim in (3, 4) and max(v.shape[2:]) < 5)
def conv_transpose(d: Digits, x: Value) -> list[str]:
    inner, dims = x.shape[1], x.ndim - 2
    outer = d.pick([4, inner, 2])
    groups = d.pick([1, 1, math.gcd(inner, outer)])
    weight = f"$p {', '.join(map(str, (inner, outer // groups, *[2] * dims)))}$"
    code = f"$nn.ConvTranspose{dims}d({inner}, {outer}, %s, groups={groups})$({x})"
    return [code % "2, 2", code % "3, 1, 1", code % "3, 2, 1, 1",
            f"F.conv_transpose{dims}d({x}, {weight}, stride=2, groups={groups})"]  # fmt: skip


@forms(5)
def linear(d: Digits, x: Value) -> list[str]:
    inner, outer = x.shape[-1], d.pick([4, x.shape[-1], 3, 6, 8])
    weight, b = f"$p {outer}, {inner}$", f"$p {outer}$"
    found = [f"$nn.Linear({inner}, {outer})$({x})", f"$nn.Linear({inner}, {outer})$({x})",
             f"$nn.Linear({inner}, {outer}, bias=False)$({x})", f"F.linear({x}, {weight}, {b})",
             f"F.linear({x}, {weight})", f"{x} @ $p {inner}, {outer}$",
             f"torch.matmul({x}, $b {inner}, {outer}$)", f"{x}.matmul($p {inner}, {outer}$)",
             f"{_weight_norm(f'nn.Linear({inner}, {outer})')}({x})"]  # fmt: skip
    return found + [f"$p {outer}, {x.shape[-2]}$ @ {x}"] * (x.ndim > 2)


@operator(3)
def again(w: Writer, d: Digits) -> None:
    """A module called again, or another one that is tied to it."""
    fits = [(m, code, v) for m, code, shape in reversed(w.calls)
            for v in reversed(w.values) if v.shape == shape]  # fmt: skip
    if not fits:
        raise NoInput
    name, code, x = d.near(fits)
    if code.startswith(("nn.Linear", "nn.Conv")) and d.pick([False, False, True]):
        other = w._made(code)
        w.prepare(f"{other}.weight = {name}.weight")
        name = other
    w.emit(f"{name}({x})")


@operator(1)
def tokens(w: Writer, d: Digits) -> None:
    """Token numbers, and places, embedded."""
    if not w.tokens:
        raise NoInput
    ids, n = d.pick(w.tokens), d.pick([4, 6])
    w.emit(d.pick([f"$nn.Embedding(7, {n})$({ids})", f"F.embedding({ids}, $p 7, {n}$)",
                   f"$nn.Embedding(7, {n})$({ids}) * ({ids} > 1)[..., None]",
                   f"$nn.Embedding(7, {n})$({ids}) + {ids}[:, :, None]"]))  # fmt: skip


@forms(1, lambda v: v.ndim == 3 and v.shape[1] > 1 and v.shape[2] > 1)
def recurrent(d: Digits, x: Value) -> list[str]:
    n = x.shape[-1]
    return [f"$nn.{kind}({n}, {hidden}, batch_first=True)$({x})[0]"
            for kind in ("GRU", "LSTM", "RNN") for hidden in (n, 3)]  # fmt: skip


# -- norms -------------------------------------------------------------------------------------


@forms(4, lambda v: v.ndim < 5 and v.tensor.numel() > BATCH * v.shape[1])
def channel_norm(d: Digits, x: Value) -> list[str]:
    """Norms whose channels are on axis 1."""
    c, n = x.shape[1], max(x.ndim - 2, 1)
    groups = d.pick([g for g in range(1, c + 1) if c % g == 0])
    found = [f"$nn.BatchNorm{n}d({c})$({x})", f"$nn.GroupNorm({groups}, {c})$({x})",
             f"F.group_norm({x}, {groups}, $p {c}$, $p {c}$)",
             f"$nn.BatchNorm{n}d({c}, affine=False)$({x})",
             f"$nn.BatchNorm{n}d({c}, track_running_stats=False)$({x})",
             f"$nn.GroupNorm({groups}, {c}, affine=False)$({x})",
             f"F.batch_norm({x}, $b {c}$, $b {c}$.abs() + 0.5, $p {c}$)"]  # fmt: skip
    if x.ndim > 2:
        instance = f"nn.InstanceNorm{n}d({c}"
        found += [f"${instance}, affine=True)$({x})", f"${instance})$({x})"]
        found.append(f"F.instance_norm({x}, weight=$p {c}$)")
    return found


@forms(4, lambda v: v.shape[-1] > 1)
def last_norm(d: Digits, x: Value) -> list[str]:
    """Norms over the last axes."""
    shape = x.shape[d.pick(range(x.ndim - 1, 0, -1)) :]
    given, size = shape if len(shape) > 1 else shape[0], ", ".join(map(str, shape))
    return [f"$nn.LayerNorm({given})$({x})", f"$nn.RMSNorm({given})$({x})",
            f"$nn.LayerNorm({given}, elementwise_affine=False)$({x})",
            f"$nn.RMSNorm({given}, elementwise_affine=False)$({x})",
            f"F.layer_norm({x}, {shape}, $p {size}$, $p {size}$)",
            f"F.rms_norm({x}, {shape}, $p {size}$)",
            f"F.layer_norm({x}, ({x}.shape[-1],), $p {x.shape[-1]}$)"]  # fmt: skip


# -- one tensor, other shapes ------------------------------------------------------------------


@forms(3, lambda v: v.ndim in (3, 4))
def pool(d: Digits, x: Value) -> list[str]:
    n = x.ndim - 2
    found = [f"F.adaptive_avg_pool{n}d({x}, 1)", f"$nn.MaxPool{n}d(3, 1, 1)$({x})",
             f"$nn.AvgPool{n}d(3, 1, 1)$({x})", f"$nn.AdaptiveAvgPool{n}d(2)$({x})",
             f"F.adaptive_max_pool{n}d({x}, 1)"]  # fmt: skip
    small = [f"F.max_pool{n}d({x}, 2)", f"F.avg_pool{n}d({x}, 2)"]
    return found + small * (min(x.shape[2:]) > 1)


@forms(4, lambda v: v.ndim > 2)
def reduction(d: Digits, x: Value) -> list[str]:
    axis = some_axis(d, x)
    wide = [axis, axis - x.ndim] + [(axis, axis + 1)] * (axis + 1 < x.ndim)
    found = [f"{x}.{name}({a}, keepdim=True)" for name in ("mean", "sum", "amax") for a in wide]
    found += [f"torch.{name}({x}, {axis})" for name in ("mean", "sum", "amin", "logsumexp")]
    found += [f"{x}.mean(dim=[{axis}])", f"{x}.var({axis}, correction=0)"]
    if x.ndim > 3 and axis + 1 < x.ndim:
        found += [f"{x}.mean(({axis}, {axis + 1}))", f"torch.amax({x}, dim=({axis}, -1))"]
    return found


ALONG = """
{x}.softmax({a}) | torch.softmax({x}, dim={a}) | F.log_softmax({x}, {a})
$nn.Softmax(dim={a})$({x}) | F.softmax({x}, dim={a}) | {x} / (1 + {x}.abs().sum({a}, keepdim=True))
F.normalize({x}, dim={a}) | {x}.cumsum({a}) | {x}.max({a})[0] | torch.roll({x}, 1, {a})
{x}.roll(-1, dims={a}) | {x}.repeat_interleave(2, {a}) | {x}.topk(1, {a})[0]
torch.flip({x}, ({a},)) | {x}.flip({a}) | {x}.logsumexp({a}, keepdim=True) | {x}.sort({a})[0]
{x}.tanh().cumprod({a}) | {x}.movedim({a}, 1) | torch.movedim({x}, 1, {a}) | torch.tril({x})
F.local_response_norm({x}, 2) | {x}.narrow({a}, 0, 1) | {x} - {x}.mean({a}, keepdim=True)
"""


@forms(3, lambda v: v.ndim > 2)
def along(d: Digits, x: Value) -> list[str]:
    axis = some_axis(d, x)
    a = d.pick([axis, axis - x.ndim])
    even = [f"F.glu({x}, {a})", f"$nn.GLU({a})$({x})", f"{x}.diff(dim={a})",
            f"{x}.unfold({a}, 2, 2).mean(-1)"]  # fmt: skip
    return options(ALONG, x=x, a=a) + even * (x.shape[axis] % 2 == 0)


@forms(4)
def view(d: Digits, x: Value) -> list[str]:
    """The same elements under another shape."""
    batch = d.pick([f"{x}.shape[0]", f"{x}.size(0)", "-1", BATCH])
    a, total = some_axis(d, x), math.prod(x.shape[1:])
    n, before, found = x.shape[a], (batch, *x.shape[1:a]), []
    sizes = [(batch, k, total // k) for k in (2, 3, 4, 6) if total % k == 0]
    if x.ndim < 4:
        found += [f"{x}.unsqueeze({a})", f"{x}.unsqueeze(-1)"]
    if n == 1 and x.ndim > 2:
        found += [f"{x}.squeeze({a})", f"torch.squeeze({x}, {a - x.ndim})"]
    if n % 2 == 0 and x.ndim < 5:
        found += [f"{x}.unflatten({a}, (2, {n // 2}))"]
        sizes = [(*before, 2, n // 2, *x.shape[a + 1 :]), *sizes]
    if a + 1 < x.ndim:
        found += [f"{x}.flatten({a}, {a + 1})", f"{x}.flatten(1)", f"torch.flatten({x}, 1)"]
        sizes = [(*before, n * x.shape[a + 1], *x.shape[a + 2 :]), (batch, total), *sizes]
    for size in sizes:
        whole = ", ".join(map(str, size))
        found += [f"{x}.reshape({whole})", f"torch.reshape({x}, ({whole}))"]
        found += [f"{x}.view({whole})"] * x.tensor.is_contiguous()
    return found


@forms(4, lambda v: v.ndim > 2)
def permutation(d: Digits, x: Value) -> list[str]:
    order = random.Random(d.pick(range(BASE))).sample(range(1, x.ndim), x.ndim - 1)
    a, b, whole = order[0], order[1], ", ".join(map(str, order))
    found = [f"{x}.transpose({a}, {b})", f"{x}.permute(0, {whole})", f"{x}.mT",
             f"torch.permute({x}, (0, {whole}))", f"{x}.swapaxes({a - x.ndim}, {b})"]  # fmt: skip
    return [code + end for code in found for end in ("", ".contiguous()")]


@forms(3)
def index(d: Digits, x: Value) -> list[str]:
    axis = some_axis(d, x)
    n, before = x.shape[axis], ":, " * axis
    items = ["1:", ":-1", "::2", "-1:", f":{(n + 1) // 2}"] if n > 1 else [":"]
    items += ["0", "-1"] * (x.ndim > 2) + ["None"] * (x.ndim < 4)
    item, last = d.pick(items), "None" if x.ndim < 4 else ":1"
    found = [f"{x}[{before}{item}]", f"{x}[{before}{item}, ...]", f"{x}[..., {last}]"]
    places = f"torch.tensor([{n - 1}, 0, {n // 2}])"
    return [*found, f"{x}.index_select({axis}, {places})", f"{x}[{before}{places}]"]


@forms(2, lambda v: v.ndim == 4)
def spatial(d: Digits, x: Value) -> list[str]:
    """Padding, resampling, and channels that move to places."""
    channels, height, width = x.shape[1:]
    found = [f"F.pad({x}, (1, 1))", f"F.pad({x}, (0, 0, 0, 0, 1, 1))", f"$nn.ZeroPad2d(1)$({x})",
             f"F.pad({x}, [0, 1, 1, 0], value=0.5)", f"F.interpolate({x}, size=(4, 4))",
             f"F.pad({x}, (1, 1, 1, 1), mode='replicate')",
             f"torch.roll({x}, (1, 1), (2, 3))"]  # fmt: skip
    if max(height, width) < 5:
        twice = f"F.interpolate({x}, scale_factor=2"
        found += [f"{twice})", f"{twice}, mode='bilinear', align_corners=False)"]
    found += [f"F.pixel_shuffle({x}, 2)"] * (channels % 4 == 0)
    found += [f"$nn.ChannelShuffle(2)$({x})"] * (channels % 2 == 0)
    return found + [f"F.pixel_unshuffle({x}, 2)"] * (height % 2 == width % 2 == 0)


@forms(2, lambda v: v.ndim == 4, lambda x, y: y.ndim == 4 and x.shape != y.shape)
def like_another(d: Digits, x: Value, y: Value) -> list[str]:
    """Sizes that are read of another tensor, which may be absent."""
    return [f"F.interpolate({x}, size={y}.shape[2:])",
            f"F.interpolate({x}, size={y}.shape[-2:], mode='bilinear')",
            f"F.adaptive_avg_pool2d({x}, ({y}.size(2), {y}.size(3)))",
            f"{x} * ({y}.shape[1] ** -0.5)"]  # fmt: skip


@forms(1, second=lambda x, y: x.tensor.numel() == y.tensor.numel())
def shape_of_another(d: Digits, x: Value, y: Value) -> list[str]:
    return [f"{x}.reshape({y}.shape)", f"{x}.reshape_as({y})", f"{x}.reshape({y}.size())"]


@forms(1, lambda v: 1 in v.shape[1:], broadcast)
def expansion(d: Digits, x: Value, y: Value) -> list[str]:
    axis = x.shape.index(1, 1)
    sizes = ", ".join("3" if a == axis else "-1" for a in range(x.ndim))
    times = ", ".join("2" if a == axis else "1" for a in range(x.ndim))
    found = [f"{x}.expand({sizes})", f"{x}.repeat({times})", f"{x}.tile({times})"]
    larger = torch.broadcast_shapes(x.shape, y.shape) == y.shape
    return found + [f"{x}.expand_as({y})", f"{x}.expand({y}.shape)"] * larger


# -- attention ---------------------------------------------------------------------------------


@forms(3, lambda v: v.ndim == 3, lambda x, y: y.ndim == 3 and x.shape[-1] == y.shape[-1])
def attention(d: Digits, x: Value, y: Value) -> list[str]:
    n = x.shape[-1]
    heads = 2 if n % 2 == 0 else 1
    each = f"$nn.Linear({n}, {n})$"
    module = f"$nn.MultiheadAttention({n}, {heads}"
    mask = f"$b {x.shape[1]}, {y.shape[1]}$"
    call = f"F.scaled_dot_product_attention({each}({x}), {each}({y}), {each}({y})"
    split = f"b, n, _ = {x}.shape; q, k, v = $nn.Linear({n}, {3 * n})$({x})"
    split += f".reshape(b, n, 3, {heads}, {n // heads}).permute(2, 0, 3, 1, 4)"
    mixed = f"((q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v).transpose(1, 2).reshape(b, n, {n})"
    return [f"{split}; {each}({mixed})", f"{split}.unbind(0); {each}({mixed})", f"{call})",
            f"{call}, attn_mask={mask})", f"{call}, scale=0.5)", f"{call}, is_causal=True)",
            f"{module}, batch_first=True)$({x}, {x}, {x}, need_weights=False)[0].contiguous()",
            f"{module}, batch_first=True)$({x}, {y}, {y})[0].contiguous()",
            f"t = {x}.transpose(0, 1); {module})$(t, t, t)[0].transpose(0, 1)"]  # fmt: skip


@forms(
    2,
    lambda v: v.ndim in (3, 4) and min(v.shape) > 1,
    lambda x, y: x.shape[:-2] == y.shape[:-2] and x.shape[-1] == y.shape[-1],
)
def product(d: Digits, x: Value, y: Value) -> list[str]:
    """Matrix products of two tensors."""
    found = [f"({x} @ {y}.transpose(-2, -1)) * 0.3", f"torch.matmul({x}, {y}.mT).tanh()",
             f"({x} @ {y}.mT).softmax(-1) @ {y}",
             f"F.cosine_similarity({x}, {y}.mean(-2, True), -1)"]  # fmt: skip
    if x.ndim == 3 and y.shape[1] > 1:
        found += [f"torch.bmm({x}, {y}.transpose(1, 2)).softmax(-1)",
                  f"torch.einsum('bij,bkj->bik', {x}, {y}) * 0.3",
                  f"torch.einsum('bij,kj->bik', {x}, $p 4, {x.shape[-1]}$)",
                  f"torch.baddbmm($p 1, 1, 1$, {x}, {y}.mT)"]  # fmt: skip
    return found


@forms(1, second=lambda x, y: x.shape[:-1] == y.shape[:-1])
def bilinear(d: Digits, x: Value, y: Value) -> list[str]:
    return [f"$nn.Bilinear({x.shape[-1]}, {y.shape[-1]}, 3)$({x}, {y})"]


# -- blocks ------------------------------------------------------------------------------------


@operator(18)
def fork(w: Writer, d: Digits) -> None:
    """Several layers, concatenated: what makes tensors of which only some channels remain."""
    x = w.some(d, lambda v: True)
    places = x.ndim in (3, 4) and d.pick([True, True, False])
    head = f"Conv{x.ndim - 2}d({x.shape[1]}" if places else f"Linear({x.shape[-1]}"
    tail = ", 1" * places
    outers = [d.pick([2, 1, 3, 4]) for _ in range(d.pick([2, 3]))]
    parts = [w.emit(f"$nn.{head}, {outer}{tail})$({x})")[0].name for outer in outers]
    w.emit(f"torch.cat([{', '.join(parts)}], {1 if places else -1})")


@forms(8)
def residual(d: Digits, x: Value) -> list[str]:
    n, c = x.shape[-1], x.shape[1]
    bodies = [f"nn.Linear({n}, {n})",
              f"nn.LayerNorm({n}), nn.Linear({n}, 6), nn.GELU(), nn.Linear(6, {n})"]  # fmt: skip
    if x.ndim == 4:
        depthwise = f"nn.Conv2d({c}, {c}, 3, padding=1, groups={c})"
        one = f"nn.Conv2d({c}, {c}, 1)"
        bodies = [f"nn.Conv2d({c}, {c}, 3, padding=1), nn.BatchNorm2d({c}), nn.ReLU()", one,
                  f"{depthwise}, nn.GroupNorm(1, {c}), nn.ReLU(True)",
                  f"nn.BatchNorm2d({c}), nn.ReLU(inplace=True), {one}"]  # fmt: skip
    body = f"$nn.Sequential({d.pick(bodies)})$({x})"
    return [f"{x} + {body}", f"{body} + {x}", f"F.relu({x} + {body})", f"{x} - {body}"]


@forms(2, lambda v: v.ndim == 4)
def gate(d: Digits, x: Value) -> list[str]:
    """Squeeze and excitation."""
    c = x.shape[1]
    pooled = d.pick([f"{x}.mean((2, 3), keepdim=True)", f"F.adaptive_avg_pool2d({x}, 1)"])
    scale = f"$nn.Conv2d(2, {c}, 1)$(F.relu($nn.Conv2d({c}, 2, 1)$({pooled}))).sigmoid()"
    return [f"{x} * {scale}", f"{scale} * {x}", f"{x} + {x} * {scale}"]


@forms(2, lambda v: v.ndim == 4 and v.shape[1] % 2 == 0)
def channel_shuffle(d: Digits, x: Value) -> list[str]:
    head = f"b, c, h, w = {x}.{d.pick(['shape', 'size()'])}; {x}"
    begin = [".reshape(b, 2, c // 2, h, w)", ".unflatten(1, (2, c // 2))"]
    end = [".reshape(b, c, h, w)", ".contiguous().view(b, -1, h, w)", ".flatten(1, 2)"]
    return [f"{head}{i}.transpose(1, 2){j}" for i in begin for j in end]


# -- whole models ------------------------------------------------------------------------------


def _finish(w: Writer, d: Digits) -> str:
    """The expression that the model returns, made of the values that nothing reads yet."""
    names = [v.name for v in w.values if v.name in w.unused]
    form = d.pick(["merge", "merge", "tuple", "dict", "last", "nested", "list"])
    if form == "last":
        return names[-1]  # the others are dead code
    if form == "tuple":
        return f"({', '.join(names[-3:])},)"
    if form == "list":
        return f"[{', '.join(names[-2:])}]"
    if form == "dict":
        return "{" + ", ".join(f"'{name}': {name}" for name in names[-2:]) + "}"
    if form == "nested":
        return f"{{'first': {names[-1]}, 'rest': ({', '.join(names[:2])}, {names[-1]})}}"
    parts = []
    for name in names[-6:]:
        ndim = w.space[name].ndim
        pooled = ndim == 4 and d.pick([True, False])
        flat = f"{name}.mean((2, 3))" if pooled else f"{name}.flatten(1)" if ndim > 2 else name
        width = eval(flat, w.space).shape[1]
        parts.append(w.emit(f"$nn.Linear({width}, 3)$({flat})")[0].name)
    return " + ".join(parts)


def write(plan: Plan) -> Recipe:
    """The model that a plan describes."""
    w, inputs = Writer(), []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(plan.seed)
        for number, digit in enumerate(plan.inputs):
            inputs.append(_input(w, number, digit % (len(INPUTS) + 1)))
        for name, digits in plan.steps:
            try:
                OPERATORS[name][1](w, Digits(digits))
            except NoInput:
                continue
        returns = _finish(w, Digits(plan.outputs))
    return Recipe(tuple(inputs), tuple(w.setup), tuple(w.lines), returns, plan.seed)


def _input(w: Writer, number: int, digit: int) -> tuple[str, str]:
    name = f"x{number}"
    if digit == TOKENS:
        code = f"torch.randint(0, 7, ({BATCH}, 4))"
        w.space[name] = eval(code)
        w.tokens.append(name)
        w.emit(f"$nn.Embedding(7, 6)$({name})")
    else:
        code = f"torch.randn({', '.join(map(str, (BATCH, *INPUTS[digit])))})"
        w.space[name] = eval(code)
        w.values.append(Value(name, w.space[name]))
        w.unused.append(name)
    return name, code


NAMES = [name for name, (weight, _) in OPERATORS.items() for _ in range(weight)]


def random_plan(seed: int) -> Plan:
    """A plan without hypothesis."""
    rng = random.Random(seed)

    def digits(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(BASE) for _ in range(count))

    steps = tuple((rng.choice(NAMES), digits(DIGITS)) for _ in range(rng.randint(4, MOST)))
    return Plan(digits(rng.choice([1, 1, 2])), steps, digits(DIGITS), seed)


def recipes() -> st.SearchStrategy[Recipe]:
    """Models, as text."""

    def digits(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.lists(st.integers(0, BASE - 1), min_size=least, max_size=most).map(tuple)

    step = st.tuples(st.sampled_from(NAMES), digits(DIGITS, DIGITS))
    steps = st.lists(step, min_size=8, max_size=MOST).map(tuple)
    seed = st.integers(0, 99)
    return st.builds(Plan, digits(1, 2), steps, digits(DIGITS, DIGITS), seed).map(write)
