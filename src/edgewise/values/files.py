"""Files: written whole or not at all, and read only if they are what they should be."""

import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

ENDING = ".partial"
STALE = 24 * 3600.0  # seconds after which a partial file that nobody writes to is a leftover
LARGEST = 1 << 28  # bytes of a text that is read at once
DEEPEST = 64  # levels of nesting; ours have a dozen


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there.

    Whatever happens, a power cut too, `path` is what it was or the whole of the new. A file keeps
    its permissions, a new one gets those of the umask. A symbolic link stays: what it points to is
    replaced.

    Args:
        path: the file; its folder is made if need be.
        write: is given a path to an empty file that it fills.

    Raises:
        OSError: the folder cannot be created or written to, the disk is full, or `path` is
            something else than a file. What was there is untouched.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode(target)
        _sweep(target)
        temporary = partial(target)
        try:
            _create(temporary, mode)
            made = stat.S_IMODE(temporary.stat().st_mode) if mode is None else mode
            write(temporary)
            _settle(temporary, made)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere folders cannot be opened
            _sync_folder(target.parent)
    except (SafetensorError, RuntimeError) as error:  # how safetensors and torch tell a full disk
        raise OSError(f"{error} ({path})") from error
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with newlines as they are, the whole of it or nothing.

    Raises:
        OSError: as `write_atomically`.
    """
    write_atomically(path, lambda to: to.write_text(text, encoding="utf-8", newline="\n"))


def partial(path: Path) -> Path:
    """A new name beside `path` for what becomes it once it is whole."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{ENDING}")


def read_bytes(path: Path) -> bytes:
    """The contents of a regular file, of which the size is asked first.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a device, a pipe or a folder, or larger than `LARGEST`.
    """
    with _regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST:
            raise ValueError(f"it has {size:,} bytes, more than the {LARGEST:,} allowed")
        return file.read(LARGEST)


def sha256(path: Path) -> str:
    """The SHA-256 of a regular file, read in blocks; ValueError and OSError as `read_bytes`."""
    with _regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_regular(path: Path) -> None:
    """Require a regular file; ValueError and OSError as `read_bytes`."""
    _regular(path).close()


def _regular(path: Path) -> BufferedReader:
    """An open file that is one: a pipe would wait for a writer, a device never ends."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb")
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return file
    file.close()
    raise ValueError("it is no regular file")


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8; ValueError and OSError as `read_bytes`."""
    return read_bytes(path).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, no JSON in UTF-8, too deep, or names a key twice.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON, nested too deeply, or names a key twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [found]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _members(value)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return found


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {twice!r} twice")
    return found


def _mode(target: Path) -> int | None:
    """The permissions of the file that is there, None if there is none."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{target} is no regular file, and is not replaced")
    return stat.S_IMODE(found.st_mode)


def _create(path: Path, mode: int | None) -> None:
    """An empty file that nobody may read who may not read the one it becomes."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(path, flags, 0o666 if mode is None else mode | stat.S_IWUSR))


def _settle(path: Path, mode: int) -> None:
    """Give a file its permissions, and have it on the disk."""
    with path.open("r+b") as file:
        path.chmod(mode)
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems know no sync of a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove what writers of this file left that were killed."""
    begin, end = f".{target.name[:100]}.", ENDING
    for entry in os.scandir(target.parent):
        if entry.name.startswith(begin) and entry.name.endswith(end):
            with suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)
