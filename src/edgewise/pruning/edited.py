"""Edits done to a model: modules resized, gone, passed through, or kept from some of their inputs.

Like edits.py, this file needs nothing but torch: copied beside a checkpoint, the two build the
pruned model there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .edits import Edit, Edits, places, told


class Gone(nn.Module):
    """Stands where a module was: it gives a constant that leaves no trace, or one of its inputs.

    Numbers, names and settings that other code reads from the module are still there.
    """

    def __init__(self, module: nn.Module, edit: Edit) -> None:
        super().__init__()
        own = {*vars(self), "forward"}
        self.__dict__.update({k: v for k, v in vars(module).items() if k not in own})
        self.train(module.training)
        if isinstance(module, Fed) and module.reads:
            self.__class__ = _fed(type(self))
        self.was, self.becomes, self.gives = type(module).__name__, edit.becomes, edit.gives

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See `Edit.gives`."""
        return _made(self.gives, args, kwargs)

    def extra_repr(self) -> str:
        """What it was, and what it gives."""
        return f"{self.was}, {self.becomes}: gives {told(self.gives)}"


def _made(gives: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not isinstance(gives, Mapping):
        return gives
    if "input" in gives:
        return _input(gives["input"], args, kwargs)
    if "fill" in gives:
        like = _input(gives["like"], args, kwargs)
        sizes = [_size(like, axis) for axis in gives["shape"]]
        return like.new_full(sizes, gives["fill"])
    ((kind, members),) = gives.items()
    if kind == "dict":
        return {name: _made(member, args, kwargs) for name, member in members.items()}
    return {"tuple": tuple, "list": list}[kind](_made(member, args, kwargs) for member in members)


def _input(place: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    number, name = place
    if name in kwargs:
        return kwargs[name]
    return args[number]


def _size(like: torch.Tensor, axis: Any) -> Any:
    if isinstance(axis, int):
        return axis
    number, divisor, up = axis
    size = like.size(number)
    if divisor == 1:
        return size
    return (size + divisor - 1) // divisor if up else size // divisor


def edited(model: nn.Module, edits: Edits) -> nn.Module:
    """The model with its modules changed, in place.

    Args:
        model: of the architecture that the edits were made for.
        edits: by the path of the module.

    Raises:
        ValueError: the model is of another architecture; names the module. It is then unchanged.
    """
    names = _names(model)
    replaced: list[Callable[[], None]] = []
    changes: list[Callable[[], None]] = []
    cells: dict[tuple[str, str], Withheld] = {}
    for path, edit in edits.items():
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise ValueError(f"the model has no module {path!r}") from error
        if edit.becomes == "resized":
            changes += [_cut(names, module, path, *entry) for entry in edit.tensors.items()]
            changes += [_set(module, path, *entry) for entry in edit.attributes.items()]
            changes += [_withhold(model, path, held, cells) for held in edit.withheld]
        else:
            replaced.append(_replace(model, module, Gone(module, edit)))
    sums = [
        _gather(model, path, sum_of, cells)
        for path, edit in edits.items()
        for sum_of in edit.gathered
    ]
    for change in (*replaced, *changes, *sums):
        change()
    for module in model.modules():
        if isinstance(module, nn.RNNBase):  # it keeps its tensors in a list, too
            module._init_flat_weights()
    return model


def _replaced(
    place: Any, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with another value of one input."""
    number, name = place
    if name in kwargs:
        return args, {**kwargs, name: value}
    return (*args[:number], value, *args[number + 1 :]), kwargs


class Withheld:
    """A tensor that some code does without, while modules that it calls read it."""

    def __init__(self, place: Any, fill: Any, readers: int) -> None:
        self.place, self.fill, self.readers = place, fill, readers
        self.value: Any = None
        self.stand_in: Any = None
        self.left = 0

    def kept(self, value: Any) -> Any:
        """What stands for a tensor, which is kept until all its readers have read it."""
        if not isinstance(self.fill, Mapping):
            stand_in = torch.full_like(value, self.fill)
        elif "single" in self.fill:
            stand_in = value.new_full((), self.fill["single"])
        else:
            stand_in = value.narrow(self.fill["no channels"], 0, 0)
        self.value, self.stand_in, self.left = value, stand_in, self.readers
        return stand_in

    def taken(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Arguments with what leaves no trace in place of the input."""
        return _replaced(self.place, self.kept(_input(self.place, args, kwargs)), args, kwargs)

    def given(self, value: Any) -> Any:
        """The tensor in place of what stands for it."""
        return self.read() if self.stand_in is not None and value is self.stand_in else value

    def read(self) -> Any:
        """The tensor, for one of its readers; the last one lets it go."""
        found, self.left = self.value, self.left - 1
        if self.left <= 0:
            self.value = self.stand_in = None
        return found


class Fed(nn.Module):
    """Mixed into the class of a module that withholds inputs, or reads what is withheld."""

    withholds: tuple[Withheld, ...] = ()
    reads: tuple[Withheld, ...] = ()
    sums: tuple[tuple[Any, tuple[Withheld, ...]], ...] = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _fed, (type(self).__bases__[1], self.__dict__)


def _fed(own: type[nn.Module], state: dict[str, Any] | None = None) -> Any:
    """A class that is a module's own and `Fed`; with a state, a module of that class."""

    @functools.wraps(own.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        for held in self.reads:
            args = tuple(map(held.given, args))
            kwargs = {name: held.given(value) for name, value in kwargs.items()}
        for place, parts in self.sums:
            args, kwargs = _replaced(place, sum(part.read() for part in parts), args, kwargs)
        for held in self.withholds:
            if isinstance(held.place, list | tuple):
                args, kwargs = held.taken(args, kwargs)
        value = own.forward(self, *args, **kwargs)
        for held in self.withholds:
            if held.place is None:
                value = held.kept(value)
            elif isinstance(held.place, int):
                value = (
                    *value[: held.place],
                    held.kept(value[held.place]),
                    *value[held.place + 1 :],
                )
        return value

    made = type(own.__name__, (Fed, own), {"forward": forward, "__module__": __name__})
    if state is None:
        return made
    module = own.__new__(own)
    module.__dict__.update(state)
    module.__class__ = made
    return module


Cells = dict[tuple[str, str], Withheld]


def _withhold(
    model: nn.Module, path: str, held: Mapping[str, Any], cells: Cells
) -> Callable[[], None]:
    cell = cells[path, str(held["input"])] = Withheld(held["input"], held["fill"], len(held["to"]))
    for reader in held["to"]:
        model.get_submodule(reader)

    def change() -> None:
        owner = _as_fed(model, path)
        owner.withholds = (*owner.withholds, cell)
        for reader in held["to"]:
            child = _as_fed(model, reader)
            child.reads = (*child.reads, cell)

    return change


def _gather(
    model: nn.Module, path: str, total: Mapping[str, Any], cells: Cells
) -> Callable[[], None]:
    known = [cells.get((owner, str(place))) for owner, place in total["of"]]
    parts = tuple(part for part in known if part is not None)
    if len(parts) < len(known):
        raise ValueError(f"{path} reads a sum of {total['of']}, not all of which are withheld")
    for part in parts:
        part.readers += 1

    def change() -> None:
        module = _as_fed(model, path)
        module.sums = (*module.sums, (total["input"], parts))

    return change


def _as_fed(model: nn.Module, path: str) -> Any:
    module: Any = model.get_submodule(path)
    if not isinstance(module, Fed):
        module.__class__ = _fed(type(module))
    return module


def marked(model: nn.Module, data: Mapping[str, Any], example: Mapping[str, Any]) -> nn.Module:
    """The model with what was done to it, for checkpoints, and inputs that it takes, for exports.

    Args:
        model: in its own class, edited.
        data: the edits, as `to_dict` gives them; those of earlier rounds stay.
        example: arguments of its forward by name.
    """
    own: Any = model
    own.edgewise_edits = [*getattr(own, "edgewise_edits", ()), data]
    own.edgewise_example = dict(example)
    return model


Names = dict[int, list[tuple[dict[str, Any], str]]]


def _names(model: nn.Module) -> Names:
    """Where each parameter and buffer is kept; those that are tied are kept in several places."""
    found: Names = {}
    for module in model.modules():
        for home in (module._parameters, module._buffers):
            for name, tensor in home.items():
                if tensor is not None:
                    found.setdefault(id(tensor), []).append((home, name))
    return found


def _cut(
    names: Names, module: nn.Module, path: str, name: str, axes: tuple[str, ...] | None
) -> Callable[[], None]:
    tensor = module._parameters.get(name, module._buffers.get(name))
    kept = [places(axis) if axis else None for axis in axes or ()]
    if tensor is None or (axes is not None and len(kept) != tensor.ndim):
        raise ValueError(f"{path}.{name} is {_shape(tensor)}, and {len(kept)} axes of it are cut")
    for axis, keep in enumerate(kept):
        if keep is not None and (not keep or keep[-1] >= tensor.shape[axis]):
            raise ValueError(f"{path}.{name} is {_shape(tensor)}, and of axis {axis} stay {keep}")
    slots = names[id(tensor)]

    def change() -> None:
        value = None if axes is None else _kept(tensor, kept)
        for home, slot in slots:
            home[slot] = value

    return change


def _shape(tensor: torch.Tensor | None) -> str:
    return "not there" if tensor is None else f"of shape {tuple(tensor.shape)}"


def _kept(tensor: torch.Tensor, kept: list[list[int] | None]) -> torch.Tensor:
    value = tensor.detach()
    for axis, keep in enumerate(kept):
        if keep is not None:
            value = value.index_select(axis, torch.tensor(keep, device=value.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value.contiguous(), requires_grad=tensor.requires_grad)
    return value.contiguous()


def _set(module: nn.Module, path: str, name: str, change: tuple[Any, Any]) -> Callable[[], None]:
    before, after = change
    name, _, place = name.partition("[")
    held = vars(module).get(name)
    number = int(place[:-1]) if place else None
    found = held if number is None or not isinstance(held, tuple | list) else held[number]
    if found != before:
        raise ValueError(f"{path}.{name} is {held!r}, and should be {before!r}")
    if number is not None and held is not None:
        after = type(held)([*held[:number], after, *held[number + 1 :]])
    return lambda: setattr(module, name, after)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> Callable[[], None]:
    homes = [(m._modules, name) for m in model.modules() for name in m._modules]
    found = [(home, name) for home, name in homes if home[name] is old]

    def change() -> None:
        for home, name in found:
            home[name] = new

    return change
