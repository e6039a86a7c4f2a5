"""Plain data of a file or a database as the values that they should be, every one checked."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
HUGE = 2**63
# What numbers of these names are at least, in whatever record they stand; others may be negative.
LEAST = {
    "schema": 1, "samples": 0, "units": 0, "params": 0, "macs": 0, "activation_bytes": 0,
    "weight_bytes": 0, "seconds": 0, "deviation": 0, "rounds": 1, "tries": 1, "limit": 0,
    "unpruned": 0, "run": 0, "median": 0, "weight": 0, "threads": 1, "batch": 1, "masks": 0,
    "better": 0, "failed": 0, "before": 0, "evaluations": 0, "seed": 0,
}  # fmt: skip
MAY_BE_NAN = ("metrics", "unpruned_metrics", "metric_intervals")  # a metric may be undefined


def read_fields(
    kind: type[T], data: Any, where: str, known: Iterable[str] | None = None, **made: Any
) -> T:
    """The dataclass `kind` from a mapping of its fields.

    Args:
        kind: the dataclass; its annotations say what is read.
        data: what JSON or a row gave.
        where: what it is, for messages.
        known: names that may be there and are not read; None = whatever else.
        made: fields that were read otherwise.

    Raises:
        ValueError: a field is missing, unknown, of a wrong type, or a number that cannot be;
            names it.
    """
    table = _mapping(data, where)
    hints = {k: v for k, v in get_type_hints(kind).items() if k not in made}
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if known is not None and (other := set(table) - names - set(known)):
        raise ValueError(f"{where or 'it'} has an unknown key {min(other)!r}")
    for field in fields(kind):  # type: ignore[arg-type]
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if field.name not in table and field.name not in made and not optional:
            raise ValueError(f"{where or 'it'} lacks the key {field.name!r}")
    start = f"{where}." if where else ""
    values = {
        name: read_value(hint, table[name], start + name)
        for name, hint in hints.items()
        if name in table and name in names
    }
    return kind(**values, **made)


def read_value(hint: Any, value: Any, where: str) -> Any:
    """A value as its annotation has it: lists as tuples, mappings as dataclasses.

    Raises:
        ValueError: it is something else; names `where`.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(arguments, value, where)
    if origin is Literal:
        words = " or ".join(map(repr, arguments))
        return _require(value, isinstance(value, str) and value in arguments, where, words)
    if origin in (tuple, list):
        return _sequence(arguments, value, where)
    if origin in (dict, Mapping):
        table = _mapping(value, where)
        return {k: read_value(arguments[1], v, f"{where}.{k}") for k, v in table.items()}
    if is_dataclass(hint):
        return read_fields(hint, value, where)  # type: ignore[arg-type]
    if hint in (int, float):
        return _number(hint, value, where)
    return _require(value, isinstance(value, hint), where, hint.__name__)


def _one_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in hints:
        return None
    wanted = [hint for hint in hints if hint is not NoneType]
    fitting = [hint for hint in wanted if hint is type(value)]
    return read_value((fitting or wanted)[0], value, where)


def _sequence(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _require(value, isinstance(value, list | tuple), where, "list")
    if len(hints) == 1 or hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    _require(value, len(value) == len(hints), where, f"list of {len(hints)}")
    return tuple(
        read_value(hint, item, f"{where}[{place}]")
        for place, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _number(kind: type, value: Any, where: str) -> Any:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    whole = isinstance(value, int) or kind is float
    _require(value, numeric and whole, where, "whole number" if kind is int else "number")
    parts = [part.partition("[")[0] for part in where.split(".")]
    if any(part in MAY_BE_NAN for part in parts):
        return value
    _require(value, math.isfinite(value) if isinstance(value, float) else abs(value) < HUGE, where,
             "finite number")  # fmt: skip
    least = LEAST.get(parts[-1], -math.inf)
    return _require(value, value >= least, where, f"number of at least {least}")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    keyed = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return _require(value, keyed, where, "table of names")  # type: ignore[no-any-return]


def _require(value: Any, fits: bool, where: str, wanted: Any) -> Any:
    if not fits:
        short = isinstance(value, str | float | bool | None)  # the rest may be of any size or depth
        shown = repr(value)[:60] if short else f"a {type(value).__name__}"
        raise ValueError(f"{where} must be a {wanted}, got {shown}")
    return value
