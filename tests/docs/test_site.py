"""The documentation site builds offline without a warning, and every link within it leads on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import edgewise as ew

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A warning is an error (strict): broken links, anchors, unknown names in the reference."""
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert 'src="report.png"' in home
    examples = (tmp_path / "site" / "examples.html").read_text()
    files = re.findall(r'href="(examples/[^"]*)"', examples)
    assert len(files) > 4
    assert all((tmp_path / "site" / file).exists() for file in files)
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="(https?://[^"]*)"', home)
    assert not loaded, "the page loads something from elsewhere"


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    modules = {"absence", "ops", "surrogates", "errors", "importance", "latency", "__version__"}
    missing = [
        name
        for name in ew._HOMES
        if name not in modules | {"Rule"} and not re.search(rf"\.{name}$", text, re.M)
    ]
    assert not missing
