"""Exports of a pruned model, each compared with it on real inputs of several sizes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import EdgewiseError, EdgewiseWarning, VerificationError
from ..tracing.capture import bind
from ..tracing.export_frontend import first_lines, quiet
from ..tracing.sizes import Axis
from ..values.arguments import arguments
from ..values.files import partial, write_atomically
from ..values.nested import copies_of, device_of, moved, named_leaves
from ..values.precision import full_precision
from .other_sizes import Inputs, Sizes, free_sizes, outputs
from .prune import TOLERANCE, relative_difference

_LOOSER = 10  # another runtime orders its sums differently
_NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64, torch.SymInt: torch.int64}
Run = Callable[[Inputs], Any]


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

    @property
    def dynamic_batch(self) -> bool:
        """Whether it takes other batch sizes."""
        return any(0 in axes for axes in self.free.values())


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
        draft = _Draft(subject, sizes, folder / path.name, opset)
        written = draft.written()
        for file in sorted(folder.iterdir(), reverse=True):  # the tensors of ONNX come first
            write_atomically(path.parent / file.name, file.replace)
    for note in draft.notes:
        warnings.warn(note, EdgewiseWarning, stacklevel=2)
    return dataclasses.replace(written, path=path)


def _inputs(module: nn.Module, example: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that hold tensors, by name, and the others."""
    if example is None:
        example = getattr(module, "meta", {}).get("edgewise_args")
    if example is None:
        raise EdgewiseError("Pass example inputs: ew.export(module, path, (x,)).")
    given = arguments(example)
    return bind(module, *(((), given) if isinstance(given, dict) else (given, {})))


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


def _answers(found: Any, taken: Iterable[str] = ()) -> dict[str, Any]:
    """Plain outputs by name, numbers as tensors, without None."""
    answers: dict[str, Any] = {}
    for path, leaf in named_leaves(found):
        name = _name(path)
        while name in answers or name in taken:
            name = f"output_{name}"
        if leaf is not None:
            kind = _NUMBERS.get(type(leaf))
            answers[name] = leaf if kind is None else torch.scalar_tensor(leaf, dtype=kind)
    return answers


def _name(path: str) -> str:
    """A name for what leads to a tensor: "logits", "images_0", "output_1"."""
    name = "_".join(re.findall(r"\w+", path))
    return name if name.isidentifier() else f"output_{name}".rstrip("_")


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


class _FixedError(Exception):
    """Axes cannot be free in this file."""

    def __init__(self, axes: frozenset[Axis], reason: str) -> None:
        super().__init__(reason)
        self.axes = axes


