"""Exports of a pruned model, each compared with it on real inputs of several sizes."""

import copy
import dataclasses
import inspect
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import EdgewiseError, EdgewiseWarning
from ..tracing.capture import bind
from ..values.arguments import split_arguments
from ..values.files import partial, write_atomically
from ..values.nested import device_of, moved
from ..values.precision import full_precision
from .draft import Draft
from .other_sizes import Sizes, free_sizes


@dataclass(frozen=True)
class Exported:
    """A written export.

    Args:
        path: of the file.
        format: "onnx" or "pt2".
        opset: that of ONNX.
        difference: the largest relative one of its outputs, over all sizes that were compared.
        free: for each input, the axes that may have other sizes than the example's.
    """

    path: Path
    format: str
    opset: int | None
    difference: float
    free: Mapping[str, tuple[int, ...]]


def export(
    module: nn.Module,
    path: str | Path,
    example: Any = None,
    *,
    opset: int | None = None,
    fixed: bool = False,
) -> Exported:
    """Write a pruned model as ONNX (*.onnx) or as a torch.export program (*.pt2), and compare.

    The batch, lengths and image sizes that the model takes stay free, and the file is compared at
    other ones, too. Where one cannot stay free, a warning names the input's axis and the reason.

    Inputs have the names of the model's arguments, and a *.pt2 is called by them. Outputs are
    plain tuples, lists and dicts in a *.pt2 (a dataclass becomes a dict of its fields); in ONNX
    they are one after the other, named by what leads to them, numbers as tensors, without None.

    Args:
        module: what `ew.prune` or `ew.heal` returned, or any other module with an `example`.
        path: the file; its suffix names the format.
        example: inputs: a tuple, or a dict by name; by default those the model was traced with.
        opset: of ONNX; by default the exporter's.
        fixed: keep every size as it is in the example.

    Returns:
        What was written, with the largest relative difference of outputs and what is free.

    Raises:
        EdgewiseError: unknown suffix, a missing package, no example inputs, or a model that the
            format cannot express.
        VerificationError: the exported model gives other outputs; no file is left.

    Examples:
        >>> small = ew.prune(graph, graph.mask([0]))
        >>> ew.export(small, "small.pt2").free["x"]
        (0, 2, 3)
        >>> ew.export(small, "small.pt2", fixed=True).free["x"]
        ()
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise EdgewiseError(f"Exports are *.onnx or *.pt2 (torch.export), not {path.name!r}.")
    if opset is not None and path.suffix != ".onnx":
        raise EdgewiseError(f"`opset` is a version of ONNX's operators; {path.name!r} has none.")
    inputs, constants = _inputs(module, example)
    own = copy.deepcopy(module).eval()
    for hooks in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        getattr(own, hooks).update(getattr(module, hooks))  # a copy by torch.fx lacks them
    if path.suffix == ".onnx":  # it is compared on a processor
        own = own.cpu()
    inputs, constants = moved((inputs, constants), device_of(own))
    subject = _Named(own, inputs, constants)
    sizes = Sizes(inputs) if fixed else free_sizes(subject, inputs)
    with _folder_beside(path) as folder, torch.no_grad(), full_precision():
        draft = Draft(subject, sizes, folder / path.name, opset)
        found, difference = draft.write()
        for file in sorted(folder.iterdir(), reverse=True):  # the tensors of ONNX come first
            write_atomically(path.parent / file.name, file.replace)
    for note in draft.notes:
        warnings.warn(note, EdgewiseWarning, stacklevel=2)
    return Exported(path, path.suffix[1:], found, difference, draft.free)


def _inputs(module: nn.Module, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that hold tensors, by name, and the others."""
    if example is None:
        program = getattr(module, "meta", {}).get("edgewise_args")
        example = getattr(module, "edgewise_example", None) or program
    if example is None:
        raise EdgewiseError("Pass example inputs: ew.export(module, path, (x,)).")
    inputs, constants, *_ = bind(module, *split_arguments(example))
    return inputs, constants


class _Named(nn.Module):
    """A model called by names, its constants given, that gives plain outputs.

    Its parameters have the names that they have in the model.
    """

    def __init__(
        self, model: nn.Module, names: Iterable[str], constants: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._parameters, self._buffers = model._parameters, model._buffers
        self._modules = model._modules
        self._non_persistent_buffers_set = model._non_persistent_buffers_set
        self.eval()

        def forward(**inputs: Any) -> Any:
            return _plain(model(**inputs, **constants))

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD  # torch.export reads the names
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward


def _plain(value: Any) -> Any:
    """Outputs without classes of the model's own, which another process need not have."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value


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
