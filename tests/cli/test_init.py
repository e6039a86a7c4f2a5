"""What `edgewise init` makes of a model, its weights and a folder of images."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from torchvision import models
from typer.testing import CliRunner

from edgewise.cli import app, init
from edgewise.cli.job.config import read_config
from edgewise.cli.job.sources import load_function

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    '''Whether images are brighter than those of ImageNet.'''

    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, num_classes, bias=False)
        for conv in (self.stem, self.conv1, self.conv2):
            nn.init.constant_(conv.weight, 0.05)
        nn.init.constant_(self.head.weight, 0.0)
        self.head.weight.data[:2] = torch.tensor([[-50.0], [50.0]])

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + 0.01 * self.conv2(self.norm(self.conv1(x)).relu())).mean((2, 3)))
"""


def write_images(folder: Path, count: int, sides: tuple[int, ...] = (8,), mode: str = "L") -> Path:
    for name, level in (("1dark", 95), ("2bright", 135)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            side = sides[i % len(sides)]
            Image.fromarray(np.full((side, side + 2), level + i % 3, np.uint8)).convert(mode).save(
                folder / name / f"{i:03}.png"
            )
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, weights for two classes, and grey images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(CODE)
    torch.save(load_function("net.py:Net")(num_classes=2).state_dict(), tmp_path / "own.pt")
    write_images(tmp_path / "photos", 50)
    return tmp_path


def call(*words: object) -> Any:
    return CliRunner().invoke(app.app, [str(word) for word in words])


def said(result: Any) -> str:
    return " ".join(result.output.split())


@pytest.mark.filterwarnings("ignore:None of 3 epochs")
def test_a_job_is_guessed_and_runs(own: Path) -> None:
    result = call("init", "net.py:Net", "photos", "--weights", "own.pt")
    assert result.exit_code == 0, result.output
    assert "Classes: 2, as in own.pt" in said(result)
    assert "3 × 8 × 10, normalised as ImageNet: 100% of 100 are classified right" in said(result)
    assert "from 0 to 1 50%" in said(result)
    assert "Next: edgewise run job.toml" in said(result)
    text = (own / "job.toml").read_text()
    found = tomllib.loads(text)
    assert found["model"] == {
        "source": "net.py:Net", "arguments": {"num_classes": 2}, "weights": "own.pt"
    }  # fmt: skip
    assert found["data"]["source"] == "photos"
    assert found["data"]["mean"] == [0.485, 0.456, 0.406]
    assert [found["data"][s] for s in init.MOST] == ["0:20", "20:40", "40:60"]
    assert found["objective"]["recovery"] == "batchnorm"
    assert found["calibration"]["rows"] == found["heal"]["rows"] == "60:100"
    assert found["units"]["granularity"] == ["branch", "layer", "hidden"]
    assert "# expected = 0.9" in text
    shown = call("inspect", "job.toml")
    assert shown.exit_code == 0, shown.output
    assert "hidden" in shown.stdout
    done = call("run", "job.toml", "--evaluations", 6, "--budget", "macs=0.95")
    assert done.exit_code == 0, done.output
    assert (own / "job-pruned" / "healed.safetensors").exists()


def test_a_folder_of_train_and_val_is_split_by_them(own: Path) -> None:
    for name, count in (("train", 40), ("val", 30)):
        write_images(own / "both" / name, count)
    result = call("init", "net.py:Net", "both", "--weights", "own.pt", "--output", "other.toml")
    assert "Calibrated and healed on 80 images of train" in said(result)
    job = read_config("other.toml")
    assert job.data.source == str(own / "both" / "val")
    assert job.heal is not None
    assert job.heal.source == job.calibration_data.source == str(own / "both" / "train")
    assert str(job.data.report) == "40:60"


def test_images_of_mixed_sizes_are_cut(own: Path) -> None:
    write_images(own / "mixed", 20, sides=(40, 70))
    call("init", "net.py:Net", "mixed", "--weights", "own.pt")
    job = read_config("job.toml")
    assert (job.data.resize, job.data.crop) == (32, 32)


def test_weights_of_a_library_bring_its_transform(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "load_model", lambda section: models.resnet18().eval())
    monkeypatch.setattr(init, "SHOWN", (2, 2))
    result = call("init", "torchvision:resnet18", "photos")
    assert result.exit_code == 0, result.output
    assert "is near chance" in said(result)
    job = read_config("job.toml")
    assert job.model.arguments == {"weights": "DEFAULT"}
    assert job.data.transform == "ResNet18_Weights.IMAGENET1K_V1"
    assert job.data.mean == ()


def test_a_model_of_timm_brings_its_normalisation(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = timm.create_model("resnet10t").eval()
    monkeypatch.setattr(init, "load_model", lambda section: model)
    monkeypatch.setattr(init, "SHOWN", (2, 2))
    result = call("init", "timm:resnet10t", "photos")
    assert result.exit_code == 0, result.output
    job = read_config("job.toml")
    assert job.model.arguments == {"pretrained": True}
    assert (job.data.crop, job.data.mean) == (176, tuple(model.pretrained_cfg["mean"]))


def test_columns_of_a_parquet_file_are_found(own: Path) -> None:
    images = [path.read_bytes() for path in sorted(Path("photos").rglob("*.png"))]
    labels = [int(i >= 50) for i in range(100)]
    table = pa.table({"img": images, "name": ["x"] * 100, "fine_label": labels})
    pq.write_table(table.take(np.random.default_rng(0).permutation(100)), "photos.parquet")
    result = call("init", "net.py:Net", "photos.parquet", "--weights", "own.pt")
    assert result.exit_code == 0, result.output
    job = read_config("job.toml")
    assert (job.data.image, job.data.label) == ("img", "fine_label")
    assert "100% of 100 are classified right" in said(result)


def test_what_cannot_be_guessed_says_why(own: Path) -> None:
    words = ("init", "net.py:Net", "photos", "--weights", "own.pt")
    assert call(*words).exit_code == 0
    again = call(*words)
    assert (again.exit_code, "job.toml is there already" in said(again)) == (2, True)
    (own / "photos").rename(own / "moved")
    for wrong in (call("run", "job.toml"), call(*words, "--output", "new.toml")):
        assert wrong.exit_code == 2
        assert "There is no data at" in said(wrong)
        assert "If it has moved" in said(wrong)
    one = call("init", "net.py:Net", "moved/1dark/..", "--output", "new.toml")
    assert "There is no weights" not in said(one)
    (own / "single").mkdir()
    (own / "moved" / "1dark").rename(own / "single" / "1dark")
    one = call("init", "net.py:Net", "single", "--output", "one.toml")
    assert (one.exit_code, "holds one class, 1dark" in said(one)) == (2, True)
    one = call("init", "net.py:Net", "single/1dark", "--output", "one.toml")
    assert (one.exit_code, "found 50 images, and no folder" in said(one)) == (2, True)
    write_images(own / "more", 2)
    (own / "moved" / "2bright").rename(own / "more" / "3brighter")
    three = call("init", "net.py:Net", "more", "--weights", "own.pt", "--output", "three.toml")
    assert (three.exit_code, "2 classes apart, and" in said(three)) == (2, True)
    assert "at least 3" in said(three)


def test_weights_of_other_classes_name_the_argument(own: Path) -> None:
    text = '[model]\nsource = "net.py:Net"\nweights = "own.pt"\n[data]\nsource = "photos"\n'
    (own / "job.toml").write_text(text + "[budget]\nmacs = 0.9\n")
    result = call("run", "job.toml")
    assert result.exit_code == 2
    assert "They are of 2 classes: arguments = { num_classes = 2 }" in said(result)


@pytest.mark.parametrize("path", ["C:\\photos\\new", 'a "name"', "tab\tname"])
def test_any_path_is_valid_toml(path: str, tmp_path: Path) -> None:
    assert tomllib.loads(f"x = {init._toml(path, tmp_path)}") == {"x": path}


def test_backslashes_in_a_job_say_how_paths_are_written(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('[data]\nsource = "C:\\photos"\n')
    result = call("run", tmp_path / "job.toml")
    assert (result.exit_code, "in single quotes" in said(result)) == (2, True)


def test_help_has_an_example_of_every_command() -> None:
    for words in (["init"], ["run"], ["inspect"], ["report"], ["prune"], ["heal"], ["bench"],
                  ["demo"], ["study", "list"], ["study", "export"]):  # fmt: skip
        result = call(*words, "-h")
        assert result.exit_code == 0
        assert f"Example: edgewise {' '.join(words)}" in said(result)
