"""What importing costs: nothing is loaded before it is used.

Because of that `import edgewise` adds no time to torch's; a clock is no judge on a busy machine.
"""

from __future__ import annotations

import subprocess
import sys

SHOWING = {"plotly", "matplotlib", "rich", "typer"}
STORING = {"sqlalchemy", "pandas", "pyarrow", "ray"}
LEARNING = {"sklearn", "scipy.stats", "scipy.optimize", "optuna", "pymoo"}
OTHERS = {"torchvision", "timm", "transformers", "onnx", "onnxruntime", "accelerate", "pydantic"}
MODEL = ("trace", "liveness", "cost", "masked", "prune", "heal", "Plan", "save", "load", "export")


def loaded(code: str) -> set[str]:
    """All modules that a fresh interpreter has after some code."""
    words = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def test_the_package_alone_is_nearly_nothing() -> None:
    heavy = {"torch", "numpy", "scipy", *SHOWING, *STORING, *LEARNING, *OTHERS}
    assert not loaded("import edgewise") & heavy


def test_pruning_and_loading_a_model_wait_for_no_search() -> None:
    found = loaded("import edgewise as ew\n" + "\n".join(f"ew.{name}" for name in MODEL))
    assert "torch" in found
    assert not found & (SHOWING | STORING | LEARNING | OTHERS)


def test_a_search_waits_for_no_chart() -> None:
    found = loaded("import edgewise as ew\new.Study, ew.Objective")
    assert "torch" in found
    assert not found & (
        (SHOWING | OTHERS | {"ray", "pymoo", "optuna"}) - {"rich"}
    )  # scikit-learn's


def test_a_command_line_without_a_job_waits_for_no_reader_of_jobs() -> None:
    found = loaded("import sys; sys.argv = ['edgewise', 'schema']\nimport edgewise.cli.app")
    assert "typer" in found
    assert not found & {"pydantic", "torch"}
