"""Examples from parquet files, image folders, torchvision and functions."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from edgewise.cli.job.datasets import following, load_batches
from edgewise.cli.job.sections import DataSection
from edgewise.cli.job.toml_sections import Rows, Source
from edgewise.errors import ConfigError

ALL = Rows(0, None)


def section(source: object, **values: Any) -> DataSection:
    return DataSection(Source(str(source)), **values)


def png(level: int, size: tuple[int, int] = (4, 6), mode: str = "RGB") -> bytes:
    """An image of one grey level, height 4 and width 6 unless said otherwise."""
    buffer = io.BytesIO()
    color: Any = (level,) * 3 if mode == "RGB" else level
    Image.new(mode, size[::-1], color).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(folder: Path, images: list[Any], labels: list[Any], rows_a_group: int = 3) -> Path:
    path = folder / "data.parquet"
    table = pa.table({"image": images, "label": labels})
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


def test_encoded_images_become_normalised_batches(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(51 * i) for i in range(5)], list(range(5)))
    data = section(path, batch=2, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.5))
    batches = load_batches(data, Rows(1, 4))
    assert [tuple(x.shape) for x, _ in batches] == [(2, 3, 4, 6), (1, 3, 4, 6)]
    assert [y.tolist() for _, y in batches] == [[1, 2], [3]]
    assert batches[0][0].dtype == torch.float32
    expected = (torch.tensor(0.2) - 0.5) / torch.tensor([0.1, 0.2, 0.5])
    assert torch.allclose(batches[0][0][0, :, 0, 0], expected)


def test_structs_with_bytes_or_a_path(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(png(255))
    cells = [{"bytes": png(0), "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    inputs, _ = load_batches(section(parquet(tmp_path, cells, [0, 1])), ALL)[0]
    assert inputs.amax((1, 2, 3)).tolist() == [0.0, 1.0]


def test_only_the_rows_asked_for_are_decoded(tmp_path: Path) -> None:
    images = [b"broken"] * 4 + [png(0), png(0)] + [b"broken"] * 4
    path = parquet(tmp_path, images, list(range(10)), rows_a_group=4)
    assert load_batches(section(path), Rows(4, 6))[0][1].tolist() == [4, 5]
    with pytest.raises(ConfigError, match=r"data\.parquet: row 6 is no image"):
        load_batches(section(path), Rows(4, 7))


@pytest.mark.parametrize("layout", ["hwc", "chw", "hw"])
def test_nested_lists_of_whole_numbers_are_pixels(tmp_path: Path, layout: str) -> None:
    shape = {"hwc": (4, 6, 3), "chw": (3, 4, 6), "hw": (4, 6)}[layout]
    image = np.full(shape, 255, dtype=np.uint8).tolist()
    inputs, _ = load_batches(section(parquet(tmp_path, [image], [1])), ALL)[0]
    assert inputs.shape == (1, 1 if layout == "hw" else 3, 4, 6)
    assert inputs.unique().tolist() == [1.0]


def test_nested_lists_of_numbers_stay_as_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [[0.5, -3.0], [7.0, 1.0]], "y": [0.25, 0.5]})
    frame.to_parquet(tmp_path / "f.parquet")
    data = section(tmp_path / "f.parquet", image="x", label="y")
    inputs, targets = load_batches(data, ALL)[0]
    assert inputs.tolist() == [[0.5, -3.0], [7.0, 1.0]]
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.float32)


def test_lists_of_tokens_stay_whole_numbers(tmp_path: Path) -> None:
    inputs, _ = load_batches(section(parquet(tmp_path, [[300, 5]], [1])), ALL)[0]
    assert inputs.tolist() == [[300, 5]]
    assert inputs.dtype == torch.int64


def test_images_take_the_channels_of_the_mean(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(255, mode="L"), png(255)], [0, 1])
    for channels in (1, 3):
        data = section(path, mean=(0.0,) * channels, std=(1.0,) * channels)
        assert load_batches(data, ALL)[0][0].shape == (2, channels, 4, 6)


def test_grey_images_get_the_channels_that_are_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(255, mode="L"), png(9)], [0, 1])
    for channels in (1, 3):
        assert load_batches(section(path, channels=channels), ALL)[0][0].shape[1] == channels
    arrays = parquet(tmp_path, [np.full((4, 6), 9).tolist()], [0])
    assert load_batches(section(arrays, channels=3), ALL)[0][0].shape == (1, 3, 4, 6)


@pytest.mark.parametrize("takes", [nn.Sequential(nn.Conv2d(3, 2, 1)), torch.zeros(1, 3, 8, 8)])
def test_images_follow_the_model(takes: Any) -> None:
    data = section("images")
    assert following(data, takes).channels == 3
    assert following(data, nn.Linear(3, 3)).channels is None
    assert following(replace(data, channels=1), takes).channels == 1


def test_resize_and_crop_are_those_of_imagenet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 57, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path = parquet(tmp_path, [buffer.getvalue()], [0])
    for resize, crop in ((20, 16), (13, 16)):  # the second is padded, as there
        found = load_batches(section(path, resize=resize, crop=crop), ALL)[0][0][0]
        want = v2.functional.center_crop(v2.functional.resize(image, [resize]), [crop])
        want = v2.functional.to_dtype(v2.functional.pil_to_tensor(want), scale=True)
        assert torch.allclose(found, want, atol=2 / 255)


def test_the_transform_of_torchvisions_weights_by_name(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(9, mode="L", size=(300, 400))], [0])
    found = load_batches(section(path, transform="ResNet18_Weights.DEFAULT"), ALL)[0][0]
    image = Image.open(io.BytesIO(png(9, size=(300, 400))))
    wanted = models.ResNet18_Weights.DEFAULT.transforms()(image)
    assert torch.equal(found[0], wanted)
    with pytest.raises(ConfigError, match=r"no weights 'ResNet18.*'\. Did you mean 'ResNet18_We"):
        load_batches(section(path, transform="ResNet18_Weight.DEFAULT"), ALL)
    for key, value in {"resize": 8, "size": (8, 8), "mean": (0.0,)}.items():
        with pytest.raises(ValueError, match=f"transform does what {key} would"):
            section(
                path,
                transform="ResNet18_Weights.DEFAULT",
                **{key: value, "std": (1.0,) * (key == "mean")},
            )


def test_size_resizes(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(9), png(9, size=(8, 8))], [0, 1])
    inputs, _ = load_batches(section(path, size=(5, 3)), ALL)[0]
    assert inputs.shape == (2, 3, 5, 3)
    assert torch.allclose(inputs, torch.tensor(9 / 255))


def test_images_of_different_shapes_need_a_size(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(9), png(9, size=(8, 8))], [0, 1])
    with pytest.raises(
        ConfigError, match=r"differ in shape.*size = \[height, width\], or .*crop = 224"
    ):
        load_batches(section(path), ALL)


@pytest.mark.parametrize("rows", [Rows(2, 9), Rows(3, None), Rows(5, 6)])
def test_ranges_beyond_the_data_are_errors(tmp_path: Path, rows: Rows) -> None:
    path = parquet(tmp_path, [png(0)] * 3, [0, 1, 2])
    with pytest.raises(ConfigError, match=f"rows {rows} are asked for, but only [01] of them"):
        load_batches(section(path), rows)


def test_bad_parquet_files(tmp_path: Path) -> None:
    path = parquet(tmp_path, [png(0)], ["cat"])
    with pytest.raises(ConfigError, match=r"no column 'images'\. Did you mean 'image'"):
        load_batches(section(path, image="images"), ALL)
    with pytest.raises(ConfigError, match="no column 'y'"):
        load_batches(section(path, label="y"), ALL)
    with pytest.raises(ConfigError, match="label of row 0 must be a number or an array, got 'cat'"):
        load_batches(section(path), ALL)
    (tmp_path / "bad.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="not a readable parquet"):
        load_batches(section(tmp_path / "bad.parquet"), ALL)
    with pytest.raises(ConfigError, match="There is no file"):
        load_batches(section(tmp_path / "none.parquet"), ALL)
    with pytest.raises(ConfigError, match="There is no data at"):
        load_batches(section(tmp_path / "none.csv"), ALL)


def test_channels_must_be_as_many_as_the_mean_has_numbers(tmp_path: Path) -> None:
    path = parquet(tmp_path, [np.zeros((2, 5, 5)).tolist()], [0])
    data = section(path, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ConfigError, match=r"shape \(2, 5, 5\), but \[data\] mean has 3"):
        load_batches(data, ALL)


def test_a_missing_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path, [png(0)], [0])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pyarrow .*pip install 'edgewise\[data\]'"):
        load_batches(section(path), ALL)


def folder_of_images(root: Path) -> Path:
    for number, name in enumerate(["cat", "ape", "dog"]):
        (root / name).mkdir(parents=True)
        for index in range(3 - number):
            (root / name / f"{index}.png").write_bytes(png(index))
    (root / "notes.txt").write_text("no image")
    return root


def test_an_image_folder_takes_one_image_of_each_class_in_turn(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "images")
    inputs, labels = load_batches(section(root), ALL)[0]
    assert labels.tolist() == [0, 1, 2, 0, 1, 1]  # ape has 2 images, cat 3, dog 1
    levels = (inputs.amax((1, 2, 3)) * 255).round().tolist()
    assert levels == [0, 0, 0, 1, 1, 2]
    assert load_batches(section(root), Rows(2, 4))[0][1].tolist() == [2, 0]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one folder of images a class"):
        load_batches(section(tmp_path), ALL)


def test_a_folder_with_one_class_says_which_folder_is_meant(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "photos" / "animals")
    with pytest.raises(ConfigError, match=r"one class, animals.* each class: .*/animals\."):
        load_batches(section(tmp_path / "photos"), ALL)
    folder_of_images(tmp_path / "photos" / "animals" / "cat")  # deeper folders are of one class
    with pytest.raises(ConfigError, match="If it has moved"):
        load_batches(section(tmp_path / "fotos"), ALL)


def test_torchvision_sets_are_opened_without_download(tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "images")
    inputs, labels = load_batches(section(f"torchvision:ImageFolder?root={root}"), Rows(0, 3))[0]
    assert (tuple(inputs.shape), labels.tolist()) == ((3, 3, 4, 6), [0, 0, 1])
    with pytest.raises(ConfigError, match="edgewise downloads no data"):
        load_batches(section(f"torchvision:CIFAR10?root={tmp_path}&train=false"), ALL)
    with pytest.raises(ConfigError, match=r"no data set 'CIFR10'\. Did you mean 'CIFAR10'"):
        load_batches(section("torchvision:CIFR10?root=x"), ALL)


CODE = """
import torch

