"""Single precision as it is written: NVIDIA's tensor cores would round factors to ten bits."""

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
    with warnings.catch_warnings():  # torch asks for its newer settings where it reads older ones
        warnings.simplefilter("ignore")
        places = _settings()
        before = [getattr(place, name) for place, name, _ in places]
        for place, name, off in places:
            setattr(place, name, off)
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for (place, name, _), value in zip(places, before, strict=True):
                setattr(place, name, value)


def _settings() -> list[tuple[Any, str, Any]]:
    """(where, what, its value without TF32), as this version of torch and its user have them.

    Since 2.9 torch has newer settings, and refuses to read an older one that contradicts them. What
    reads the older ones of cuDNN, as `torch.export` does, must find them in agreement.
    """
    matmul, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    if not hasattr(matmul, "fp32_precision"):
        return [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    products, parts = (matmul, "fp32_precision", "ieee"), (cudnn.conv, cudnn.rnn)
    try:
        agree = (
            cudnn.allow_tf32 is not None
            and getattr(torch.backends, "fp32_precision", "none") == "none"
        )
    except RuntimeError:
        agree = False
    if agree:
        return [products, (cudnn, "allow_tf32", False)]
    return [products, *((part, "fp32_precision", "ieee") for part in parts)]
