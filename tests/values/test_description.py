"""What tells two losses, two layers or two hooks apart, and what does not."""

from __future__ import annotations

import enum
import importlib.util
import sys
import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from edgewise.values.description import content, is_installed, lines
from edgewise.values.identity import difference

Point = namedtuple("Point", "x y")
LIMIT = 3.0


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Slotted:
    __slots__ = ("amount",)

    def __init__(self, amount: float) -> None:
        self.amount = amount


@dataclass
class Record:
    values: list


class Scaled(list):
    pass


def clipped(out, target):
    return F.mse_loss(out.clamp(max=LIMIT), target)


def closure(amount, weights):
    def inner(value):
        return value * amount

    def loss(out, target):
        return inner(F.cross_entropy(out, target, weights))

    return loss


class Loss:
    factor = 2.0

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def __call__(self, out, target):
        return self.factor * self.amount * F.mse_loss(out, target)

    def method(self, out, target):
        return self(out, target)

    @property
    def half(self):
        return self.amount / 2


def cached(amount):
    @lru_cache
    def loss(out, target):
        return amount

    return loss


def itself(amount):
    found = [amount]
    found.append(found)
    return found


ARRAY = np.zeros(5000)
OTHER = ARRAY.copy()
OTHER[2500] = 1
MAKERS = {
    "number": lambda a: a,
    "closure": lambda a: closure(a, torch.ones(3)),
    "tensor": lambda a: closure(1.0, torch.full((3,), a)),
    "large array": lambda a: ARRAY if a == 1.0 else OTHER,
    "objects": lambda a: np.array([a, None], dtype=object),
    "partial": lambda a: partial(F.mse_loss, weight=a),
    "object": Loss,
    "method": lambda a: Loss(a).method,
    "slots": Slotted,
    "dataclass": lambda a: Record([a]),
    "named tuple": lambda a: Point(0, a),
    "list subclass": lambda a: Scaled([a]),
    "ordered": lambda a: OrderedDict(b=a),
    "set": lambda a: {a, "text"},
    "keys": lambda a: {a: 1, 2: 2},
    "enum": lambda a: Colour.RED if a == 1.0 else Colour.BLUE,
    "contains itself": itself,
    "cached function": cached,
    "built-in method": lambda a: [a].append,
    "module": lambda a: nn.SmoothL1Loss(beta=a),
    "module weights": lambda a: nn.BCELoss(torch.full((2,), a)),
    "long list": lambda a: [0] * 500 + [a],
    "dtype": lambda a: torch.float32 if a == 1.0 else torch.float64,
    "sparse": lambda a: torch.eye(3).mul(a).to_sparse(),
    "complex": lambda a: torch.tensor([a * 1j]).conj(),
    "scripted": lambda a: torch.jit.script(nn.Threshold(a, 0.0)),
    "default": lambda a: eval("lambda out, target, a=a: a", {"a": a}),
    "nested function's constant": lambda a: eval(f"lambda: (lambda: {a})"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_equal_values_have_equal_lines_and_others_do_not(name: str) -> None:
    make = MAKERS[name]
    assert lines("v", make(1.0)) == lines("v", make(1.0))
    assert lines("v", make(1.0)) != lines("v", make(0.5))


@settings(max_examples=60)
@given(st.recursive(st.integers() | st.floats() | st.text() | st.none() | st.booleans(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
       st.recursive(st.integers() | st.floats(allow_nan=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_plain_data_are_told_apart_as_python_does(one: object, other: object) -> None:
    alike = repr(_ordered(one)) == repr(_ordered(other))
    assert (lines("v", one) == lines("v", other)) == alike


def _ordered(value: object) -> object:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(part) for part in value] if isinstance(value, list) else value


def test_how_often_something_was_used_or_where_it_stands_does_not_matter() -> None:
    generator = torch.Generator()
    before = lines("v", generator)
    torch.rand(3, generator=generator)
    assert lines("v", generator) == before
    first = eval(compile("\n\nlambda a: a + 1", "here.py", "eval"))
    assert lines("v", first) == lines("v", eval(compile("lambda a: a + 1", "there.py", "eval")))
    assert lines("v", torch.device("meta")) == lines("v", torch.device("cpu"))


def test_what_cannot_be_kept_counts_by_its_class() -> None:
    assert lines("v", threading.Lock()) == lines("v", threading.Lock())
    assert lines("v", (i for i in [1])) != lines("v", threading.Lock())


def test_docstrings_and_names_of_own_functions_do_not_matter() -> None:
    def one(a):
        """Something."""
        return a + 1

    def other(a):
        """Something else."""
        return a + 1

    def third(a):
        """Something."""
        return a + 2

    assert lines("v", one) == lines("v", other) != lines("v", third)


def _module(folder: Path, name: str, text: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HELPERS = "import math\nSCALE = {scale}\nUNUSED = {unused}\ndef helper(x):\n    return x * SCALE\n"
USER = """
import helpers_of_a_test as own
from helpers_of_a_test import helper
def direct(out, target):
    return helper(out)
def through(out, target):
    return own.helper(out)
class Deep:
    def __call__(self, out, target):
        return self.inner(out)
    def inner(self, out):
        return [own.SCALE * part for part in out]
"""


@pytest.mark.parametrize("name", ["direct", "through", "Deep"])
def test_helpers_and_constants_of_own_files_count(tmp_path: Path, name: str) -> None:
    def made(scale: float, unused: float = 0.0) -> tuple[str, ...]:
        _module(tmp_path, "helpers_of_a_test", HELPERS.format(scale=scale, unused=unused))
        user = _module(tmp_path, "losses_of_a_test", USER)
        value = getattr(user, name)
        return lines("loss", value() if isinstance(value, type) else value)

    assert made(1.0) == made(1.0, unused=5.0)
    assert made(1.0) != made(2.0)


def test_globals_are_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lines("loss", clipped)
    monkeypatch.setitem(globals(), "LIMIT", 2.0)
    assert difference(before, lines("loss", clipped)) == "loss.LIMIT was float 3.0 and is float 2.0"


def test_installed_code_counts_by_name() -> None:
    assert lines("loss", F.cross_entropy) == ("loss: torch.cross_entropy",)
    assert is_installed(torch.__file__)
    assert not is_installed(__file__)


def test_deep_and_wide_structures_end() -> None:
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert lines("v", deep)
    assert len(lines("v", [object() for _ in range(5000)])) == 1


def test_content_is_that_of_the_values() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert content(x) == content(x.t().contiguous().t())
    assert content(x) != content(x.reshape(3, 2))
    assert content(x) != content(x.double())
    assert content(x.to("meta")) == "float32 2x3 meta"
    assert content(torch.empty(0)).startswith("float32 0 ")
