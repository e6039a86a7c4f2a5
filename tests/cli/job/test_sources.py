"""Models, weights, losses and metrics that a config names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgewise.cli.job.sections import ModelSection
from edgewise.cli.job.sources import (
    load_function,
    load_loss,
    load_metrics,
    load_model,
    load_weights,
    loading,
)
from edgewise.cli.job.toml_sections import Source
from edgewise.errors import ConfigError

CODE = """
from torch import nn
from sibling import WIDTH

def make(width=WIDTH):
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))

def number():
    return 3

def broken():
    raise RuntimeError("no weights here")

def mean_loss(outputs, targets):
    return (outputs - targets).abs().mean()

constant = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "sibling.py").write_text("WIDTH = 4\n")
    path = tmp_path / "net.py"
    path.write_text(CODE)
    return path


def section(source: str, **values: object) -> ModelSection:
    return ModelSection(Source(source), **values)  # type: ignore[arg-type]


def test_a_function_of_a_file_makes_the_model(file: Path) -> None:
    model = load_model(section(f"{file}:make", arguments={"width": 5}))
    assert isinstance(model, nn.Sequential)
    assert model[0].out_features == 5
    assert not model.training
    assert load_model(section(f"{file}:make"))[0].out_features == 4  # type: ignore[index]
    assert str(file.parent) not in sys.path


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_named(file: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[model\] device '{device}' cannot be used: \w+"):
        load_model(section(f"{file}:make", device=device))


def test_a_file_runs_once_and_has_a_name_that_survives_moving(file: Path) -> None:
    function = load_function(f"{file}:make")
    assert function is load_function(f"{file}:make")
    assert function.__module__ == "edgewise_file_net"


def test_two_files_of_one_name_do_not_mix(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "net.py"
    other.parent.mkdir()
    other.write_text("def make():\n    return 'other'\n")
    assert load_function(f"{file}:make") is not load_function(f"{other}:make")
    assert load_function(f"{other}:make")() == "other"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mke", "has no function 'mke'. Did you mean 'make'"),
        ("constant", "has no function 'constant'"),
        ("number", "must return an nn.Module, got int"),
        ("broken", "failed: RuntimeError: no weights here"),
    ],
)
def test_functions_that_give_no_model(file: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load_model(section(f"{file}:{name}"))


def test_weights_that_cannot_be_downloaded_may_be_given(file: Path) -> None:
    failed = "failed: URLError.*--weights"
    text = (
        file.read_text()
        + "\n\ndef away():\n    import urllib.error as e\n    raise e.URLError('x')\n"
    )
    (file.parent / "away.py").write_text(text)
    with pytest.raises(ConfigError, match=failed):
        load_model(section(f"{file.parent / 'away.py'}:away"))


def test_wrong_arguments_are_an_error(file: Path) -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'depth'"):
        load_model(section(f"{file}:make", arguments={"depth": 1}))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no file .*none\.py"):
        load_function(f"{tmp_path}/none.py:make")
    (tmp_path / "bad.py").write_text("def make(:\n")
    for _ in range(2):  # a failed file is not kept as if it had been read
        with pytest.raises(ConfigError, match="SyntaxError"):
            load_function(f"{tmp_path}/bad.py:make")


def test_torchvision_models() -> None:
    model = load_model(section("torchvision:resnet18", arguments={"num_classes": 3}))
    assert model.fc.out_features == 3
    with pytest.raises(ConfigError, match=r"no model 'resnet19'\. Did you mean"):
        load_model(section("torchvision:resnet19"))


def test_timm_models() -> None:
    pytest.importorskip("timm")
    model = load_model(section("timm:resnet10t", arguments={"num_classes": 3}))
    assert model.get_classifier().out_features == 3  # type: ignore[operator]
    with pytest.raises(ConfigError, match="timm has no model"):
        load_model(section("timm:resnet10tt"))


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_a_missing_package_says_how_to_install_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    monkeypatch.setitem(sys.modules, f"{kind}.models", None)
    with pytest.raises(ConfigError, match=rf"{kind} .*pip install 'edgewise\[vision\]'"):
        load_model(section(f"{kind}:resnet18"))


@pytest.mark.parametrize("form", ["safetensors", "plain", "nested", "parallel"])
def test_weights_are_read_from_every_form(tmp_path: Path, form: str) -> None:
    state = nn.Linear(3, 2).state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "nested":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    model = nn.Linear(3, 2)
    load_weights(model, path)
    assert torch.equal(model.weight, state["weight"])


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"Save model\.state_dict\(\)"):
        load_weights(nn.Linear(3, 2), tmp_path / "model.pt")


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights file"):
        load_weights(nn.Linear(3, 2), tmp_path / "none.safetensors")
    for name in ("bad.safetensors", "bad.pt"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ConfigError):
            load_weights(nn.Linear(3, 2), tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="must map names to tensors"):
        load_weights(nn.Linear(3, 2), tmp_path / "list.pt")


