"""Data as people have them, read once, as batches; and what is told of data that mislead."""

import logging
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from ..errors import ObjectiveError
from ..values.arguments import arguments
from ..values.nested import batch_size, leaves_of, tensors_of
from .records import Split

Batch = tuple[Any, Any]  # inputs, a tuple of arguments or a dict by name, and targets
TOGETHER = 250  # examples of a batch, where batches are made here
log = logging.getLogger("edgewise")


def read(loader: Any, split: str, raw: bool = False) -> tuple[Batch, ...]:
    """The batches of a split.

    Args:
        loader: an iterable of (inputs, targets), a data set of single pairs, or one pair of arrays
            or tensors of all examples. Arrays become tensors, of float32 where they are float64.
        split: what it is called in messages.
        raw: whether inputs stay as they are, and are not made arguments of the model.

    Raises:
        ObjectiveError: it is empty, or gives something else than pairs.
    """
    if isinstance(loader, list | tuple) and len(loader) == 2 and _is_pair(*loader):
        inputs, targets = map(_tensors, loader)
        loader = list(zip(inputs.split(TOGETHER), targets.split(TOGETHER), strict=True))
    _tell_random(loader, split)
    found: list[Batch] = []
    for item in items(loader):
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise ObjectiveError(
                f"The {split} loader must give (inputs, targets) pairs; batch {len(found)} is a "
                f"{type(item).__name__}."
            )
        found.append((item[0] if raw else inputs_of(item), item[1]))
        require_examples(found[-1][0], f"Batch {len(found) - 1} of the {split} loader")
    if not found:
        raise ObjectiveError(f"The {split} loader is empty: there is nothing to measure on.")
    return tuple(found)


def items(loader: Any) -> tuple[Any, ...]:
    """What a loader gives; of a data set, batches, and one batch where it is an array itself."""
    if loader is None:
        return ()
    if isinstance(loader, np.ndarray | torch.Tensor):
        return (_tensors(loader),)
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        loader = DataLoader(loader, TOGETHER)
    return tuple(_tensors(item) if _holds_arrays(inputs_of(item)) else item for item in loader)


def _is_pair(inputs: Any, targets: Any) -> bool:
    """Whether these are all inputs and all targets."""
    arrays = all(isinstance(part, np.ndarray | torch.Tensor) and part.ndim
                 for part in (inputs, targets))  # fmt: skip
    return arrays and len(inputs) == len(targets)


def _holds_arrays(inputs: Any) -> bool:
    return any(isinstance(leaf, np.ndarray) for leaf in leaves_of(inputs))


def _tensors(value: Any) -> Any:
    def converted(array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.float() if tensor.dtype == torch.float64 else tensor

    return pytree.tree_map_only(np.ndarray, converted, value)


def inputs_of(item: Any) -> tuple[Any, ...] | dict[str, Any]:
    """The model's arguments in a batch given as (inputs, targets) or as inputs alone."""
    return arguments(pair_of(item)[0])


def pair_of(item: Any) -> Batch:
    """A batch given as (inputs, targets), or as inputs alone."""
    pair = isinstance(item, list | tuple) and len(item) == 2
    return (item[0], item[1]) if pair else (item, None)


def examples(inputs: Any, targets: Any) -> int:
    """How many are in a batch; in lists of single ones, as for detection, as many as these have."""
    single = isinstance(targets, list | tuple) and not any(map(torch.is_tensor, targets))
    lists = [v for v in (inputs, *arguments(inputs)) if isinstance(v, list | tuple)]
    fits = single and any(len(v) == len(targets) and all(map(torch.is_tensor, v)) for v in lists)
    return len(targets) if fits else batch_size(arguments(inputs))


def require_examples(inputs: Any, name: str) -> None:
    """Raise ObjectiveError unless a batch has values."""
    if any(tensor.is_meta for tensor in tensors_of(inputs)):
        raise ObjectiveError(f"{name} is on the meta device: it has no values to measure with.")
    if batch_size(inputs) == 0:
        shapes = [list(tensor.shape) for tensor in tensors_of(inputs)]
        raise ObjectiveError(
            f"{name} has no examples: its inputs are of shape {', '.join(map(str, shapes))}. "
            "Leave empty batches out."
        )


def _tell_random(loader: Any, split: str) -> None:
    """Say where a loader gives other examples, or in another order, every time it is read."""
    if isinstance(getattr(loader, "sampler", None), RandomSampler):
        log.warning(
            "The %s loader shuffles. It is read once, so that all masks see the same; but a "
            "stored study will not be resumed on others. Give it shuffle=False.", split,
        )  # fmt: skip
    data = getattr(loader, "dataset", loader)
    known = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
    if known and len(data) and not _alike(data[0], data[0]):
        log.warning(
            "The %s data are random: example 0, read twice, is not the same. Measure on examples "
            "as they are; augmentation belongs to calibration and healing.", split,
        )  # fmt: skip


def check_disjoint(splits: Mapping[Split, tuple[Batch, ...]]) -> None:
    """Say where two splits begin with the same examples."""
    for one, other in combinations([name for name in splits if name != "trial"], 2):
        if _alike(splits[one][0], splits[other][0]):
            log.warning(
                "The %s and the %s split begin with the same examples. What is chosen on some is "
                "too good there: give each examples of its own.", one, other,
            )  # fmt: skip


def _alike(one: Any, other: Any) -> bool:
    """Whether all tensors in two values are equal; there must be some."""
    kinds = np.ndarray | torch.Tensor
    parts = [[torch.as_tensor(leaf) for leaf in leaves_of(value) if isinstance(leaf, kinds)]
             for value in (one, other)]  # fmt: skip
    same = [a.shape == b.shape and bool((a == b).all()) for a, b in zip(*parts, strict=False)]
    return len(parts[0]) == len(parts[1]) and all(same) and bool(same)
