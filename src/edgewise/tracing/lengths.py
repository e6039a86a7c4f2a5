"""`len(x)` of a traced value, which Python itself takes for a number."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn


@contextmanager
def lengths_traced(model: nn.Module) -> Iterator[None]:
    """Within, `len(x)` in the code of a model and its parts is traced as `x.shape[0]` is."""
    spaces = [getattr(type(part).forward, "__globals__", {}) for part in model.modules()]
    changed = list({id(space): space for space in spaces if "len" not in space}.values())
    for space in changed:
        space["len"] = _length
    try:
        yield
    finally:
        for space in changed:
            del space["len"]


def _length(value: Any) -> Any:
    if isinstance(value, fx.Proxy):
        return value.tracer.create_proxy("call_function", len, (value,), {})
    return value.shape[0] if isinstance(value, torch.Tensor) and value.ndim else len(value)
