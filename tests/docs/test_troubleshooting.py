"""The page of errors quotes messages that exist, and knows every class."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from edgewise import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def texts() -> list[str]:
    """Every text in the source, what is filled in being "…"."""
    found = []
    for path in (ROOT / "src" / "edgewise").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(map(str, parts)))
    return found


TEXTS = texts()
CELLS = re.findall(r"^\| `+ ?(.+?)`+ \|", PAGE, re.M)
INLINE = re.findall(r"(?:^|: )`([A-Z…][^`]{12,}…)`", PAGE, re.M)


def occurs(message: str) -> bool:
    """Whether some text holds all parts of a message in their order."""
    parts = [part.strip() for part in message.split("…") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, parts)), re.S)
    return any(pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize("message", CELLS + INLINE)
def test_message_exists(message: str) -> None:
    assert occurs(message), message


def test_messages_were_found() -> None:
    assert len(CELLS) > 45
    assert len(INLINE) >= 4
    assert not occurs("The model is of another … planet")


def test_every_class_is_explained() -> None:
    classes = [v for v in vars(errors).values() if isinstance(v, type)]
    raised = [c.__name__ for c in classes if issubclass(c, errors.EdgewiseError)]
    headed = set(re.findall(r"^(?:## |\*\*)(\w+Error)", PAGE, re.M))
    assert set(raised) == headed