class _Draft:
    """One file, written with as many free sizes as it can have.

    Args:
        subject: the model; it gives plain outputs.
        sizes: what it takes.
        path: of the draft.
        opset: that is wanted.
    """

    def __init__(self, subject: nn.Module, sizes: Sizes, path: Path, opset: int | None) -> None:
        self.subject, self.example, self.path, self.opset = subject, sizes.example, path, opset
        self.cases = sizes.cases
        self.onnx = path.suffix == ".onnx"
        self.expected = outputs(subject, self.example)
        self.names: dict[int, str] = {}  # of the input tensors, by their places
        for place, (keys, leaf) in enumerate(pytree.tree_flatten_with_path(self.example)[0]):
            if isinstance(leaf, torch.Tensor):
                self.names[place] = _name(pytree.keystr(keys))
        self.notes = [self._note(axes, reason) for reason, axes in sizes.refused.items()]
        self.answers = _answers(self.expected, self.names.values())
        if self.onnx:
            self._flatten()

    def _flatten(self) -> None:
        """Have the model give what ONNX can: tensors, one after the other."""
        for name, value in self.answers.items():
            if not isinstance(value, torch.Tensor):
                raise EdgewiseError(f"ONNX has no outputs of {type(value).__name__}: {name}.")
        self.subject.register_forward_hook(lambda _, __, found: list(_answers(found).values()))

    def written(self) -> Exported:
        """The file, compared at the example and in every case.

        Raises:
            EdgewiseError: the format cannot express the model.
            VerificationError: the file gives other outputs for the example.
        """
        while True:
            try:
                run, opset = self._write(program := self._program())
                difference = self._compare(program, run)
            except _FixedError as problem:
                self.notes.append(self._note(problem.axes, str(problem)))
                self.cases = tuple(c for c in self.cases if not c.axes & problem.axes)
            else:
                free = {name: self._free(place) for place, name in self.names.items()}
                return Exported(self.path, self.path.suffix[1:], opset, difference, free)

    def _free(self, place: int) -> tuple[int, ...]:
        return tuple(sorted({axis for p, axis in self._axes() if p == place}))

    def _axes(self) -> frozenset[Axis]:
        return frozenset().union(*(case.axes for case in self.cases))

    def _note(self, axes: frozenset[Axis], reason: str) -> str:
        leaves = pytree.tree_leaves(self.example)
        places = (f"{self.names[p]} (axis {a}: {leaves[p].shape[a]})" for p, a in sorted(axes))
        return (
            f"{self.path.name} keeps sizes of the example: {', '.join(places)}. {reason} "
            "`fixed=True` keeps all of them without this warning."
        )

    def _cannot(self, error: Exception) -> Exception:
        """What to raise where free sizes may be to blame; batches come last."""
        root = error
        while isinstance(root.__cause__, Exception):
            root = root.__cause__  # torch.onnx wraps it in its whole program
        reason = first_lines(root)
        axes = self._axes()
        if not axes:
            return EdgewiseError(f"{self.path.name} cannot be written: {reason}")
        return _FixedError(frozenset(a for a in axes if a[1] > 0) or axes, reason)

    def _program(self) -> torch.export.ExportedProgram:
        free, (leaves, structure) = self._axes(), pytree.tree_flatten(dict(self.example))
        auto, static = torch.export.Dim.AUTO, torch.export.Dim.STATIC
        shapes = [
            {a: auto if (place, a) in free else static for a in range(leaf.ndim)}
            if isinstance(leaf, torch.Tensor)
            else None
            for place, leaf in enumerate(leaves)
        ]
        try:
            with quiet():
                program = torch.export.export(
                    self.subject, (), copies_of(dict(self.example)),
                    dynamic_shapes=pytree.tree_unflatten(shapes, structure), strict=False,
                )  # fmt: skip
        except Exception as error:
            raise self._cannot(error) from error
        constant = free - _symbolic(program)
        if constant:
            raise _FixedError(constant, "What the model computes holds for this size only.")
        return program

    def _write(self, program: torch.export.ExportedProgram) -> tuple[Run, int | None]:
        """Write the file; what runs it, and its opset."""
        if self.onnx:
            return self._write_onnx(program)
        buffer = io.BytesIO()  # torch's writer of files ends the process where the disk is full
        torch.export.save(program, buffer)
        self.path.write_bytes(buffer.getbuffer())
        read: Any = torch.export.load(self.path).module()
        return lambda inputs: list(_answers(read(**inputs)).values()), None

    def _write_onnx(self, program: torch.export.ExportedProgram) -> tuple[Run, int]:
        try:
            import onnxruntime
        except ImportError as error:
            raise EdgewiseError("ONNX export needs `pip install edgewise[onnx]`.") from error
        names = list(self.names.values())
        try:
            with quiet():
                written = torch.onnx.export(
                    program, dynamo=True, verbose=False, opset_version=self.opset,
                    input_names=names, output_names=list(self.answers),
                )  # fmt: skip
            assert written is not None
            written.save(str(self.path))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except OSError:
            raise
        except Exception as error:
            raise self._cannot(error) from error
        opset = int(written.model.opset_imports[""])
        if self.opset not in (None, opset):
            raise EdgewiseError(f"torch.onnx writes this model in opset {opset}, not {self.opset}.")

        def run(inputs: Inputs) -> list[torch.Tensor]:
            leaves = pytree.tree_leaves(dict(inputs))
            given = {name: leaves[place].numpy() for place, name in self.names.items()}
            return [torch.as_tensor(value) for value in session.run(None, given)]

        return run, opset

    def _compare(self, program: torch.export.ExportedProgram, run: Run) -> float:
        """The largest relative difference of outputs, at the example and in every case."""
        worst = self._difference(self.expected, run, self.example, "the example")
        for case in self.cases:
            sizes = ", ".join(
                str(tuple(leaf.shape))
                for leaf in pytree.tree_leaves(dict(case.inputs))
                if isinstance(leaf, torch.Tensor)
            )
            try:
                found = self._difference(case.expected, run, case.inputs, f"inputs of {sizes}")
            except Exception as error:
                reason = first_lines(_condition(program, case.inputs) or error)
                if not (case.special and isinstance(error, AssertionError)):
                    raise _FixedError(case.axes, f"With {sizes}: {reason}.") from error
                self.notes.append(f"{self.path.name} refuses {sizes}: {reason}.")
                continue
            worst = max(worst, found)
        return worst

    def _difference(self, expected: Any, run: Run, inputs: Inputs, label: str) -> float:
        """How far the outputs of a file differ.

        Raises:
            VerificationError: it is more than rounding.
        """
        worst, allowed, answers = 0.0, 0.0, _answers(expected)
        for a, b in zip(answers.values(), run(inputs), strict=True):
            if isinstance(a, torch.Tensor):
                worst = max(worst, relative_difference(a, b))
                allowed = max(allowed, _LOOSER * TOLERANCE.get(a.dtype, 0.0))
            elif a != b:
                worst = float("inf")
        if not worst <= allowed:
            raise VerificationError(
                f"The export {self.path.name} differs from the pruned model by {worst:.3g} "
                f"(relative; allowed {allowed:g}) on {label}. No file was written."
            )
        return worst


def _condition(program: torch.export.ExportedProgram, inputs: Inputs) -> Exception | None:
    """Which condition of a program inputs do not meet; other formats do not know it."""
    try:
        program.module()(**inputs)
    except Exception as error:  # noqa: BLE001 - it is told
        return error
    return None


def _symbolic(program: torch.export.ExportedProgram) -> frozenset[Axis]:
    """The axes of inputs that a program leaves free."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = (values.get(name) for name in program.graph_signature.user_inputs)
    return frozenset(
        (place, axis)
        for place, value in enumerate(found)
        if isinstance(value, torch.Tensor)
        for axis, size in enumerate(value.shape)
        if isinstance(size, torch.SymInt)
    )
