"""The machine that a benchmark ran on, for its JSON."""

import os
import platform
from typing import Any

import torch

import edgewise


def describe() -> dict[str, Any]:
    """Processor, cores, threads and versions."""
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
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "edgewise": edgewise.__version__,
    }
