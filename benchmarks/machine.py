"""The machine that a benchmark ran on, for its JSON."""

import os
import platform
from typing import Any

import torch

import edgewise


def accelerator(device: str) -> str:
    """What an accelerator calls itself."""
    return str(torch.get_device_module(device).get_device_name(device))


def describe(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads and versions, and the accelerator where one is used."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass
    return {
        "processor": model,
        "cores": os.cpu_count(),
        **({} if device == "cpu" else {"accelerator": accelerator(device)}),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "edgewise": edgewise.__version__,
    }
