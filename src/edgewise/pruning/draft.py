"""One exported file, with as many free sizes as it can have, compared at each of them."""

import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import EdgewiseError, VerificationError
from ..tracing.export_frontend import first_lines, quiet
from ..tracing.sizes import Axis
from ..values.nested import copies_of, named_leaves, shapes_of
from .other_sizes import Inputs, Sizes, outputs
from .verify import TOLERANCE, relative_difference

_LOOSER = 10  # another runtime orders its sums differently
_NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64, torch.SymInt: torch.int64}
Run = Callable[[Inputs], list[Any]]


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


class _FixedError(Exception):
    """Axes cannot be free in this file."""

    def __init__(self, axes: frozenset[Axis], reason: str) -> None:
        super().__init__(reason)
        self.axes = axes


class Draft:
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

    def write(self) -> tuple[int | None, float]:
        """The file's opset, and how far its outputs differ at the example and in every case.

        Raises:
            EdgewiseError: the format cannot express the model.
            VerificationError: the file gives other outputs for the example.
        """
        while True:
            try:
                run, opset = self._write(program := self._program())
                return opset, self._compare(program, run)
            except _FixedError as problem:
                self.notes.append(self._note(problem.axes, str(problem)))
                self.cases = tuple(c for c in self.cases if not c.axes & problem.axes)

    @property
    def free(self) -> dict[str, tuple[int, ...]]:
        """The axes of each input that are free, by its name."""
        axes = sorted(self._axes())
        return {name: tuple(a for p, a in axes if p == place) for place, name in self.names.items()}

    def _axes(self) -> frozenset[Axis]:
        return frozenset().union(*(case.axes for case in self.cases))

    def _note(self, axes: frozenset[Axis], reason: str) -> str:
        leaves = pytree.tree_leaves(self.example)
        places = (f"{self.names[p]} (axis {a}: {leaves[p].shape[a]})" for p, a in sorted(axes))
        return (
            f"{self.path.name} keeps sizes of the example: {', '.join(places)}. {reason} "
            "`fixed=True` keeps all sizes without this warning."
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
        return _FixedError(frozenset(a for a in axes if a[1] > 0) or axes, f"{reason}.")

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
        """The largest relative difference of outputs, at the example and in every case.

        Raises:
            VerificationError: at the example, it is more than rounding.
        """
        try:
            worst, problem = self._difference(self.expected, run(self.example))
        except Exception as error:
            raise self._cannot(error) from error
        if problem:
            raise VerificationError(
                f"For the example, {self.path.name} {problem} No file was written."
            )
        for case in self.cases:
            sizes = shapes_of(dict(case.inputs))
            try:
                found, problem = self._difference(case.expected, run(case.inputs))
            except Exception as error:  # noqa: BLE001 - a runtime's own
                found, problem = 0.0, f"fails: {first_lines(error)}."
                if case.special and isinstance(error, AssertionError):  # a condition of torch's
                    self.notes.append(f"{self.path.name} refuses {sizes}: {first_lines(error)}.")
                    continue
            else:
                problem += problem and _condition(program, case.inputs)
            if problem:
                raise _FixedError(case.axes, f"With {sizes} it {problem}")
            worst = max(worst, found)
        return worst

    def _difference(self, expected: Any, found: list[Any]) -> tuple[float, str]:
        """How far the outputs of a file differ, and what is wrong where that is too far."""
        worst, allowed = 0.0, 0.0
        for a, b in zip(_answers(expected).values(), found, strict=True):
            if isinstance(a, torch.Tensor):
                worst = max(worst, relative_difference(a, b))
                allowed = max(allowed, _LOOSER * TOLERANCE.get(a.dtype, 0.0))
            elif a != b:
                worst = float("inf")
        if worst <= allowed:
            return worst, ""
        return worst, f"differs from the model by {worst:.3g} (relative; allowed {allowed:g})."


def _condition(program: torch.export.ExportedProgram, inputs: Inputs) -> str:
    """The condition of a program that inputs do not meet, in words; ONNX does not have it."""
    try:
        program.module()(**inputs)
    except Exception as error:  # noqa: BLE001 - it is told
        return f" torch.export says: {first_lines(error)}."
    return ""
