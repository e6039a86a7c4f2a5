"""A fast slice of the coverage benchmark: real architectures, random weights, exact results."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


def load(name: str) -> ModuleType:
    """A benchmark script by its file, since a package may have the same name."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


coverage, coverage_page = load("coverage"), load("coverage_page")
SUITES = coverage.SUITES

FAST = {
    "torchvision": ("shufflenet_v2_x0_5", "lraspp_mobilenet_v3_large"),
    "timm": ("test_vit_relpos",),
    "transformers": ("ViTForImageClassification",),
}


@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite, names in FAST.items() for name in names]
)
def test_pruned_is_masked_and_costs_are_exact(suite: str, name: str) -> None:
    architecture = next(a for a in SUITES[suite]() if a.name == name)
    double = suite == "transformers"
    row = coverage.measure(architecture, onnx=False, double=double, masks=2)
    assert not row["problem"]
    assert row["max_difference"] <= (1e-10 if double else 1e-5)
    assert sum(row["units"].values()) >= 6


def test_the_page_says_what_the_json_says() -> None:
    """docs/models.md is written from the committed JSON."""
    record = json.loads((BENCHMARKS / "results" / "coverage.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "models.md").read_text()
    for row in coverage_page.summary(record["rows"]):
        assert row in page
