"""What the documentation site takes from elsewhere in the repository.

The home page is the README, and two more pages are files beside it, so that nothing is written
twice. The results of benchmarks are files of the site, to which its pages link.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
LINKED = (
    "benchmarks/results/**/*.json",
    "benchmarks/results/**/*.npz",
    "benchmarks/**/*.py",
    "examples/*.py",
    "examples/*.ipynb",
    "LICENSE",
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and the files that are linked to."""
    for name, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_from_root(text)))
    for pattern in LINKED:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    source = ROOT / "src/edgewise/cli/job/edgewise.schema.json"
    files.append(File.generated(config, source.name, abs_src_path=str(source)))
    return files


def _from_root(text: str) -> str:
    """Links of a file beside the folder of the documentation, as seen from within it."""
    for page, source in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return re.sub(r"(\]\(|src=\")docs/", r"\1", text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links from pages to what lies beside their folder in the repository, but not in the site."""
    return re.sub(r"\]\(\.\./((?:\.\./)*(?:benchmarks|examples)/)", r"](\1", markdown)
