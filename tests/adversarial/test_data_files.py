"""Images that are broken or absurdly large, by the name of their file."""

import struct
import zlib
from pathlib import Path

import pytest

from edgewise.cli.job.datasets import load_batches
from edgewise.cli.job.sections import DataSection
from edgewise.cli.job.toml_sections import Rows, Source
from edgewise.errors import ConfigError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"\0\0") -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD = {
    "a bomb": png(60000, 60000),
    "a smaller bomb": png(10000, 10000),
    "cut off": png(8, 8)[:40],
    "no pixels": png(8, 8, b""),
    "of size 0": png(0, 0),
    "a bad chunk": png(8, 8).replace(b"IDAT", b"I\0\xffT"),
    "a bad header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"12"),
    "empty": b"",
    "text": b"no image",
    "a bad gif": b"GIF89a" + b"\xff" * 20,
    "a bad tiff": b"II*\0" + b"\xff" * 20,
    "a bad bitmap": b"BM" + b"\xff" * 60,
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_an_image_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "two.png").write_bytes(png(1, 1))
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "one.png").write_bytes(content)
    with pytest.raises(ConfigError, match=r"row 0 .*one\.png"):
        load_batches(DataSection(Source(str(tmp_path))), Rows(0, 1))


@pytest.mark.parametrize("side", [60000, 10000])
def test_a_bomb_is_refused_for_its_size(tmp_path: Path, side: int) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "two.png").write_bytes(png(1, 1))
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "one.png").write_bytes(png(side, side))
    with pytest.raises(ConfigError, match="decompression bomb"):
        load_batches(DataSection(Source(str(tmp_path))), Rows(0, 1))


def test_a_usual_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "two.png").write_bytes(png(1, 1))
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "one.png").write_bytes(png(1, 1))
    ((inputs, _),) = load_batches(DataSection(Source(str(tmp_path))), Rows(0, 1))
    assert inputs.shape == (1, 1, 1, 1)
