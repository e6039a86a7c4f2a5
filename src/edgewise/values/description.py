"""What a value is made of, as lines of text that are the same in every process.

Two losses, two settings of a layer or two hooks are told apart by what they would compute: by code,
bound values, state and the globals that the code reads, tensors and arrays by their content. Code
of installed packages counts by its name only; what it is given counts as everything else does.
"""

import builtins
import dis
import enum
import functools
import hashlib
import os
import random
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from .redact import names_secret

DEEPEST = 100  # values within values; what is within these is left out
DETAIL, WIDEST = 4, 64  # levels of values within values, and parts of one, that have lines
LONGEST = 100  # characters of plain data that a line shows; above, it shows their digest
_BARE = ("bool", "int", "float", "str", "NoneType", "tuple")  # of these, the value says the kind
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_UNSTABLE = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_HOMES = frozenset(
    Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib", "purelib", "platlib")
) | {Path(__file__).absolute().parents[1]}


def lines(name: str, value: Any) -> tuple[str, ...]:
    """What decides how a value behaves, a line each: "loss.amount: float 0.3".

    Args:
        name: of the value, with which every line begins.
        value: anything: functions, objects, modules, tensors, nested data.

    Examples:
        >>> from edgewise.values.description import lines
        >>> lines("loss", {"amount": 0.5})
        ('loss: dict of 1', 'loss.amount: float 0.5')
    """
    return tuple(_Walk().lines(name, value, DETAIL))


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of lines of text."""
    found = hashlib.sha256()
    for line in parts:
        found.update(line.encode("utf-8", "backslashreplace") + b"\n")
    return found.hexdigest()


def brief(value: Any) -> str:
    """A value in a few words that hold all of it, if only by a digest."""
    found = lines("", value)
    if len(found) == 1:
        kind, _, text = found[0].removeprefix(": ").partition(" ")
        return text if kind in _BARE else found[0][2:]
    return f"{getattr(value, '__name__', type(value).__name__)}#{digest(found)[:12]}"


def content(tensor: torch.Tensor) -> str:
    """Dtype, shape and the first half of a SHA-256 of a tensor's values, wherever they lie."""
    kind = str(tensor.dtype).removeprefix("torch.")
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    if tensor.is_meta:
        return f"{kind} {shape} meta"
    return f"{kind} {shape} {hashlib.sha256(raw(tensor)).hexdigest()[:16]}"


def raw(tensor: torch.Tensor) -> memoryview | bytes:
    """The bytes of a tensor's values in their order, whatever its layout and wherever they lie."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def is_installed(file: str) -> bool:
    """Whether a file of code is part of an installed package, and not the user's own."""
    return not file.startswith("<") and any(
        folder in _HOMES for folder in Path(os.path.abspath(file)).parents
    )


