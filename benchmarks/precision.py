"""Whether a pruned model may be put into another precision: bfloat16 beside float32.

Each network (random weights, small inputs) is traced and pruned in float32 by a random valid mask.
The pruned model is then converted with .to(torch.bfloat16), and run once more in float32 under
torch.autocast. Its loss is the mean square of all outputs of floating point. The masked model (the
reference at full size) and the unpruned one, converted in the same way, tell how much of a
difference is bfloat16's own: outputs of random weights can be near zero.

    python benchmarks/precision.py --out benchmarks/results/precision.json
    python benchmarks/precision.py --only resnet18 LlamaForCausalLM
"""

import argparse
import copy
import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import edgewise as ew
from architectures import SUITES, Architecture
from coverage import short
from edgewise.testing import laws
from edgewise.values.nested import leaves_of
from machine import describe

CNNS = (
    "alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1",
    "vgg11_bn",
)  # fmt: skip
DTYPE = torch.bfloat16


def networks() -> list[Architecture]:
    """Twelve of torchvision and all of transformers."""
    vision = [a for a in SUITES["torchvision"]() if a.name in CNNS]
    return vision + SUITES["transformers"]()


def converted(value: Any) -> Any:
    """Inputs, those of floating point in bfloat16."""

    def convert(leaf: torch.Tensor) -> torch.Tensor:
        return leaf.to(DTYPE) if leaf.is_floating_point() else leaf

    return pytree.tree_map_only(torch.Tensor, convert, value)


@torch.no_grad()
def loss(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """The mean square of all outputs of floating point."""
    leaves = leaves_of(model(*args, **kwargs))
    outputs = [y.double() for y in leaves if isinstance(y, torch.Tensor) and y.is_floating_point()]
    return float(torch.cat([y.flatten() for y in outputs]).square().mean())


def losses(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, float]:
    """The loss of a model in float32, under autocast, and in bfloat16."""
    found = {"float32": loss(model, args, kwargs)}
    with torch.autocast("cpu", DTYPE):
        found["autocast"] = loss(model, args, kwargs)
    half = copy.deepcopy(model).to(DTYPE)
    found["bfloat16"] = loss(half, converted(args), converted(kwargs))
    return found


def measure(architecture: Architecture) -> dict[str, Any]:
    """One row: losses of the pruned model and of the unpruned one."""
    torch.manual_seed(0)
    model, args, kwargs = architecture.build()
    graph = ew.trace(model.eval(), args, kwargs)
    mask = laws.random_mask(graph, random.Random(0))
    small, full = ew.prune(graph, mask).eval(), ew.masked(graph, mask).eval()
    found: dict[str, Any] = {"frontend": graph.frontend}
    for name, module in (("pruned", small), ("masked", full), ("unpruned", model)):
        own = losses(module, args, kwargs)
        change = {k: abs(own[k] / own["float32"] - 1) for k in ("autocast", "bfloat16")}
        found[name] = {"losses": own, "changes": change}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for architecture in networks():
        if options.only and architecture.name not in options.only:
            continue
        row = {"suite": architecture.suite, "name": architecture.name}
        try:
            row |= measure(architecture)
        except Exception as error:
            row["problem"] = f"{type(error).__name__}: {short(str(error))}"
        rows.append(row)
        print(json.dumps(row), flush=True)
        if options.out:
            record = {"machine": describe(), "dtype": "bfloat16", "rows": rows}
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
