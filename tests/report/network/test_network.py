"""The drawing of a network by itself: a file that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import edgewise as ew
from edgewise.report.facts import Facts, Outcome
from edgewise.report.network.network import drawn
from edgewise.report.network.svg import Sheet

SVG = "{http://www.w3.org/2000/svg}"


def test_a_drawing_stands_alone_and_strikes_out_what_is_removed(
    branches: ew.Graph, tmp_path: Path
) -> None:
    facts = Facts(branches, (), None, Outcome())
    path = drawn(Sheet(facts, branches.mask([0]))).save(tmp_path / "network.svg")
    text, root = path.read_text(), ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    assert "var(" not in text
    dead = [g for g in root.iter(f"{SVG}g") if "dead" in g.get("class", "").split()]
    assert [g.findtext(f"{SVG}text") for g in dead] == ["blocks.0"]
    assert "removed" in dead[0].findtext(f"{SVG}title", "").splitlines()
    assert "dead" not in drawn(Sheet(facts)).svg.partition("<style>")[0]
