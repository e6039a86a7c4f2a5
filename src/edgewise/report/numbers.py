"""Numbers as people read them."""

import math
from collections.abc import Callable

from ..values.quantities import duration

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
Show = Callable[[float], str]  # a number as text


def count(value: float) -> str:
    """A count in three digits: 4718592 → "4.72 M"; whole below 10 000."""
    if abs(value) < 10_000:
        return f"{value:,.0f}".replace(",", THIN)
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:#.3g}".removesuffix(".") + THIN + prefix
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in three digits: 1310720 → "1.31 MB"."""
    text = count(value)
    return f"{text}B" if text[-1].isalpha() else f"{text}{THIN}B"


def share(fraction: float) -> str:
    """A fraction in per cent: 0.296 → "29.6 %"."""
    return f"{100 * fraction:.1f}{THIN}%"


def change(before: float, after: float) -> str:
    """The relative change with its sign: "−29.6 %"."""
    if not before:
        return DASH
    relative = after / before - 1
    if abs(relative) < 0.0005:
        return f"0{THIN}%"
    return f"{MINUS if relative < 0 else '+'}{share(abs(relative))}"


def plain(value: float | None) -> str:
    """A loss or another real number in about four digits."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e5:
        text = f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    else:
        text = f"{value:.{3 if abs(value) < 10 else 2 if abs(value) < 100 else 0}f}"
    return text.replace("-", MINUS)


def metric(name: str, value: float | None) -> str:
    """A metric: in per cent where its name and value say that it is a rate."""
    rates = ("acc", "top", "auc", "auroc", "precision", "recall", "f1", "iou", "dice")
    if value is not None and 0 <= value <= 1 and name.lower().startswith(rates):
        return share(value)
    return plain(value)


def shape(value: tuple[int, ...] | None, batched: tuple[int, ...] = ()) -> str:
    """A tensor's shape for one example, the batch dimension left out: "16×32×32"."""
    if value is None:
        return "several tensors"
    sizes = [n for axis, n in enumerate(value) if axis not in batched]
    return "\N{MULTIPLICATION SIGN}".join(map(str, sizes)) or "one number"


def signed(value: float) -> str:
    """A real number with its sign: "+0.120"."""
    return plain(value) if value < 0 else f"+{plain(value)}"


def period(seconds: float) -> str:
    """How long work took or takes: "45 s", "12 min", "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 pair", "3 pairs"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def quantity(name: str, value: float) -> str:
    """What is left of a limited quantity: "1.42 M MACs"."""
    if name == "latency":
        return duration(value)
    words = {"units": "units", "params": "parameters", "macs": "MACs"}
    return f"{count(value)} {words[name]}" if name in words else size(value)
