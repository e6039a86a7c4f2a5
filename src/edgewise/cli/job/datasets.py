"""Labelled examples from a parquet file, an image folder, torchvision or a user's function."""

import inspect
import io
import itertools
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from ...errors import ConfigError
from ...values.nested import leaves_of
from ...values.spelling import close, nearest
from .sections import DataSection
from .sources import load_function, parquet_file, require
from .texts import sequences
from .toml_sections import TEXT, Rows

Batch = tuple[Any, Tensor]
Example = tuple[Any, Any]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
CHANNELS = (1, 3)
NOWHERE = (
    "There is no data at {}. If it has moved, say where to in [data] source: a .parquet file, a "
    "folder of class folders, torchvision:NAME?root=… or FILE.py:FUNCTION."
)


def load_batches(data: DataSection, rows: Rows) -> list[Batch]:
    """The examples of a row range as batches; no other row is decoded.

    Images (encoded, PIL, or arrays of integers with two dimensions or more) become float32
    [channels, height, width] in 0–1; other values stay as they are. `size` resizes, or `resize`
    and `crop` as in evaluations on ImageNet; `mean` and `std` normalise per channel; `transform`
    does all of it as torchvision did for weights of its own.

    Returns:
        (inputs [n, ...], targets [n, ...]) with n = `data.batch`, the last batch may be smaller.

    Raises:
        ConfigError: the source cannot be read, or has fewer rows than the range asks for.
    """
    examples = [
        (_input(x, data, row), _target(y, data, row))
        for row, (x, y) in enumerate(_examples(data, rows), rows.start)
    ]
    wanted = (rows.stop or rows.start + 1) - rows.start
    if len(examples) < wanted:
        raise ConfigError(
            f"{data.source}: rows {rows} are asked for, but only {len(examples)} of them exist. "
            "Change the row ranges in the config."
        )
    groups = (examples[i : i + data.batch] for i in range(0, len(examples), data.batch))
    return [_stack(group, data) for group in groups]


def following(data: DataSection, takes: Any) -> DataSection:
    """The data with the channels of the model's first convolution, or of its example input."""
    if isinstance(takes, Tensor):
        channels = takes.shape[1] if takes.ndim == 4 else None
    else:
        parts = takes.modules() if isinstance(takes, nn.Module) else ()
        channels = next((m.in_channels for m in parts if isinstance(m, nn.Conv2d)), None)
    known = channels not in CHANNELS or data.channels or data.mean or data.transform
    return data if known else replace(data, channels=channels)


def _examples(data: DataSection, rows: Rows) -> Iterator[Example]:
    source = data.source
    if source.startswith(TEXT):
        yield from itertools.islice(sequences(data), rows.start, rows.stop)
    elif ".py:" in source:
        yield from _from_function(source, rows)
    elif source.startswith("torchvision:"):
        yield from _items(_torchvision(source), rows)
    elif Path(source).is_dir():
        yield from _from_folder(Path(source), rows)
    elif Path(source).suffix == ".parquet":
        yield from _from_parquet(Path(source), data, rows)
    else:
        raise ConfigError(NOWHERE.format(source))


def _from_function(source: str, rows: Rows) -> Iterator[Example]:
    try:
        found = load_function(source)()
        items = (
            _items(found, rows)
            if _is_dataset(found)
            else itertools.islice(found, rows.start, rows.stop)
        )
        for item in items:
            x, y = item
            yield x, y
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{source} must return a Dataset or an iterable of (input, target): "
            f"{type(error).__name__}: {error}"
        ) from error


def _is_dataset(value: Any) -> bool:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


def _items(dataset: Any, rows: Rows) -> Iterator[Example]:
    last = len(dataset) if rows.stop is None else min(rows.stop, len(dataset))
    return (dataset[i] for i in range(rows.start, last))


def rows_of(source: str | DataSection) -> int:
    """How many examples a source has; of those that only reading tells, at most 10 000.

    Raises:
        ConfigError: it cannot be opened.
    """
    if isinstance(source, DataSection):
        if source.source.startswith(TEXT):
            return sum(1 for _ in sequences(source))
        source = source.source
    if Path(source).is_dir():
        return sum(1 for _ in images_in(Path(source)))
    if source.endswith(".parquet"):
        return int(parquet_file(Path(source)).metadata.num_rows)
    if ".py:" not in source and not source.startswith("torchvision:"):
        raise ConfigError(NOWHERE.format(source))
    found = load_function(source)() if ".py:" in source else _torchvision(source)
    return len(found) if _is_dataset(found) else sum(1 for _ in itertools.islice(found, 10_000))


