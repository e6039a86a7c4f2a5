"""Exports of a pruned model, each compared with it on real inputs."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import EdgewiseError, VerificationError
from ..values.files import partial, write_atomically
from ..values.nested import doubled, moved
from ..values.precision import full_precision
from .prune import TOLERANCE, relative_difference

_LOOSER = 10  # another runtime orders its sums differently


@dataclass(frozen=True)
class Exported:
    """A written export: its path, format, opset (ONNX), and how far its outputs differ."""

    path: Path
    format: str
    opset: int | None
    difference: float
    dynamic_batch: bool


def export(module: nn.Module, path: str | Path, args: tuple[Any, ...] | None = None) -> Exported:
    """Write a pruned model as ONNX (*.onnx) or as a torch.export program (*.pt2), and compare.

    The batch dimension stays dynamic where the model allows it.

    Args:
        module: what `ew.prune` or `ew.heal` returned.
        path: the file; its suffix names the format.
        args: example inputs; by default those the model was traced with.

    Returns:
        What was written, with the largest relative difference of outputs.

    Raises:
        EdgewiseError: unknown suffix, a missing package, or no example inputs.
        VerificationError: the exported model gives other outputs; no file is left.

    Examples:
        >>> small = ew.prune(graph, graph.mask([0]))
        >>> ew.export(small, "small.pt2").dynamic_batch
        True
    """
    path = Path(path)
    inputs = args if args is not None else getattr(module, "meta", {}).get("edgewise_args")
    if inputs is None:
        raise EdgewiseError("Pass example inputs: ew.export(module, path, (x,)).")
    if path.suffix not in (".onnx", ".pt2"):
        raise EdgewiseError(f"Exports are *.onnx or *.pt2 (torch.export), not {path.name!r}.")
    subject = copy.deepcopy(module).eval()
    inputs = doubled(tuple(inputs), of=1)  # a batch of one would be taken for a constant
    if path.suffix == ".onnx":  # it is compared on a processor
        subject, inputs = subject.cpu(), moved(inputs, torch.device("cpu"))
    with _folder_beside(path) as folder, torch.no_grad(), full_precision():
        expected = subject(*inputs)
        draft = folder / path.name
        write = _write_onnx if path.suffix == ".onnx" else _write_program
        program, dynamic = _program(subject, inputs)
        found, opset = write(program, inputs, draft)
        difference = _compare(expected, found, path)
        for file in sorted(folder.iterdir(), reverse=True):  # the tensors of ONNX come first
            write_atomically(path.parent / file.name, file.replace)
    return Exported(path, path.suffix[1:], opset, difference, dynamic)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A folder for drafts on the disk of `path`; nothing is left of it."""
    folder = partial(path)
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise EdgewiseError(f"The export cannot be written to {path}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, bool]:
    batch = torch.export.Dim("batch")
    shapes = pytree.tree_map(
        lambda v: {0: batch} if isinstance(v, torch.Tensor) and v.ndim else None, inputs
    )
    try:
        return torch.export.export(module, inputs, dynamic_shapes=shapes), True
    except Exception:  # noqa: BLE001 - torch.export raises many kinds where a batch must be fixed
        return torch.export.export(module, inputs), False


def _write_program(program: Any, inputs: tuple[Any, ...], path: Path) -> tuple[Any, int | None]:
    buffer = io.BytesIO()  # torch's writer of files ends the process where the disk is full
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())
    return torch.export.load(path).module()(*inputs), None


def _write_onnx(program: Any, inputs: tuple[Any, ...], path: Path) -> tuple[Any, int | None]:
    try:
        import onnxruntime
    except ImportError as error:
        raise EdgewiseError("ONNX export needs `pip install edgewise[onnx]`.") from error
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    written.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    leaves = [v for v in pytree.tree_leaves(inputs) if isinstance(v, torch.Tensor)]
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, {n: v.numpy() for n, v in zip(names, leaves, strict=True)})
    opset = int(written.model.opset_imports[""])
    return [torch.from_numpy(value) for value in found], opset


def _compare(expected: Any, found: Any, path: Path) -> float:
    worst, allowed = 0.0, 0.0
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=True)
    for a, b in pairs:
        worst = max(worst, relative_difference(a, b))
        allowed = max(allowed, _LOOSER * TOLERANCE.get(a.dtype, 0.0))
    if not worst <= allowed:
        raise VerificationError(
            f"The export {path.name} differs from the pruned model by {worst:.3g} (relative; "
            f"allowed {allowed:g}). No file was written."
        )
    return worst