class _Walk:
    """One look at a value, which may contain itself."""

    def __init__(self) -> None:
        self.above: list[int] = []  # what contains the value that is looked at
        self.digests: dict[int, str] = {}
        self.kept: list[Any] = []  # alive while the walk lasts, so that no two have one id

    def lines(self, path: str, value: Any, depth: int) -> Iterator[str]:
        """A line for each part of a part, down to a depth; what is deeper, in a digest."""
        plain = self._plain(value)
        parts = [] if plain is not None else list(_parts(value))
        if plain is not None or depth == 0 or len(parts) > WIDEST:
            secret = isinstance(value, str | bytes) and names_secret(path)
            text = f"{type(value).__name__} {self.digest(value)[:16]}"
            yield f"{path}: {plain if plain is not None and not secret else text}"
            return
        self.above.append(id(value))
        for name, part in parts:
            if isinstance(part, _Text):
                yield f"{path}{name}: {part}"
            else:
                yield from self.lines(path + name, part, depth - 1)
        self.above.pop()

    def digest(self, value: Any) -> str:
        """SHA-256 of all that a value consists of."""
        plain = self._plain(value)
        if plain is not None:
            return hashlib.sha256(plain.encode("utf-8", "backslashreplace")).hexdigest()
        if id(value) not in self.digests:
            self.above.append(id(value))
            parts = (
                f"{name}: {part if isinstance(part, _Text) else self.digest(part)}"
                for name, part in _parts(value)
            )
            self.digests[id(value)] = digest(parts)
            self.above.pop()
            self.kept.append(value)
        return self.digests[id(value)]

    def _plain(self, value: Any) -> str | None:
        if id(value) in self.above:
            return f"what is {len(self.above) - self.above.index(id(value))} levels above"
        return "deeper" if len(self.above) > DEEPEST else _plain_text(value)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, by name; texts stand for themselves."""
    if type(value) in (list, tuple):
        yield "", _Text(f"{type(value).__name__} of {len(value)}")
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield "", _Text(f"set {digest(sorted(digest(lines('', part)) for part in value))}")
    elif type(value) is dict:
        yield from _items(value)
    elif isinstance(value, np.ndarray):
        yield "", value.tolist()
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, MethodType):
        yield from ((".__func__", value.__func__), (".__self__", value.__self__))
    elif isinstance(value, BuiltinFunctionType):
        yield "", _Text(f"{_package(value)}.{value.__qualname__}")
        if not isinstance(value.__self__, ModuleType | type | None):
            yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        yield from _function(value)
    elif isinstance(value, CodeType):
        yield from _code(value)
    elif isinstance(value, type):
        yield from _class(value)
    elif isinstance(value, torch.nn.Module):
        yield ".__class__", type(value)
        yield from _module_state(value)
    else:
        yield ".__class__", type(value)
        yield from _state(value)


class _Text(str):
    """A description, as opposed to a string that is part of what is described."""


def _plain_text(value: Any) -> _Text | None:
    """A value whose text says all, as text; None for all others."""
    if isinstance(value, enum.Enum):
        return _Text(f"{type(value).__qualname__}.{value.name}")
    if isinstance(value, torch.device | ModuleType | re.Pattern | torch.fx.Graph):
        return _Text(_named(value))
    if isinstance(value, torch.Tensor):
        return _Text(f"tensor {content(value)}")
    if isinstance(value, np.ndarray) and value.dtype != object:
        raw = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        return _Text(f"array {value.dtype} {'x'.join(map(str, value.shape))} {raw}")
    if isinstance(value, _UNSTABLE):
        return _Text(type(value).__qualname__)  # its state says how often it was asked
    if isinstance(value, torch.dtype | torch.Size | slice | range | np.generic | Path):
        return _Text(f"{type(value).__name__} {value!r}")
    if type(value) in (list, tuple) and value and all(type(part) in _PLAIN for part in value):
        return _Text(f"{type(value).__name__} {_short(repr(value))}")
    return _Text(f"{type(value).__name__} {_short(repr(value))}") if type(value) in _PLAIN else None


def _named(value: Any) -> str:
    if isinstance(value, torch.device):
        return "device"  # what is computed does not depend on where
    if isinstance(value, re.Pattern):
        return f"pattern {value.pattern!r} {value.flags}"
    if isinstance(value, torch.fx.Graph):
        return f"graph {digest([str(value)])[:16]}"
    return f"module {value.__name__}"


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:20]}… {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _items(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    named = all(isinstance(key, str) for key in value)
    yield "", _Text(f"dict of {len(value)}")
    if named:
        yield from ((f".{key}", value[key]) for key in sorted(value))
    else:
        yield from ((f"[{i}]", pair) for i, pair in enumerate(value.items()))


def _function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Code or name, defaults, closure, and the globals that the code reads."""
    code = function.__code__
    own = not is_installed(code.co_filename)
    yield "", code if own else _Text(f"{_package(function)}.{function.__qualname__}")
    if own and (function.__defaults__ or function.__kwdefaults__):
        yield " defaults", [function.__defaults__, function.__kwdefaults__]
    yield from ((f".{n}", part) for n, part in sorted(function.__dict__.items()))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # a name that is not bound yet
            yield f".{name}", _Text("empty")
    if own:
        yield from _globals(code, function.__globals__)


def _package(value: Any) -> str:
    """The package of installed code: modules within it may move from version to version."""
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