def _torchvision(source: str) -> Any:
    """The data set of torchvision:NAME?root=…&key=value, which must be on disk already."""
    name, _, query = source.removeprefix("torchvision:").partition("?")
    sets = require("torchvision.datasets", "vision")
    if name not in sets.__all__:
        raise ConfigError(f"torchvision has no data set {name!r}.{nearest(name, sets.__all__)}")
    make, arguments = getattr(sets, name), {k: _literal(v) for k, v in parse_qsl(query)}
    if "download" in inspect.signature(make).parameters:
        arguments["download"] = False
    try:
        return make(**arguments)
    except Exception as error:
        raise ConfigError(
            f"{source} cannot be opened (edgewise downloads no data): "
            f"{type(error).__name__}: {error}"
        ) from error


def _literal(text: str) -> str | bool | int:
    words: Mapping[str, bool] = {"true": True, "false": False}
    return words.get(text.lower(), int(text) if text.isdigit() else text)


def _from_folder(folder: Path, rows: Rows) -> Iterator[Example]:
    """Rows take one image of each class in turn, so that every range holds all classes."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(images_in(path)) for path in classes]
    if not any(files):
        loose = sum(1 for _ in images_in(folder))
        raise ConfigError(
            f"{folder} must hold one folder of images a class; found {loose or 'no'} image"
            f"{'s, and no folder' if loose else ''}."
        )
    if len(classes) == 1:
        raise ConfigError(
            f"{folder} holds one class, {classes[0].name}: there is nothing to tell apart. [data] "
            "source is the folder that holds a folder for each class"
            f"{f': {classes[0]}' if any(p.is_dir() for p in classes[0].iterdir()) else ''}."
        )
    turns = itertools.zip_longest(*([(p, label) for p in f] for label, f in enumerate(files)))
    pairs = (pair for turn in turns for pair in turn if pair is not None)
    return itertools.islice(pairs, rows.start, rows.stop)


def images_in(folder: Path) -> Iterator[Path]:
    """The images of a folder, those of folders in it too."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)


def _from_parquet(path: Path, data: DataSection, rows: Rows) -> Iterator[Example]:
    file = parquet_file(path, data.image, data.label)
    number = _number_type(file.schema_arrow.field(data.image).type)
    for table in _overlapping(file, [data.image, data.label], rows):
        for image, label in zip(table[data.image], table[data.label], strict=True):
            yield _cell(image.as_py(), number, path.parent), label.as_py()


def _overlapping(file: Any, columns: list[str], rows: Rows) -> Iterator[Any]:
    """The parts of the row groups that lie within a range; other groups are not read."""
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        start = max(rows.start - first, 0)
        stop = count if rows.stop is None else min(rows.stop - first, count)
        if start < stop:
            yield file.read_row_group(group, columns=columns).slice(start, stop - start)
        first += count


def _number_type(column: Any) -> Any:
    """The NumPy type at the bottom of nested lists, None where there is none."""
    while getattr(column, "value_type", None) is not None:
        column = column.value_type
    try:
        return column.to_pandas_dtype()
    except NotImplementedError:
        return None


def _cell(value: Any, number: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return value["bytes"] if value.get("bytes") else folder / str(value.get("path"))
    return np.array(value, dtype=number) if isinstance(value, list) else value


def _input(value: Any, data: DataSection, row: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _input(part, data, row) for name, part in value.items()}
    try:
        if data.transform is not None:
            return _transformed(value, data.transform)
        tensor = _tensor(value, data.channels or len(data.mean))
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, SyntaxError, struct.error) as error:
        name = f" ({value})" if isinstance(value, Path) else ""  # broken PNGs are SyntaxErrors
        raise ConfigError(
            f"{data.source}: row {row}{name} is no image or array: {error}"
        ) from error
    if data.size or data.resize or data.crop:
        tensor = _fitted(tensor, data)
    if data.mean:
        if not tensor.ndim or tensor.shape[0] != len(data.mean):
            raise ConfigError(
                f"{data.source}: row {row} has shape {tuple(tensor.shape)}, but [data] mean has "
                f"{len(data.mean)} numbers, one a channel."
            )
        shape = (-1, *[1] * (tensor.ndim - 1))
        tensor = (tensor - torch.tensor(data.mean).view(shape)) / torch.tensor(data.std).view(shape)
    return tensor


