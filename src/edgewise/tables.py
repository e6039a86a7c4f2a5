"""TOML tables as frozen dataclasses: what a key may hold, and what is said of a wrong value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from .errors import EdgewiseError
from .reading import HUGE
from .spelling import nearest

Source = NewType("Source", str)  # FILE.py:FUNCTION, a path, torchvision:NAME or timm:NAME
Function = NewType("Function", str)  # a built-in name or FILE.py:FUNCTION
Storage = NewType("Storage", str)  # a database URL
Count = Annotated[int, 1]  # a whole number, at least 1
Whole = Annotated[int, 0]
Share = Annotated[float, 0]
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True, slots=True)
class Rows:
    """A half-open range of rows, written "start:stop"; without a stop it goes to the end."""

    start: int
    stop: int | None

    @classmethod
    def parse(cls, text: str) -> Rows:
        """Read "start:stop", "start:" or ":stop"; ValueError if it is none or holds no row."""
        match = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", text)
        if not match:
            raise ValueError(f'must be a range of rows such as "0:500" or "500:", got "{text}"')
        rows = cls(int(match[1] or 0), int(match[2]) if match[2] else None)
        if rows.stop is not None and rows.stop <= rows.start:
            raise ValueError(f'must hold at least one row (start < stop), got "{text}"')
        return rows

    def overlaps(self, other: Rows) -> bool:
        """Whether some row is in both ranges."""
        ends_after = other.stop is None or self.start < other.stop
        return ends_after and (self.stop is None or other.start < self.stop)

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.stop is None else self.stop}"


def read_section(kind: type[Any], name: str, table: Mapping[str, Any], folder: Path) -> Any:
    """The dataclass `kind` filled from a table.

    Raises:
        ValueError: an unknown or missing key, or a wrong value; names section and key.
    """
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise ValueError(f"[{name}] has no key {key!r}.{nearest(key, hints)}")
        try:
            values[key] = _cast(hints[key], value, folder)
        except ValueError as error:
            raise ValueError(f"[{name}] {key} {error}") from error
    for needed in fields(kind):
        required = needed.default is MISSING and needed.default_factory is MISSING
        if required and needed.name not in values:
            raise ValueError(f"[{name}] needs the key {needed.name}")
    try:
        return kind(**values)
    except (ValueError, EdgewiseError) as error:
        raise ValueError(f"[{name}] {str(error).rstrip('.')}") from error


def _cast(hint: Any, value: Any, folder: Path) -> Any:
    """A TOML value as what a key holds; ValueError says what it must be."""
    hint, origin, arguments = plain(hint), get_origin(plain(hint)), get_args(plain(hint))
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, got {shown(value)}")
        return tuple(_cast(arguments[0], item, folder) for item in value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"must be one of {', '.join(arguments)}; got {shown(value)}")
        return value
    if origin is Annotated:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if numeric and not arguments[1] <= value < HUGE:
            raise ValueError(f"must be at least {arguments[1]}, got {value}")
        return _cast(arguments[0], value, folder)
    types, words = _EXPECTED.get(hint, ((str,), "text"))
    if not isinstance(value, types) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"must be {words}, got {shown(value)}")
    if isinstance(value, int | float) and not -HUGE < value < HUGE:
        raise ValueError(f"must be {words} of at most 2^63, got {value}")
    return _TEXTS[hint](value, folder) if hint in _TEXTS else value


def plain(hint: Any) -> Any:
    """`X` of `X | None`: TOML has no null."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return Union[tuple(kind for kind in get_args(hint) if kind is not NoneType)]  # noqa: UP007


def shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def anchored(text: str, folder: Path) -> Source:
    """A source whose path is absolute: that of a file or the `root` of a torchvision data set."""
    if text.startswith(tuple(f"{library}:" for library in LIBRARIES)):
        return Source(
            re.sub(r"(?<=[?&]root=)[^&]*", lambda root: str(_path(root[0], folder)), text)
        )
    path, mark, function = text.rpartition(".py:")
    if mark:
        return Source(f"{_path(path + '.py', folder)}:{function}")
    return Source(str(_path(text, folder)))


def _path(text: str, folder: Path) -> Path:
    return (folder / Path(text).expanduser()).resolve()


def _storage(text: str, folder: Path) -> Storage:
    if "://" not in text:
        got = "" if "@" in text else f', got "{text}"'  # which may hold a password
        raise ValueError(f'must be a database URL such as "sqlite:///runs.db"{got}')
    if not text.startswith("sqlite"):
        return Storage(text)
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", text)
    if not match or match[2] == ":memory:":
        raise ValueError(f'must name a file, so that evaluations are kept, got "{text}"')
    return Storage(f"{match[1]}{_path(match[2], folder)}{match[3]}")


_EXPECTED: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    float | str: ((int, float, str), 'a number or text such as "20M"'),
    Mapping[str, Any]: ((dict,), "a table"),
}
_TEXTS: dict[Any, Callable[[Any, Path], Any]] = {
    Path: _path,
    Source: anchored,
    Function: lambda text, folder: anchored(text, folder) if ".py:" in text else Function(text),
    Storage: _storage,
    Rows: lambda text, folder: Rows.parse(text),
}