def test_mismatching_weights_list_a_few_names(tmp_path: Path) -> None:
    save_file({f"x{i}": torch.zeros(1) for i in range(6)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError) as error:
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    text = str(error.value)
    assert "2 missing: bias, weight" in text
    assert "6 unexpected: x0, x1, x2, x3, …" in text
    load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors", strict=False)


def test_shapes_must_agree_also_when_names_may_differ(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"weight \(1, 3\) instead of \(2, 3\)"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors", strict=False)


def test_the_weights_of_a_section_are_loaded(file: Path, tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    model = load_model(section(f"{file}:make", weights=tmp_path / "w.safetensors"))
    assert torch.equal(model.state_dict()["0.bias"], state["0.bias"])


def test_built_in_measures_give_one_value_a_sample() -> None:
    outputs = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    targets = torch.tensor([0, 0])
    loss = load_loss("cross_entropy")(outputs, targets)
    assert torch.allclose(loss, nn.functional.cross_entropy(outputs, targets, reduction="none"))
    assert load_loss("mse")(outputs, torch.zeros(2, 2)).tolist() == [5.0, 2.0]
    metrics = load_metrics(["accuracy", "top5"])
    assert metrics["accuracy"](outputs, targets).tolist() == [1.0, 0.0]
    assert metrics["top5"](outputs, targets).tolist() == [1.0, 1.0]


def test_top5_counts_the_five_best() -> None:
    outputs = torch.arange(8.0).repeat(2, 1)
    top5 = load_metrics(["top5"])["top5"]
    assert top5(outputs, torch.tensor([3, 2])).tolist() == [1.0, 0.0]


def test_dense_outputs_are_averaged_over_each_sample() -> None:
    outputs, targets = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    assert load_loss("cross_entropy")(outputs, targets).shape == (2,)
    assert load_metrics(["accuracy"])["accuracy"](outputs, targets).shape == (2,)


def test_measures_of_a_file(file: Path) -> None:
    loss = load_loss(f"{file}:mean_loss")
    assert loss(torch.ones(2), torch.zeros(2)).item() == 1.0
    assert list(load_metrics([f"{file}:mean_loss"])) == ["mean_loss"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            ModelSection(Source("torchvision:resnet18"), {"num_classes": 7}),
            ["from torchvision import models", "models.get_model('resnet18', num_classes=7)"],
        ),
        (ModelSection(Source("timm:vit_tiny")), ["import timm", "timm.create_model('vit_tiny')"]),
        (ModelSection(Source("/a b/net.py:make")), ["from net import make\n", "ew.load(make, "]),
    ],
)
def test_the_lines_that_load_a_model_make_it_as_the_job_does(
    section: ModelSection, words: list[str]
) -> None:
    lines = loading(section, "pruned.safetensors")
    compile(lines, "lines", "exec")
    assert all(word in lines for word in words)
    assert lines.endswith(', "plan.json", "pruned.safetensors")')
