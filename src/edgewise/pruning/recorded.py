"""What a plan's file says of its network and of its tensors, checked before any of it is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from keyword import iskeyword
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import PlanError
from ..values.files import sha256
from ..values.reading import read_fields

MOST = 2**30  # elements of all example inputs together


Slices = tuple[tuple[int, int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class _Trace:
    granularity: tuple[str, ...]
    frontend: Literal["torch.fx", "torch.export"]
    units: tuple[str, ...]
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    constants: Mapping[str, bool | int | float | str | None]
    tensors_only: bool
    widths: tuple[tuple[str, str, str, Slices], ...]
    ties: tuple[tuple[str, str, str, Slices, tuple[int, ...], tuple[int, ...]], ...]
    parameters: tuple[str, ...]
    operators: tuple[str, ...]
    settings: tuple[str, ...]
    unsaved: tuple[str, ...]
    part: tuple[tuple[str, tuple[str, ...], tuple[str, ...], int], ...]


@dataclass(frozen=True)
class _File:
    file: str
    sha256: str


def check_trace(trace: Mapping[str, Any], bits: str) -> None:
    """Require that a plan's `trace` can be used, and that its example inputs fit into memory.

    Raises:
        ValueError: something in it is wrong; names it.
    """
    found = read_fields(_Trace, trace, "trace")
    if len(found.units) != len(bits):
        raise ValueError(f"trace.units has {len(found.units)} names, bits {len(bits)}")
    if not all(": " in line for line in found.parameters):
        raise ValueError("trace.parameters must be lines such as 'stem.weight: 8x3x3x3'")
    given = [name for _, names, _, _ in found.part for name in names]
    words = [*given, *(name for _, _, own, _ in found.part for name in own)]
    if len({*given}) < len(given) or not all(w.isidentifier() and not iskeyword(w) for w in words):
        raise ValueError("trace.part names arguments that a function cannot have")
    for name, shape, dtype in found.inputs:
        if min(shape, default=0) < 0:
            raise ValueError(f"input {name!r} has the shape {shape}")
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f"input {name!r} has the unknown dtype {dtype!r}")
    if sum(prod(shape) for _, shape, _ in found.inputs) > MOST:
        raise ValueError(f"its example inputs have more than {MOST:,} elements")


def read_tensors(entry: Any, folder: Path) -> dict[str, torch.Tensor]:
    """The recovered tensors that lie beside a plan, if it has some.

    Args:
        entry: {"file": a bare name, "sha256": of what is in it}, or None.
        folder: of the plan.

    Raises:
        PlanError: the file is not there, not beside the plan, or not the one that belongs to it.
        ValueError: the entry is wrong.
    """
    if entry is None:
        return {}
    wanted = read_fields(_File, entry, "tensors", known=())
    if wanted.file in ("", ".", "..") or set(wanted.file) & set("/\\:\0"):
        raise PlanError(
            f"The plan names the tensors {wanted.file!r}, but they must be a file beside it: "
            "a name without a folder. Only use plans of people you trust."
        )
    path = folder / wanted.file
    if not path.exists():
        raise PlanError(f"The plan's recovered tensors are missing: {path} belongs beside it.")
    try:
        if sha256(path) != wanted.sha256:
            raise PlanError(
                f"{path} is not the file that belongs to the plan (its SHA-256 differs)."
            )
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise PlanError(f"The plan's recovered tensors {path} cannot be read: {error}.") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():
            raise PlanError(f"{path} is damaged: the recovered tensor {name!r} holds NaN.")
    return tensors
