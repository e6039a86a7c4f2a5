"""The whole page from records, and its file."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from ..errors import EdgewiseError
from ..evaluation.records import Evaluation, Progress
from ..graph.graph import Graph
from ..graph.times import OperatorTimes
from ..pruning.plan import Plan
from ..values.files import write_text
from ..values.markup import Markup, raw, tag
from .charts import plotly
from .evaluations import comparison, course, predictions
from .facts import Facts, Insight, Outcome
from .first import first
from .front import front
from .interplay import interplay
from .measured import measured
from .network.network import STYLES, network
from .reproduce import reproduce
from .unit_table import units

# Nothing may be loaded from anywhere, even if a name slipped through unescaped.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
)


def render(
    graph: Graph,
    evaluations: Sequence[Evaluation],
    plan: Plan | None,
    *,
    title: str,
    outcome: Outcome | None = None,
    extra: Mapping[str, str] | None = None,
    times: OperatorTimes | None = None,
    insight: Insight | None = None,
) -> str:
    """One self-contained HTML page about a study and what it chose.

    Args:
        graph: the traced network.
        evaluations: what was measured; may be empty.
        plan: what was chosen; None while nothing is.
        title: the model's name.
        outcome: loss and metrics after healing, latency.
        extra: label → text for "How to reproduce": the command, the configuration, versions.
        times: of the operators, to tell which masks are within a budget of latency.
        insight: what surrogates and comparisons say.

    Returns:
        HTML that needs no other file and no network. The same records give the same text.

    Raises:
        PlanError: the plan was made for another graph.
        MaskError: an evaluation was.

    Examples:
        >>> html = render(graph, study.evaluations, study.plan(), title="Three residual blocks")
        >>> html.startswith("<!doctype html>")
        True
    """
    facts = Facts(graph, evaluations, plan, outcome or Outcome(), times, insight or Insight())
    main = contents(facts.check(), title, extra or {})
    scripts = [_script("script.js")]
    if 'class="plot' in main:  # megabytes, for who needs them
        scripts = [tag("script", raw(plotly.script())), *scripts, _script("plots.js")]
    body = tag("body", main, _tooltip(), scripts)
    return f"<!doctype html>\n{tag('html', _head(title), body, lang='en')}\n"


def shell(title: str) -> str:
    """The page of a study that still runs: its script asks where it came from for the contents."""
    names = ("script.js", "plots.js", "live.js")
    scripts = [tag("script", raw(plotly.script())), *map(_script, names)]
    body = tag("body", tag("main"), _tooltip(), scripts, data_live="on")
    head = _head(title, f"{POLICY}; connect-src 'self'")
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def contents(
    facts: Facts, title: str, extra: Mapping[str, str], now: Progress | None = None
) -> Markup:
    """All that the page says: one screen for whoever decides, and below it what is folded away."""
    return tag(
        "main",
        first(facts, title, now),
        measured(facts),
        network(facts),
        front(facts),
        interplay(facts),
        predictions(facts),
        course(facts),
        comparison(facts),
        units(facts),
        reproduce(facts, extra),
    )


def write(path: str | Path, page: str) -> Path:
    """Write a page to PATH: the whole of it or nothing.

    Returns:
        The path.

    Raises:
        EdgewiseError: the place cannot be written to.
    """
    path = Path(path)
    try:
        write_text(path, page)
    except OSError as error:
        raise EdgewiseError(
            f"The report cannot be written to {path}: {error.strerror or error}. Choose a file in "
            "a folder that you may write to."
        ) from error
    return path


def _head(title: str, policy: str = POLICY) -> Markup:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", f"{title}: pruning report"),
        tag("style", map(_file, STYLES)),
    )


def _tooltip() -> Markup:
    return tag("div", id="tip", role="status", hidden=True)


def _script(name: str) -> Markup:
    return tag("script", _file(name))


def _file(name: str) -> Markup:
    return raw(files(__package__).joinpath(name).read_text(encoding="utf-8"))
