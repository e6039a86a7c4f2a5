"""The documentation site builds offline without a warning, and every link within it leads on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgewise as ew

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning is an error: broken links, anchors, names not in the reference."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return folder


def test_the_site_has_what_its_pages_name_and_nothing_from_elsewhere(site: Path) -> None:
    home = (site / "index.html").read_text()
    assert 'src="report.png"' in home
    examples = (site / "examples.html").read_text()
    files = re.findall(r'href="(examples/[^"]*)"', examples)
    assert len(files) > 4
    assert all((site / file).exists() for file in files)
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="(https?://[^"]*)"', home)
    assert not loaded, "the page loads something from elsewhere"


@pytest.mark.browser
def test_the_search_works_from_a_folder(site: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    place = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=place, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((site / "howto" / "parts.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("calibration")
        page.wait_for_selector(".md-search-result__item")
        assert "matching documents" in page.inner_text(".md-search-result__meta")
        browser.close()


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    modules = {"absence", "ops", "surrogates", "errors", "importance", "latency", "__version__"}
    missing = [
        name
        for name in ew._HOMES
        if name not in modules | {"Rule"} and not re.search(rf"\.{name}$", text, re.M)
    ]
    assert not missing
