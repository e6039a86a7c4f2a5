"""The report in a real browser: `pytest -m browser`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewise.graph.budget import Budget
from edgewise.graph.cost import cost
from edgewise.graph.graph import Graph
from edgewise.report import Insight, render, write
from edgewise.search import Point
from edgewise.surrogates.interactions import Interactions, Pair
from report.test_report import BRANCH, SOLVED, evaluations, graph, plan_of

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=alert(1)><b>net</b>"
__all__ = ["graph"]


@pytest.fixture(scope="module")
def report(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    units = tuple(
        replace(u, name=f"{u.name}<i>{u.kind}</i>", label=f"{u.label}<i>{u.kind}</i>")
        for u in graph.units
    )
    evil = Graph(graph.vertices, graph.edges, units, graph.granularity, "fx")
    name = next(u.name for u in units if u.name.startswith(BRANCH))
    masks = [evil.mask([0]), evil.mask([0, 1])]
    points = [
        Point(m, cost(graph, graph.mask(m.removed)), 0.5 + 0.1 * i, 0.1, Budget(macs=0.9), SOLVED)
        for i, m in enumerate(masks)
    ]
    pairs = Interactions((0, 1), (Pair(0, 1, 0.5, 0.1),), str(evil.empty), "log")
    flows = [1.0] * len(graph.edges)
    insight = Insight(None, points, pairs, flows, {"random": [[0.9, 0.5]]}, "run {limits}")
    path = tmp_path_factory.mktemp("report") / "report.html"
    plan = plan_of(evil, name)
    page = render(evil, evaluations(graph), plan, title=EVIL, insight=insight)
    return write(path, page)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    place = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield found
        found.close()


def opened(
    browser: Any, report: Path, unfolded: bool = True, **settings: Any
) -> tuple[Any, list[str]]:
    """The page, unfolded, and everything that it complains of or asks the network for."""
    page, said = browser.new_page(**settings), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda asked: said.append(asked.url) if "http" in asked.url[:4] else None)
    page.goto(report.as_uri())
    if unfolded:
        page.evaluate("document.querySelectorAll('.fold').forEach((fold) => (fold.open = true))")
        page.wait_for_selector(".canvas .main-svg")
    return page, said


def test_hover_and_zoom(browser: Any, report: Path) -> None:
    page, said = opened(browser, report, viewport={"width": 1240, "height": 900})
    page.locator(".network .node").nth(2).hover()
    assert "gives" in page.locator("#tip").inner_text()
    before = page.locator("svg.network").get_attribute("width")
    page.locator("[data-zoom=in]").click()
    wider = page.locator("svg.network").get_attribute("width")
    assert float(wider) > float(before)
    page.locator(".stage").focus()
    page.keyboard.press("-")
    assert float(page.locator("svg.network").get_attribute("width")) < float(wider)
    plot = page.locator("[data-chart=pareto]")
    plot.scroll_into_view_if_needed()
    mark = plot.locator(".scatterlayer .trace .point").first.bounding_box()
    for away in (3, 0):
        page.mouse.move(mark["x"] + mark["width"] / 2 + away, mark["y"] + mark["height"] / 2)
    plot.locator(".hoverlayer .hovertext").first.wait_for()
    assert "run macs=0.9" in page.locator("#pareto .sizes").inner_text()
    assert said == []
    page.close()


def test_one_screen_is_enough_and_the_rest_opens(browser: Any, report: Path) -> None:
    page, said = opened(browser, report, False, viewport={"width": 1280, "height": 900})
    last = page.locator("header .card").last.bounding_box()
    assert last["y"] + last["height"] <= 900
    assert page.locator(".main-svg").count() == 0  # what is folded away is not drawn
    page.locator("#evaluations summary").first.click()
    chart = page.locator("[data-chart=progress] .main-svg").first
    assert chart.bounding_box()["width"] > 1000
    page.locator("#network summary").click()
    assert page.locator(".stage").bounding_box()["width"] > 1000
    page.locator("abbr").first.focus()
    assert page.locator("#tip").is_visible()
    fresh = "document.querySelector('main').cloneNode(true)"
    page.evaluate(f"""() => {{
        const fresh = {fresh};
        for (const fold of fresh.querySelectorAll(".fold")) fold.open = false;
        document.querySelector("main").replaceWith(fresh);
        document.dispatchEvent(new CustomEvent("edgewise:contents", {{ detail: fresh }}));
    }}""")
    assert page.locator(".fold[open]").count() == 2  # what a reader opened stays open
    assert said == []
    page.close()


def test_paper_has_it_all_in_its_own_width_and_colours(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report, False, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".fold:not([open])").count() == 0
    sheet = (210 - 2 * 14) / 25.4 * 96
    charts = page.locator(".canvas")
    assert charts.count() == 5
    for index in range(charts.count()):
        assert charts.nth(index).locator(".main-svg").first.bounding_box()["width"] <= sheet
    tick = "document.querySelector('.canvas .xtick text').style.fill"
    assert page.evaluate(tick) == "rgb(91, 103, 112)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".fold[open]").count() == 0
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    page.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_the_bar_of_a_chart_covers_nothing(browser: Any, report: Path, width: int) -> None:
    page, _ = opened(browser, report, viewport={"width": width, "height": 900})
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".canvas").hover()
        bar = plot.locator(".modebar").bounding_box()
        for other in plot.locator(".legend, .cartesianlayer, .cbtitle").all():
            box = other.bounding_box()
            assert box is None or box["y"] >= bar["y"] + bar["height"]
    page.close()


def test_names_are_shown_as_text(browser: Any, report: Path) -> None:
    page, said = opened(browser, report)
    assert page.locator("h1").inner_text() == EVIL
    assert page.locator("img, main b").count() == 0
    ticks = page.locator("[data-chart=interactions] .xaxislayer-above").text_content()
    assert "</i>" in ticks
    assert said == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_scheme(browser: Any, report: Path, scheme: str) -> None:
    page, said = opened(
        browser, report, viewport={"width": 400, "height": 800}, color_scheme=scheme
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colour = page.evaluate("document.querySelector('.canvas .xtick text').style.fill")
    assert (ground, colour) == {
        "light": ("rgb(246, 247, 247)", "rgb(91, 103, 112)"),
        "dark": ("rgb(18, 22, 25)", "rgb(154, 167, 175)"),
    }[scheme]
    other = {"light": "dark", "dark": "light"}[scheme]
    page.emulate_media(color_scheme=other)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.canvas .xtick text').style.fill") != colour
    assert said == []
    page.close()


CONTRAST = """
() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b) + 0.05;
  };
  return [...document.querySelectorAll(".node.dead")].flatMap((node) => {
    const ground = light(getComputedStyle(node.querySelector("rect")).fill);
    return [...node.querySelectorAll("text")].map((text) => {
      const css = getComputedStyle(text), ink = light(css.fill);
      return css.opacity * Math.max(ink / ground, ground / ink);
    });
  });
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_of_removed_blocks_can_be_read(browser: Any, report: Path, scheme: str) -> None:
    """WCAG 2.1, 1.4.3: a contrast of 4.5, and no stroke through the letters."""
    page, _ = opened(browser, report, color_scheme=scheme)
    contrasts = page.evaluate(CONTRAST)
    assert contrasts
    assert min(contrasts) >= 4.5
    order = page.locator(".node.dead text").first.evaluate("t => getComputedStyle(t).paintOrder")
    assert order.startswith("stroke")
    page.close()


def test_tables_fit_a_phone(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report, viewport={"width": 400, "height": 800})
    tables = page.locator(".tables table")
    assert tables.count() == 2
    for index in range(tables.count()):
        wide, room = tables.nth(index).evaluate("t => [t.offsetWidth, t.parentNode.clientWidth]")
        assert wide <= room
    page.close()


def test_the_title_of_a_colour_bar_covers_no_number(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report, viewport={"width": 1240, "height": 900})
    plot = page.locator("[data-chart=interactions]")
    plot.scroll_into_view_if_needed()
    title = plot.locator(".cbtitle text").bounding_box()
    for index in range(plot.locator(".cbaxis text").count()):
        tick = plot.locator(".cbaxis text").nth(index).bounding_box()
        below = tick["y"] >= title["y"] + title["height"]
        assert below or tick["x"] + tick["width"] <= title["x"]
    page.close()
