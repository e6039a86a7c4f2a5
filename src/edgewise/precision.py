"""Single precision as it is written: NVIDIA's tensor cores would round factors to ten bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 within; by default convolutions of float32 use it on CUDA devices.

    Two networks that are equal to six digits may differ in the third with it.
    """
    matmul, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    name, off = "allow_tf32", cast("Any", False)
    places = [matmul, cudnn]
    with warnings.catch_warnings():  # torch asks for its newer settings, and reads the older ones
        warnings.simplefilter("ignore")
        try:
            before = [getattr(place, name) for place in places]
        except RuntimeError:  # whoever uses the newer settings cannot use the older ones
            name, off, places = "fp32_precision", "ieee", [matmul, cudnn.conv, cudnn.rnn]
            before = [getattr(place, name) for place in places]
        for place in places:
            setattr(place, name, off)
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for place, value in zip(places, before, strict=True):
                setattr(place, name, value)
