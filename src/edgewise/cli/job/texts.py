"""Text cut into sequences of tokens by the tokenizer of a checkpoint."""

from collections.abc import Iterator
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...values.files import read_text
from ...values.nested import IGNORED
from .sections import DataSection
from .sources import located, parquet_file, require
from .toml_sections import HF, TEXT

LENGTH = 128  # tokens of a sequence, where a job says nothing
Example = tuple[dict[str, Tensor], Tensor]


@lru_cache(maxsize=1)
def tokenizer_of(source: str) -> tuple[Any, int | None]:
    """The tokenizer beside a checkpoint, and how many tokens its model knows."""
    folder, gguf = located(source)
    transformers = require("transformers", "hf")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, **gguf
        )
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise ValueError("it knows no tokens")
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **gguf)
        return tokenizer, getattr(config.get_text_config(), "vocab_size", None)
    except Exception as error:
        raise ConfigError(
            f"{folder} has no tokenizer that can be used ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}). Put its files there, or name another folder in "
            "[data] tokenizer."
        ) from error


def sequences(data: DataSection) -> Iterator[Example]:
    """Sequences of tokens with the tokens that follow each, in the order of the text.

    None holds tokens of two documents: of each document the last one is shorter, and filled up;
    what fills it up is left out of losses.

    Raises:
        ConfigError: there is no text, or less than one sequence of it, or no tokenizer.
    """
    if data.tokenizer is None:
        raise ConfigError(
            "[data] of text needs a tokenizer: that of the model where [model] source is "
            'hf:FOLDER, or tokenizer = "hf:FOLDER".'
        )
    tokenizer, known = tokenizer_of(data.tokenizer)
    length, whole = data.length or LENGTH, 0
    for document in documents(data):
        ids = torch.tensor(tokenizer(document, add_special_tokens=False, verbose=False).input_ids)
        if known is not None and len(ids) and int(ids.max()) >= known:
            raise ConfigError(
                f"The tokenizer of {data.tokenizer.removeprefix(HF)} gives token {int(ids.max())}, "
                f"and the model knows {known:,}: they do not belong together."
            )
        whole += len(ids)
        for row in ids.split(length):
            if len(row) > 1:
                inputs, following = row.new_zeros(length), row.new_full((length,), IGNORED)
                inputs[: len(row)], following[: len(row) - 1] = row, row[1:]
                yield {"input_ids": inputs}, following
    if whole < length:
        raise ConfigError(
            f"{data.source} has {whole} tokens, and a sequence {length}: set [data] length to at "
            "most that, or give more text."
        )


def documents(data: DataSection) -> Iterator[str]:
    """The documents of text:FILE…: plain texts, or the rows of a text column; no empty ones."""
    paths = sorted(map(Path, glob(data.source.removeprefix(TEXT), recursive=True)))
    if not paths:
        raise ConfigError(f"There is no text {data.source.removeprefix(TEXT)}.")
    for path in paths:
        if path.suffix == ".parquet":
            file = parquet_file(path, data.text)
            found: Iterator[Any] = (
                text.as_py()
                for batch in file.iter_batches(columns=[data.text])
                for text in batch[data.text]
            )
        else:
            try:
                found = iter([read_text(path)])
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path} is no text in UTF-8: {error}") from error
        yield from (text for text in found if isinstance(text, str) and text.strip())
