"""Amounts with units, as people write them and as they read them: "20M", "64MiB", "8ms", "70%"."""

import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ..errors import BudgetError, EdgewiseError
from .reading import HUGE

_COUNT = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "units": _COUNT,
    "params": _COUNT,
    "macs": _COUNT,
    "activation_bytes": _BYTES,
    "weight_bytes": _BYTES,
    "latency": _TIME,
}
_EXAMPLES = {"units": "46", "params": "20M", "macs": "0.3G", "latency": "8ms"}


def check_count(
    name: str, value: Any, least: int = 1, error: type[EdgewiseError] = EdgewiseError
) -> None:
    """Raise unless a number of things is a whole one, and large enough.

    Raises:
        EdgewiseError: it is not, of the kind `error`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise error(f"{name} must be a whole number of at least {least}, got {value!r}.")


def parse_bytes(size: int | str) -> int:
    """Bytes of a size such as 1000, "64MiB" or "2 GB".

    Raises:
        EdgewiseError: it is no size.
    """
    found = _split(str(size))
    known = {"": 1, **{unit.upper(): factor for unit, factor in _BYTES.items()}}
    if isinstance(size, bool) or found is None or found[1].upper() not in known:
        raise EdgewiseError(f'A size is bytes or text such as "512MiB" or "2GiB", got {size!r}.')
    return int(found[0] * known[found[1].upper()])


def as_limit(name: str, value: Any) -> float | str:
    """A budget's limit, checked: a number, or text with a unit.

    Text that is only a number becomes the number, whole ones an int.

    Args:
        name: of the quantity, such as "macs".
        value: a number, or text such as "0.7", "70%", "20M" or "64MB".

    Raises:
        BudgetError: it is no number, not positive, has an unknown unit, or needs one.
    """
    if isinstance(value, str):
        value = _of_text(name, value)
    if isinstance(value, str):
        return value
    other = isinstance(value, bool) or not isinstance(value, Real)
    if other or not 0 < value < HUGE:
        raise BudgetError(
            f"Budget limit {name} must be a positive number below 2^63, got {value!r}."
        )
    number = value if isinstance(value, int) else float(value)
    if name == "latency" and (isinstance(number, int) or number > 1):
        raise BudgetError(
            f'Budget limit latency={value:g} needs a unit, for example "{value:g}ms". Without one '
            "it is a fraction of the unpruned network's latency, a float up to 1.0."
        )
    return number


def _of_text(name: str, text: str) -> float | int | str:
    found = _split(text)
    example = _EXAMPLES.get(name, "64MB")
    if found is None:
        raise BudgetError(
            f"Budget limit {name}: write a NUMBER, or text with a unit, for example {name}=0.7 or "
            f'{name}="{example}"; got "{text}".'
        )
    number, unit = found
    if not unit:
        return int(text) if text.strip().isdigit() else number
    if not number > 0:
        raise BudgetError(f'Budget limit {name} must be positive, got "{text}".')
    if unit == "%" and number > 100:
        raise BudgetError(
            f'Budget limit {name}="{text}" is more than the whole. A percentage is what may remain '
            "of the unpruned network."
        )
    if unit != "%" and _factor(name, unit) is None:
        known = ", ".join((*_UNITS[name], "%"))
        raise BudgetError(
            f'Budget limit {name}="{text}" has an unknown unit "{unit}". Units of {name}: {known}.'
        )
    return text.strip()


def _split(text: str) -> tuple[float, str] | None:
    """Number and unit of a text such as "64 MiB", None if it is no such text."""
    match = re.fullmatch(r"\s*(\d*\.?\d+(?:[eE][+-]?\d+)?|\d+\.)\s*([A-Za-zµ]*|%)\s*", text)
    return (float(match[1]), match[2].replace("μ", "µ")) if match else None


def _factor(name: str, unit: str) -> float | None:
    known = {key.upper(): factor for key, factor in _UNITS[name].items()}
    return known.get(unit.upper())


def amount(name: str, limit: float | str, whole: float) -> float:
    """What a limit stands for, given what the unpruned network takes.

    Args:
        name: of the quantity.
        limit: as `as_limit` gives it.
        whole: of the unpruned network.

    Returns:
        Elements, MACs, bytes, or seconds.
    """
    if not isinstance(limit, str):
        return limit if isinstance(limit, int) or limit > 1 else limit * whole
    found = _split(limit)
    assert found is not None
    number, unit = found
    return number / 100 * whole if unit == "%" else number * (_factor(name, unit) or 1.0)


def limit_text(limit: float | str) -> str:
    """A limit as it is shown."""
    return limit if isinstance(limit, str) else f"{limit:g}"


def shown(name: str, value: float) -> str:
    """An amount of a quantity: times with a unit in three digits, everything else in full."""
    return duration(value) if name == "latency" else f"{value:,}"


def duration(seconds: float) -> str:
    """A time in three digits: 0.00812 → "8.12 ms"."""
    unit = next((unit for unit in ("s", "ms") if seconds >= _TIME[unit]), "us")
    return f"{seconds / _TIME[unit]:.3g} {unit}"