def _fitted(image: Tensor, data: DataSection) -> Tensor:
    """[channels, height, width] resized, the whole or its shorter side; its centre cut out."""
    size: Any = data.size
    if data.resize:
        size = [data.resize * side // min(image.shape[-2:]) for side in image.shape[-2:]]
    if size:
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    if data.crop:
        for axis, side in enumerate(image.shape[-2:]):
            half = (side - data.crop) / 2
            before = round(half) if half > 0 else int(half)  # as torchvision does
            edges = [-before, before + data.crop - side]  # negative padding cuts
            image = F.pad(image, [0, 0, *edges] if axis == 0 else edges)
    return image


@lru_cache
def preset(name: str) -> Any:
    """What torchvision did to images for weights of its own, such as ResNet18_Weights.DEFAULT.

    Raises:
        ConfigError: it has no such weights, or is not installed.
    """
    models = require("torchvision.models", "vision")
    try:
        return models.get_weight(name).transforms()
    except (ValueError, KeyError, AttributeError) as error:
        known = [str(w) for m in models.list_models() for w in models.get_model_weights(m)]
        raise ConfigError(
            f"[data] transform: torchvision has no weights {name!r}.{close(name, known)}"
        ) from error


def _transformed(value: Any, name: str) -> Tensor:
    encoded = isinstance(value, bytes | Path)
    image = _opened(value) if encoded else value
    image = image.convert("RGB") if hasattr(image, "convert") else _tensor(image, 3)
    found: Tensor = preset(name)(image)
    return found


def _tensor(value: Any, channels: int) -> Tensor:
    if isinstance(value, bytes | Path) or hasattr(value, "convert"):
        value = _pixels(value, channels)
    if isinstance(value, Tensor):
        tensor, pixels = value, value.dtype == torch.uint8
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"it holds {array.dtype}")
        pixels = array.dtype.kind in "iu" and array.ndim > 1
        tensor = torch.tensor(_channels_first(array) if pixels else array)
    if not pixels:
        return _single(tensor)
    grey = tensor.ndim == 3 and len(tensor) == 1 and channels in CHANNELS
    return (tensor.expand(channels, -1, -1) if grey else tensor).float() / 255


def _channels_first(array: Any) -> Any:
    """[height, width(, channels)] as [channels, height, width]; everything else as it is."""
    if array.ndim == 2:
        return array[None]
    last = array.ndim == 3 and array.shape[2] in CHANNELS and array.shape[0] not in CHANNELS
    return array.transpose(2, 0, 1) if last else array


def _pixels(value: Any, channels: int) -> Any:
    """An encoded, stored or PIL image as integers [channels, height, width]."""
    if isinstance(value, bytes | Path):
        value = _opened(value)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, "L" if value.mode in "1L" else "RGB")
    return np.atleast_3d(np.asarray(value.convert(mode))).transpose(2, 0, 1)


def _opened(value: bytes | Path) -> Image.Image:
    """An encoded image, not yet decoded; ValueError if it would take an absurd amount of memory."""
    with warnings.catch_warnings():  # the warning comes at half of what is refused outright
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(value) if isinstance(value, bytes) else value)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{error} If it is a photograph of yours, make a smaller copy of it."
            ) from error


def _single(tensor: Tensor) -> Tensor:
    """Floating-point numbers as float32, whole numbers as int64."""
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _target(value: Any, data: DataSection, row: int) -> Tensor:
    try:
        return _single(torch.as_tensor(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{data.source}: the label of row {row} must be a number or an array, got {value!r}."
        ) from error


def _stack(examples: Iterable[tuple[Any, Tensor]], data: DataSection) -> Batch:
    inputs, targets = zip(*examples, strict=True)
    try:
        return default_collate(list(inputs)), torch.stack(targets)
    except RuntimeError as error:
        shapes = sorted({tuple(leaf.shape) for leaf in leaves_of(inputs)})
        raise ConfigError(
            f"{data.source}: examples differ in shape ({', '.join(map(str, shapes[:3]))}). "
            "Set [data] size = [height, width], or resize and crop: resize = 256, crop = 224 are "
            "what networks for ImageNet take."
        ) from error
