"""The package works with nothing but what it requires, and its wheel holds what it should."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgewise.values.version import __version__

ROOT = Path(__file__).parent.parent
OPTIONAL = (
    "pandas pyarrow PIL torchvision timm onnx onnxscript onnxruntime torchmetrics ray transformers "
    "matplotlib accelerate psycopg torch_pruning"
)
ALONE = f"""
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import torch
from torch import nn
import edgewise as ew

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
    def forward(self, x):
        return x + self.inner(x).relu()

model, x = nn.Sequential(Block(), Block()), torch.randn(8, 4)
graph = ew.trace(model, x, granularity="edge")
objective = ew.Objective([(x, x)], lambda y, t: (y - t).square().mean(1))
study = ew.Study(graph, objective)
study.run(6, ew.Budget(macs=0.5))
small = ew.prune(graph, study.plan())
print(sum(p.numel() for p in small.parameters()))
"""


def test_no_extra_is_needed() -> None:
    """Trace, search, plan and prune, in a process where no optional package can be imported."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40  # of two layers of 4 × 4 with biases, one is too many


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """Built by the backend that is installed: nothing is downloaded."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, env=os.environ)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"edgewise-{__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [n for n in names if n.endswith("/METADATA")]
        assert f"\nVersion: {__version__}\n" in archive.read(metadata).decode()
    package = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "edgewise").rglob("*")
        if path.suffix in (".py", ".js", ".css", ".typed")
    }
    assert {n for n in names if ".dist-info/" not in n} == package
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)
