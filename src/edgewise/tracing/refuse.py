"""Models and inputs that cannot be traced, each refused with the place and a way out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import TraceError
from ..values.nested import batch_size, holds_tensor, leaves_of, named_tensors


def refuse(model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise TraceError for what no front end could trace or no rewrite could cut.

    That is: no module, a wrapper of a module, compiled or quantised modules, weights that are not
    there yet, and example inputs that are sparse, hold no data or lie on another device.
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"ew.trace takes an nn.Module, got {type(model).__name__}.")
    if not isinstance(args, torch.Tensor | list | tuple):
        raise TraceError(
            f"Example inputs are a tensor or a tuple, got {type(args).__name__}. Inputs by name go "
            "into `kwargs`: ew.trace(model, (), {...})."
        )
    for name, module in model.named_modules():
        _refuse_module(f"Module {name!r}" if name else "The model", module)
    for name, tensor in named_tensors(model).items():
        _refuse_weight(name, tensor)
    _refuse_inputs(model, pytree.tree_leaves((args, dict(kwargs))))
    if not holds_tensor((args, dict(kwargs))):
        raise TraceError("The example inputs hold no tensor. Pass e.g. `ew.trace(model, (x,))`.")


def refuse_outputs(model: nn.Module, outputs: Any) -> None:
    """Raise TraceError for outputs that no program can give: caches, and sparse tensors."""
    for leaf in leaves_of(outputs):
        kind = type(leaf).__name__
        if kind.endswith("Cache") and not isinstance(leaf, torch.Tensor):
            raise TraceError(
                f"{type(model).__name__} returns a {kind}, which it keeps for the next token. "
                "Trace it without one: ew.trace(..., kwargs={..., 'use_cache': False}), or set "
                "model.config.use_cache = False first."
            )
        if isinstance(leaf, torch.Tensor) and leaf.layout is not torch.strided:
            raise TraceError(f"An output of {type(model).__name__} is sparse ({leaf.layout}).")


def _refuse_module(where: str, module: nn.Module) -> None:
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise TraceError(
            f"{where} is a compiled module (TorchScript), which cannot be traced or rewritten. "
            "Pass the original nn.Module."
        )
    if kind.__name__ == "OptimizedModule":  # what torch.compile returns
        raise TraceError(
            f"{where} is a compiled module (OptimizedModule), which cannot be traced or rewritten. "
            "Pass the original nn.Module; what ew.prune returns can be compiled."
        )
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise TraceError(f"{where} is a {kind.__name__} wrapper. Pass its `.module` instead.")
    if any(base.__name__ == "FakeQuantizeBase" for base in kind.__mro__):
        raise TraceError(
            f"{where} is a {kind.__name__}: the model is prepared for quantisation-aware training, "
            "and rounds by statistics that every call changes. Prune the model before that, and "
            "prepare what ew.prune returns."
        )
    if ".quantized" in kind.__module__ or "bitsandbytes" in kind.__module__:
        raise TraceError(
            f"{where} is quantised ({kind.__module__}.{kind.__name__}), so that its weights cannot "
            "be cut. Prune the model in floating point and quantise the result."
        )


def _refuse_weight(name: str, tensor: torch.Tensor) -> None:
    if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        raise TraceError(
            f"Parameter {name!r} is not initialised yet (a lazy module). Run the model once on "
            "real input, then trace it."
        )
    if tensor.is_meta:
        raise TraceError(f"Parameter {name!r} is on the meta device. Load the weights first.")
    if tensor.is_quantized:
        raise TraceError(
            f"Parameter {name!r} is quantised. Prune in floating point and quantise the result."
        )
    if tensor.layout is not torch.strided:
        raise TraceError(
            f"Parameter {name!r} is sparse ({tensor.layout}). Make it dense with .to_dense(): "
            "edgewise removes whole structures, which need no sparse format."
        )


def _refuse_inputs(model: nn.Module, leaves: list[Any]) -> None:
    if any(isinstance(v, torch.Tensor) for v in leaves) and not batch_size(leaves):
        raise TraceError(
            "The example has no examples: dimension 0 of its first tensor is empty. Pass at least "
            "one, and better two."
        )
    devices = {p.device for p in model.parameters()} | {b.device for b in model.buffers()}
    for value in leaves:
        if not isinstance(value, torch.Tensor):
            continue
        if value.layout is not torch.strided:
            raise TraceError(
                f"An example input is sparse ({value.layout}). Pass a dense one, .to_dense()."
            )
        if value.is_meta:
            raise TraceError("An example input is on the meta device: it has no values to run on.")
        if devices and value.device not in devices:
            raise TraceError(
                f"An example input is on {value.device}, the model on "
                f"{', '.join(sorted(map(str, devices)))}. Move one of them with .to(device)."
            )