class Squares:
    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i == 3:
            raise RuntimeError("must not be read")
        return torch.full((2,), float(i)), i * i

def dataset():
    return Squares()

def stream():
    for i in range(10**9):
        yield torch.full((3, 2, 2), 255, dtype=torch.uint8), torch.tensor([i, i])

def singles():
    return [torch.zeros(1)]

def nothing():
    return None
"""


def test_functions_may_give_a_dataset_or_a_stream(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CODE)
    inputs, targets = load_batches(section(f"{tmp_path}/own.py:dataset"), Rows(1, 3))[0]
    assert (inputs.tolist(), targets.tolist()) == ([[1, 1], [2, 2]], [1, 4])
    inputs, targets = load_batches(section(f"{tmp_path}/own.py:stream"), Rows(5, 7))[0]
    assert (inputs.unique().tolist(), targets.tolist()) == ([1.0], [[5, 5], [6, 6]])


@pytest.mark.parametrize("name", ["singles", "nothing"])
def test_functions_that_give_no_pairs(tmp_path: Path, name: str) -> None:
    (tmp_path / "own.py").write_text(CODE)
    with pytest.raises(ConfigError, match=r"iterable of \(input, target\)"):
        load_batches(section(f"{tmp_path}/own.py:{name}"), ALL)
