"""Exported files: what is free in them, their names, what they give, and what is refused."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.onnx._internal.exporter._registration import ONNXRegistry

import edgewise as ew
from edgewise.errors import EdgewiseError, EdgewiseWarning, VerificationError
from edgewise.pruning import draft
from edgewise.values.nested import leaves_of
from zoo import build

FORMATS = ("onnx", "pt2")


@pytest.fixture(scope="module", autouse=True)
def _operators_known() -> Iterator[None]:
    """torch.onnx makes its table of operators anew for every file: half the time of a small one."""
    with pytest.MonkeyPatch.context() as patch:
        once = staticmethod(cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        yield


@dataclass
class Answer:
    logits: torch.Tensor
    aux: torch.Tensor | None = None


class Pair(NamedTuple):
    left: Any
    right: Any


class Tokens(nn.Module):
    """Attention over [batch, length, 8], with what each test wants of the outputs."""

    def __init__(self, give=lambda y: y):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.give = give

    def forward(self, x, keep):
        q, k, v = (
            part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        return self.give((x + self.o(y)).masked_fill(~keep.unsqueeze(-1), 0.0))


def pruned(give=lambda y: y) -> nn.Module:
    torch.manual_seed(0)
    args = (torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool))
    graph = ew.trace(Tokens(give), args)
    return ew.prune(graph, graph.empty)


def read(path: Path) -> Any:
    """What calls an export by names, and gives a list of its outputs."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda **inputs: torch.utils._pytree.tree_leaves(module(**inputs))
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return lambda **inputs: [
        torch.as_tensor(v) for v in session.run(None, {k: v.numpy() for k, v in inputs.items()})
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_batch_and_length_are_free_and_inputs_have_their_names(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    small = pruned()
    written = ew.export(small, tmp_path / f"small.{suffix}")
    assert written.free == {"x": (0, 1), "keep": (0, 1)}
    assert written.difference <= 1e-4
    run = read(written.path)
    for batch, length in ((1, 5), (7, 5), (2, 11)):
        x, keep = torch.randn(batch, length, 8), torch.rand(batch, length) < 0.7
        torch.testing.assert_close(run(keep=keep, x=x)[0], small(x, keep), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_images_are_free(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, args = build("squeeze_excite")
    graph = ew.trace(model, args, granularity=("edge", "layer"))
    small = ew.prune(graph, graph.mask([0])).eval()
    written = ew.export(small, tmp_path / f"small.{suffix}")
    assert written.free == {"x": (0, 2, 3)}
    x = torch.randn(3, *args[0].shape[1:-1], args[0].shape[-1] + 3)
    (found,) = read(written.path)(x=x)
    torch.testing.assert_close(found, small(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_fixed_shapes_on_request(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    written = ew.export(pruned(), tmp_path / f"small.{suffix}", fixed=True)
    assert written.free == {"x": (), "keep": ()}
    x, keep = torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)
    with pytest.raises(Exception, match=r"[Ii]nvalid dimensions|Guard failed"):
        read(written.path)(x=x, keep=keep)
    read(written.path)(x=x[:2], keep=keep[:2])


def test_the_opset_is_as_wanted(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = ew.export(pruned(), tmp_path / "small.onnx", opset=21).path
    assert onnx.load(path).opset_import[0].version == 21
    with pytest.raises(EdgewiseError, match=r"in opset 18, not 9"):
        ew.export(pruned(), tmp_path / "old.onnx", opset=9)
    with pytest.raises(EdgewiseError, match="version of ONNX's operators"):
        ew.export(pruned(), tmp_path / "small.pt2", opset=18)
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


OUTPUTS = {
    "a list": (
        lambda y: [y, None, 3, 2.5, True, y.shape[1], Pair(y, y.argmax(-1))],
        [f"output_{i}" for i in (0, 2, 3, 4, 5, "6_0", "6_1")],
    ),
    "a dict": (
        lambda y: {"x": y, "more": (y + 1, {"on": y > 0}), "answer": Answer(y)},
        ["output_x", "more_0", "more_1_on", "answer_logits"],  # x is the name of an input
    ),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("give", "names"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_outputs_of_every_kind(give: Any, names: list[str], suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    small = pruned(give)
    path = ew.export(small, tmp_path / f"small.{suffix}").path
    x, keep = torch.randn(3, 6, 8), torch.ones(3, 6, dtype=torch.bool)
    expected = [v for v in leaves_of(small(x, keep)) if v is not None]
    found = [v for v in read(path)(x=x, keep=keep) if v is not None]
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(
            torch.as_tensor(b), torch.as_tensor(a), rtol=1e-4, atol=1e-5, check_dtype=False
        )
    if suffix == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        assert [entry.name for entry in session.get_outputs()] == names


def test_a_program_opens_where_the_models_classes_are_unknown(tmp_path: Path) -> None:
    path = ew.export(pruned(Answer), tmp_path / "small.pt2").path
    code = (
        "import json, sys, torch\n"
        "program = torch.export.load(sys.argv[1])\n"
        "x, keep = torch.ones(4, 3, 8), torch.ones(4, 3, dtype=torch.bool)\n"
        "found = program.module()(x=x, keep=keep)\n"
        "print(json.dumps([list(found), found['logits'].shape, sorted(program.state_dict)]))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    fields, shape, names = json.loads(done.stdout)
    assert fields == ["logits", "aux"]
    assert shape == [4, 3, 8]
    assert names == sorted(pruned().state_dict())


class Pieces(nn.Module):
    """Of lengths that four divides, it gives something else."""

    def __init__(self, other=2.0):
        super().__init__()
        self.layer, self.other = nn.Linear(8, 8), other

    def forward(self, x):
        y = self.layer(x)
        return y if x.shape[1] % 4 == 0 else self.other * y


def test_a_length_that_onnx_would_get_wrong_is_fixed_and_told(tmp_path: Path) -> None:
    """ONNX has no conditions: at a length of nine it would give what holds for eight."""
    pytest.importorskip("onnxruntime")
    x = torch.randn(2, 8, 8)
    with pytest.warns(EdgewiseWarning, match=r"x \(axis 1: 8\).*% 4 == 0") as told:
        written = ew.export(Pieces(), tmp_path / "small.onnx", x)
    assert len(told) == 1
    assert written.free == {"x": (0,)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ew.export(Pieces(other=1.0), tmp_path / "right.onnx", x, fixed=True)


def test_a_program_keeps_its_conditions_and_they_are_told(tmp_path: Path) -> None:
    with pytest.warns(EdgewiseWarning, match=r"small.pt2 refuses \(2, 9, 8\).*% 4 == 0"):
        written = ew.export(Pieces(), tmp_path / "small.pt2", torch.randn(2, 8, 8))
    assert written.free == {"x": (0, 1)}
    read(written.path)(x=torch.randn(2, 16, 8))
    with pytest.raises(AssertionError):
        read(written.path)(x=torch.randn(2, 17, 8))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.pool = nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(3)

    def forward(self, x):
        return self.pool(self.layer(x))


def test_an_operator_that_onnx_has_at_one_size_only_is_told(tmp_path: Path) -> None:
    """torch.onnx writes the windows of the example, and says nothing."""
    pytest.importorskip("onnxruntime")
    x = torch.randn(2, 2, 6, 6)
    with pytest.warns(EdgewiseWarning, match=r"x \(axis 2: 6\), x \(axis 3: 6\).* it differs"):
        assert ew.export(Pooled(), tmp_path / "small.onnx", x).free == {"x": (0,)}
    assert ew.export(Pooled(), tmp_path / "small.pt2", x).free == {"x": (0, 2, 3)}


def test_lengths_are_given_up_before_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, tried = torch.export.export, []

    def limited(*args: Any, dynamic_shapes: Any, **options: Any) -> Any:
        auto = torch.export.Dim.AUTO
        tried.append({axis for axis, how in dynamic_shapes["x"].items() if how is auto})
        if 1 in tried[-1]:
            raise RuntimeError("no length can be free")
        return right(*args, dynamic_shapes=dynamic_shapes, **options)

    monkeypatch.setattr(torch.export, "export", limited)
    with pytest.warns(EdgewiseWarning, match=r"axis 1: 5.* no length can be free"):
        assert ew.export(pruned(), tmp_path / "small.pt2").free == {"x": (0,), "keep": (0,)}
    assert tried == [{0, 1}, {0}]


class PerBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.layer(x) * float(1 / len(x))


@pytest.mark.parametrize("suffix", FORMATS)
def test_sizes_that_tracing_fixed_are_told(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    x = torch.randn(2, 6, 8)
    graph = ew.trace(PerBatch(), x, frontend="torch.export")
    assert graph.program.takes
    small = ew.prune(graph, graph.empty)
    with pytest.warns(EdgewiseWarning, match=r"x \(axis 0: 2\).*size of the batch"):
        written = ew.export(small, tmp_path / f"small.{suffix}")
    assert written.free == {"x": (1,)}
    torch.testing.assert_close(read(written.path)(x=x)[0], small(x), rtol=1e-4, atol=1e-5)


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, images, scale: float = 1.0, offset=None):
        y = sum(self.layer(image) for image in images) * scale
        return y if offset is None else y + offset


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("example", ["tuple", "dict"])
def test_any_module_with_an_example(example: str, suffix: str, tmp_path: Path) -> None:
    """Its arguments that hold no tensor become part of the file."""
    pytest.importorskip("onnxruntime")
    images = [torch.randn(2, 8), torch.randn(2, 8)]
    given = (images, 3.0) if example == "tuple" else {"scale": 3.0, "images": images}
    model = Lists()
    written = ew.export(model, tmp_path / f"model.{suffix}", example=given)
    assert written.free == {"images_0": (0,), "images_1": (0,)}
    images = [torch.randn(5, 8), torch.randn(5, 8)]
    named = {"images": images} if suffix == "pt2" else dict(zip(written.free, images, strict=True))
    (found,) = read(written.path)(**named)
    torch.testing.assert_close(found, model(images, 3.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_differs_is_an_error(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    right = draft.relative_difference
    monkeypatch.setattr(draft, "relative_difference", lambda a, b: right(a, b) + 1e-3)
    with pytest.raises(VerificationError, match=r"For the example, .* differs .* by 0\.001 "):
        ew.export(pruned(), tmp_path / f"small.{suffix}")
    assert not list(tmp_path.iterdir())


def test_exports_refuse_what_they_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"\*.onnx or \*.pt2"):
        ew.export(nn.Linear(2, 2), tmp_path / "model.pkl", (torch.randn(2, 2),))
    with pytest.raises(EdgewiseError, match="Pass example inputs"):
        ew.export(nn.Linear(2, 2), tmp_path / "model.onnx")
    with pytest.raises(EdgewiseError, match=r"model\.onnx cannot be written: .*LinAlg|linalg"):
        ew.export(Unknown(), tmp_path / "model.onnx", torch.randn(2, 3, 3), fixed=True)
    with pytest.raises(EdgewiseError, match="ONNX has no outputs of str: output_1"):
        ew.export(pruned(lambda y: (y, "text")), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class Unknown(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, x):
        return torch.linalg.eigvals(x).real
