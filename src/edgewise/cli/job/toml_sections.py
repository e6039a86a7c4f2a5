"""TOML tables as frozen dataclasses: what a key may hold, and what is said of a wrong value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import pydantic
from pydantic import AfterValidator, Field

from ...errors import ConfigError
from ...values.reading import HUGE
from ...values.redact import redact
from ...values.spelling import close

T = TypeVar("T")
LIBRARIES = ("torchvision", "timm")
HF, TEXT = "hf:", "text:"  # before the path of a checkpoint, and of texts
# Of a dataclass that stands for a file; its sections inherit them.
RULES = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# What a job takes for granted that is about text
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "data": {"batch": 8},
    "objective": {"loss": "perplexity", "metrics": ["perplexity", "next_token"]},
    "result": {"form": "module"},
}
ROWS = r"\s*(\d*)\s*:\s*(\d*)\s*"
WORDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a section",
    "finite_number": "a finite number",
    "literal_error": "one of {expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """A half-open range of rows, written "start:stop"; without a stop it goes to the end."""

    start: int
    stop: int | None

    @classmethod
    def parse(cls, text: object) -> Rows:
        """Read "start:stop", "start:" or ":stop"; ValueError if it is none or holds no row."""
        match = re.fullmatch(ROWS, text) if isinstance(text, str) else None
        if not match:
            raise ValueError(
                f'must be a range of rows such as "0:500" or "500:", got {shown(text)}'
            )
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


def anchored(text: str, folder: Path) -> str:
    """A source whose path is absolute: that of a file or the `root` of a torchvision data set."""
    for start in (HF, TEXT):
        if text.startswith(start):
            return f"{start}{_path(text.removeprefix(start), folder)}"
    if text.startswith(tuple(f"{library}:" for library in LIBRARIES)):
        return re.sub(r"(?<=[?&]root=)[^&]*", lambda root: str(_path(root[0], folder)), text)
    path, mark, function = text.rpartition(".py:")
    return f"{_path(path + '.py', folder)}:{function}" if mark else str(_path(text, folder))


def _path(text: str | Path, folder: Path) -> Path:
    return (folder / Path(text).expanduser()).resolve()


def _storage(text: str, info: Any) -> str:
    if "://" not in text:
        got = "" if "@" in text else f', got "{text}"'  # which may hold a password
        raise ValueError(f'must be a database URL such as "sqlite:///runs.db"{got}')
    if not text.startswith("sqlite"):
        return text
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", text)
    if not match or match[2] == ":memory:":
        raise ValueError(f'must name a file, so that evaluations are kept, got "{text}"')
    return f"{match[1]}{_path(match[2], info.context)}{match[3]}"


Count = Annotated[int, Field(ge=1, le=HUGE - 1)]
Whole = Annotated[int, Field(ge=0, le=HUGE - 1)]
Share = Annotated[float, Field(ge=0)]
Portion = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
File = Annotated[Path, AfterValidator(lambda path, info: _path(path, info.context))]
# FILE.py:FUNCTION, a path, hf:PATH, text:PATH, torchvision:NAME or timm:NAME
Source = Annotated[str, AfterValidator(lambda text, info: anchored(text, info.context))]
# a built-in name or FILE.py:FUNCTION
Function = Annotated[
    str, AfterValidator(lambda x, info: anchored(x, info.context) if ".py:" in x else x)
]
Storage = Annotated[str, AfterValidator(_storage)]  # a database URL
RowText = Annotated[str, Field(pattern=f"^{ROWS}$")]
RowRange = Annotated[Rows, pydantic.PlainValidator(Rows.parse, json_schema_input_type=RowText)]


def with_defaults(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a job on text, with what such a job takes for granted; others as they are."""
    found = {k: dict(v) if isinstance(v, Mapping) else v for k, v in tables.items()}
    model, data = found.get("model"), found.get("data")
    if not isinstance(data, dict) or not str(data.get("source", "")).startswith(TEXT):
        return found
    for name, keys in DEFAULTS.items():
        if isinstance(given := found.setdefault(name, {}), dict):
            found[name] = {**keys, **given}
    source = str(model.get("source", "")) if isinstance(model, dict) else ""
    if source.startswith(HF):
        found["data"].setdefault("tokenizer", source)
    return found


def read_tables(kind: type[T], tables: Mapping[str, Any], folder: Path, file: str = "") -> T:
    """The dataclass `kind`, a field a section, from the tables of a file.

    Args:
        kind: each field is a dataclass with the keys of a section.
        tables: as tomllib gives them.
        folder: what paths in them are relative to.
        file: its name, for messages.

    Raises:
        ConfigError: unknown, missing or wrong sections, keys or values; a line for each.
    """
    # Strict types, yet lists for tuples and texts for paths, are what pydantic does with JSON.
    try:
        text = json.dumps(tables, default=str)
        return pydantic.TypeAdapter(kind).validate_json(text, context=folder)
    except pydantic.ValidationError as error:
        places: dict[
            tuple[str, str | None], list[Any]
        ] = {}  # where several types do, each has an error
        for each in error.errors(include_url=False):
            places.setdefault(_place(*each["loc"]), []).append(each)
    except ValueError as error:  # of json.dumps: too many digits for Python
        raise ConfigError(f"{file}: a number in it cannot be read: {error}.") from error
    found = [_mistake(*place, errors, kind) for place, errors in places.items()]
    lines = [line if line.endswith((".", "?")) else f"{line}." for line in found]
    raise ConfigError(redact("\n".join(f"{file}: {line}" if file else line for line in lines)))


def _place(*where: int | str) -> tuple[str, str | None]:
    """Section and key, such as "input[0]"; inside a key, texts are names of types."""
    items = "".join(f"[{index}]" for index in where[2:] if isinstance(index, int))
    return "".join(map(str, where[:1])), f"{where[1]}{items}" if len(where) > 1 else None


def _mistake(section: str, key: str | None, errors: list[Any], kind: type[Any]) -> str:
    match errors[0]["type"]:
        case "unexpected_keyword_argument":
            known = [f.name for f in fields(kind if key is None else _section(kind, section))]
            start = f"unknown section [{section}]"
            if key is not None:
                start = f"[{section}] has no key {key!r}"
            return f"{start}.{close(key or section, known)} Known: {', '.join(known)}"
        case "missing" if key:
            return f"[{section}] needs the key {key}"
        case "missing":
            return f"section [{section}] is missing; it needs at least the key source"
        case "json_invalid":  # which json.dumps made: too many tables in each other
            return "it is nested too deeply"
        case "value_error":
            text = str(errors[0]["ctx"]["error"])
        case _:
            text = _wanted(errors)
    return " ".join(filter(None, (section and f"[{section}]", key, text)))


def _section(kind: type[Any], name: str) -> Any:
    """The dataclass of a section that may be left out."""
    hint = get_type_hints(kind)[name]
    return next(filter(is_dataclass, (hint, *get_args(hint))))


def _wanted(errors: list[Any]) -> str:
    """What a value must be, with the nearest name where there are names, and what it is."""
    words = {e["type"]: WORDS.get(e["type"], e["msg"]).format(**e.get("ctx", {})) for e in errors}
    if "float_type" in words:
        words.pop("int_type", None)  # which is a number, too
    given, nearest = errors[0]["input"], ""
    if names := words.get("literal_error"):
        words["literal_error"] = names = names.replace("'", "").replace(" or ", ", ")
        nearest = close(str(given), names.removeprefix("one of ").split(", "))
    return f"must be {' or '.join(words.values())}, got {shown(given)}{nearest and '.'}{nearest}"


def shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
