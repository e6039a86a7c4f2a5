"""The arguments of a model in a batch: a tensor, several in a row, or several by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import ObjectiveError
from .nested import device_of, moved


def arguments(inputs: Any) -> tuple[Any, ...] | dict[str, Any]:
    """What a batch gives: a dict by name, or a tuple by place.

    Examples:
        >>> from edgewise.values.arguments import arguments
        >>> arguments(1), arguments([1, 2]), arguments({"ids": 1})
        ((1,), (1, 2), {'ids': 1})
    """
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)


def inputs_in(item: Any, count: int) -> Any:
    """The inputs in a batch that may have targets beside them.

    Args:
        item: (inputs, targets), or inputs alone.
        count: how many inputs the model takes: a pair of tensors may be two of them.

    Examples:
        >>> from edgewise.values.arguments import inputs_in
        >>> inputs_in((1, 2), 1), inputs_in((1, 2), 2), inputs_in(((1, 2), 3), 2)
        (1, (1, 2), (1, 2))
    """
    nested = isinstance(item, list | tuple) and len(item) == 2
    return (
        item[0] if nested and (count != 2 or isinstance(item[0], list | tuple | Mapping)) else item
    )


def placed(inputs: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """What a batch gives as a tuple; a dict in the order of `names`.

    Raises:
        ObjectiveError: the dict has other names.

    Examples:
        >>> from edgewise.values.arguments import placed
        >>> placed({"mask": 1, "ids": 2}, ("ids", "mask"))
        (2, 1)
    """
    given = arguments(inputs)
    if isinstance(given, tuple):
        return given
    if given.keys() != set(names):
        raise ObjectiveError(
            f"A batch gives the inputs {', '.join(map(str, given))}; the traced model takes "
            f"{', '.join(names)}. Leave the others out, or trace it with all of them."
        )
    return tuple(given[name] for name in names)


def split_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a batch gives, by place and by name.

    Examples:
        >>> from edgewise.values.arguments import split_arguments
        >>> split_arguments((1, 2)), split_arguments({"ids": 1})
        (((1, 2), {}), ((), {'ids': 1}))
    """
    given = arguments(inputs)
    return ((), given) if isinstance(given, dict) else (given, {})


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's outputs for what a batch gives, wherever that lies."""
    args, kwargs = moved(split_arguments(inputs), device_of(model))
    return model(*args, **kwargs)
