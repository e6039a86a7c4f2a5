"""A model around the parts of it that are traced: run again with others in their places."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import TraceError
from ..values.nested import copies_of


@dataclass(frozen=True)
class Part:
    """A submodule that is traced while the whole model is judged.

    Args:
        path: in the whole model.
        names: its arguments, as the traced network has them.
        own: the same as its forward has them.
        placed: how many of them the model gives by place.
    """

    path: str
    names: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    placed: int = 0

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by the names that the traced network has for them."""
        names = dict(zip(self.own, self.names, strict=True))
        given = dict(zip(self.names, args, strict=False))
        return given | {names.get(name, name): value for name, value in kwargs.items()}


@dataclass(frozen=True, eq=False)
class Whole:
    """The model that parts were taken from.

    Args:
        parts: in the order of the traced network's arguments and outputs.
        rest: a private copy of the model in which modules without weights stand for the parts.
        given: what the traced network was given on the example, by name.
        example: arguments of the model, by place and by name; None where only parts are known.
        autocast: (device, dtype) of the mixed precision in which the model calls the parts.
        written: whether the model writes into what a part gives.
        tied: names of parameters of the parts that the model around them reads, too.
        model: the user's own; None in another process.
    """

    parts: tuple[Part, ...]
    rest: nn.Module
    given: Mapping[str, Any] = field(default_factory=dict)
    example: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    autocast: tuple[tuple[str, torch.dtype], ...] = ()
    written: bool = False
    tied: frozenset[str] = frozenset()
    model: nn.Module | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(part.path for part in self.parts)

    @property
    def name(self) -> str:
        """That of the model's class."""
        return type(self.rest).__name__

    def named(self, number: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The arguments of a call of a part by the names that the traced network has for them."""
        return self.parts[number].named(args, kwargs)

    def holding(self, modules: Sequence[nn.Module]) -> nn.Module:
        """A copy of the model with these modules in place of its parts."""
        stands = (self.rest.get_submodule(path) for path in self.paths)
        return copy.deepcopy(
            self.rest, {id(stand): m for stand, m in zip(stands, modules, strict=True)}
        )

    def calling(self, call: Callable[[int, tuple[Any, ...], dict[str, Any]], Any]) -> nn.Module:
        """A copy of the model that calls a function of (part, args, kwargs) for its parts."""

        def forward(number: int) -> Callable[..., Any]:
            return lambda *args, **kwargs: call(number, args, kwargs)

        stands = [self.rest.get_submodule(path) for path in self.paths]
        return self.holding([standing_in(s, forward(i)) for i, s in enumerate(stands)])

    def around(self, network: nn.Module) -> nn.Module:
        """A copy of the model that calls a network of all its parts in their place."""
        stands = [self.rest.get_submodule(path) for path in self.paths]
        shares = [_Share(network, self, number) for number in range(len(stands))]
        return self.holding(
            [standing_in(s, share) for s, share in zip(stands, shares, strict=True)]
        )

    @contextmanager
    def as_called(self) -> Iterator[None]:
        """The mixed precision in which the model calls its parts."""
        with ExitStack() as stack:
            for device, dtype in self.autocast:
                stack.enter_context(torch.autocast(device, dtype))
            yield


class _Share(nn.Module):
    """What a network of several parts gives for one of them; the others get their example."""

    def __init__(self, network: nn.Module, whole: Whole, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number
        self.parts, self.given, self.written = whole.parts, whole.given, whole.written

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Of the part's arguments."""
        named = self.parts[self.number].named(args, kwargs)
        alone = len(self.parts) == 1
        value = self.network(**(named if alone else {**self.given, **named}))
        value = value if alone else value[self.number]
        return copies_of(value) if self.written else value


def around(model: nn.Module, parts: Sequence[Part]) -> Whole:
    """The model around parts of it.

    Raises:
        TraceError: the model cannot be copied.
    """
    modules = (model.get_submodule(part.path) for part in parts)
    stands = {id(module): standing_in(module, _stands_in) for module in modules}
    return Whole(tuple(parts), copied(model, stands), model=model)


def copied(model: nn.Module, stands: dict[int, Any] | None = None) -> nn.Module:
    """A copy of the user's model, which stays as it is.

    Args:
        model: to be copied.
        stands: what is to stand in the copy for some of its parts, by their id.

    Raises:
        TraceError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model, stands)
    except Exception as error:
        raise TraceError(f"The model cannot be copied (copy.deepcopy): {error}") from error


def _stands_in(*_: Any, **__: Any) -> Any:
    raise AssertionError("a part's place is taken before the model around it runs")


def holder(model: nn.Module, parts: Sequence[Part]) -> nn.Module:
    """A module with nothing but parts of a model, at their paths, which calls each once."""
    calls = []
    for part in parts:
        by_name = zip(part.own[part.placed :], part.names[part.placed :], strict=True)
        given = [*part.names[: part.placed], *(f"{own}={name}" for own, name in by_name)]
        calls.append(f"self.get_submodule({part.path!r})({', '.join(given)})")
    names = [name for part in parts for name in part.names]
    space: dict[str, Any] = {}
    exec(f"def forward({', '.join(['self', *names])}): return {', '.join(calls)}", space)  # noqa: S102
    modules = [model.get_submodule(part.path) for part in parts]
    kind = type("And".join(type(module).__name__ for module in modules), (nn.Module,), space)
    own: nn.Module = kind()
    own.training = modules[0].training
    for part, module in zip(parts, modules, strict=True):
        *above, name = part.path.split(".")
        place = own
        for depth, step in enumerate(above, start=1):
            place._modules.setdefault(step, nn.Module())
            place = place.get_submodule(step)
            place.training = model.get_submodule(".".join(above[:depth])).training
        place._modules[name] = module
    return own


def standing_in(part: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    """A module of the class and with the settings of another, without weights, that does else.

    Args:
        part: the other.
        forward: what it does when it is called; a module becomes its child.
    """
    stand = type(part).__new__(type(part))
    own = {name: value for name, value in vars(part).items() if name != "_compiled_call_impl"}
    stand.__dict__.update({**own, **vars(nn.Module()), "training": part.training})
    stand.__dict__["forward"] = forward
    if isinstance(forward, nn.Module):
        stand._modules["network"] = forward
        stand.__dict__["forward"] = forward.__call__
    return stand