def _code(code: CodeType) -> Iterator[tuple[str, Any]]:
    """Instructions, names and constants; neither where it stands nor what its docstring says."""
    documented = bool(code.co_consts) and isinstance(code.co_consts[0], str) and code.co_flags & 2
    constants = (None, *code.co_consts[1:]) if documented else code.co_consts
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    names = (code.co_names, arguments, code.co_freevars, code.co_flags)
    raw = hashlib.sha256(code.co_code + code.co_exceptiontable + repr(names).encode())
    yield "", _Text(f"code {raw.hexdigest()[:16]}")
    inner = [part for part in constants if isinstance(part, CodeType)]
    yield " constants", [part for part in constants if not isinstance(part, CodeType)]
    yield from ((f"/{part.co_name}", part) for part in inner)


def _globals(code: CodeType, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that code reads, of modules of the user's own those of their names it uses."""
    for name in sorted(_names(code, ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"))):
        value = known.get(name, sys.modules.get(name, builtins.__dict__.get(name)))
        if name not in known and name in builtins.__dict__:
            continue
        if isinstance(value, ModuleType) and not _is_installed_module(value):
            used = _names(code, ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"))
            for attribute in sorted(used & vars(value).keys()):
                yield f".{name}.{attribute}", vars(value)[attribute]
        else:
            yield f".{name}", value


def _names(code: CodeType, operations: Sequence[str]) -> set[str]:
    found = {i.argval for i in dis.get_instructions(code) if i.opname in operations}
    for part in code.co_consts:
        if isinstance(part, CodeType):
            found |= _names(part, operations)
    return found


def _is_installed_module(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return is_installed(file) if file else module.__name__ != "__main__"


def _class(kind: type) -> Iterator[tuple[str, Any]]:
    """The name of an installed class, and what the user's own classes consist of."""
    for base in kind.__mro__[:-1]:
        functions = {n: f for n, f in vars(base).items() if _code_of(f) is not None}
        files = [_code_of(f).co_filename for f in functions.values()]
        own = [file for file in files if not file.startswith("<string>")]
        module = sys.modules.get(base.__module__)
        if is_installed(own[0]) if own else module is None or _is_installed_module(module):
            yield "", _Text(f"{_package(base)}.{base.__qualname__}")
            return
        for name, value in sorted(vars(base).items()):
            if name in functions or not name.startswith("__"):
                yield f".{name}", value
    yield "", _Text("object")


def _code_of(value: Any) -> Any:
    """The code of a function, also within a property, a static or a class method."""
    inner = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
    return getattr(inner, "__code__", None)


_MODULE = vars(torch.nn.Module())  # what every module has


def _module_state(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Settings, weights, submodules and hooks of a module."""
    yield from ((f".{n}", getattr(module, n)) for n in settings_of(module))
    for group in ("_parameters", "_buffers", "_modules"):
        yield from ((f".{name}", value) for name, value in vars(module)[group].items())
    for name, hooks in hooks_of(module).items():
        yield f".{name}", hooks


def settings_of(module: torch.nn.Module) -> list[str]:
    """The names of a module's own attributes: neither weights, submodules, hooks, nor its mode."""
    return sorted(name for name in vars(module) if name not in _MODULE)


def hooks_of(module: torch.nn.Module) -> dict[str, list[Any]]:
    """The hooks that run when a module is called, in their order, by kind."""
    kinds = [name for name in _MODULE if name.startswith("_forward") and name.endswith("hooks")]
    return {name: list(vars(module)[name].values()) for name in kinds if vars(module)[name]}


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """What pickle would keep of an object; of one that it cannot keep, the class alone."""
    if isinstance(value, property | staticmethod | classmethod | functools.cached_property):
        parts = ("fget", "fset", "__func__", "func")
        yield from ((f".{n}", getattr(value, n)) for n in parts if hasattr(value, n))
        return
    if hasattr(value, "__wrapped__"):
        yield ".__wrapped__", value.__wrapped__
    if isinstance(value, torch.jit.ScriptFunction):
        yield "", _Text(value.code)
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - a lock, a file, a generator: objects may raise anything
        yield "", _Text(str(getattr(value, "__name__", "without state")))
        return
    if isinstance(reduced, str):
        yield "", _Text(reduced)
        return
    _, arguments, state, listed, mapped = (*reduced, None, None, None, None)[:5]
    yield " of", [a for a in arguments if a is not type(value)]
    if isinstance(state, dict):
        yield from ((f".{name}", state[name]) for name in sorted(state, key=str))
    elif state is not None:
        yield " state", state
    if listed is not None:
        yield " items", list(listed)
    if mapped is not None:
        yield "", dict(mapped)
