"""`study.plot`: every chart of the report as a figure, interactive or static."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..graph.budget import Budget
from ..graph.graph import Mask
from ..search import Point
from ..surrogates.interactions import Interactions
from .charts import charts, matplotlib, pairs, plotly
from .charts.chart import Chart
from .facts import Facts, Outcome
from .network.network import Drawing, drawn
from .network.svg import Sheet


@dataclass(frozen=True)
class Plot:
    """The plots of a study, of all evaluations so far.

    Each gives a plotly figure, or with `static=True` a matplotlib one for papers; both draw the
    same chart as the report does. `graph` gives the report's drawing.

    Args:
        facts: gives what is known by now.
        front: `Study.pareto`.
        pairs: `Study.interactions`.

    Examples:
        >>> study.plot.progress().write_html("progress.html")
        >>> study.plot.progress(static=True).savefig("progress.pdf")
    """

    facts: Callable[[], Facts] = field(repr=False)
    front: Callable[..., list[Point]] = field(repr=False)
    pairs: Callable[..., Interactions] = field(repr=False)

    def progress(self, *, static: bool = False) -> Any:
        """Loss of every evaluation in order, and the best within the last run's budget so far."""
        return _drawn(charts.progress(self.facts()), static)

    def predicted(self, *, static: bool = False) -> Any:
        """Predicted against measured loss, where something was predicted."""
        return _drawn(charts.predicted(self.facts()), static)

    def pareto(self, budgets: Sequence[Budget] | None = None, *, static: bool = False) -> Any:
        """The front of `Study.pareto`."""
        return _drawn(charts.pareto(self.facts(), self.front(budgets)), static)

    def interactions(self, base: Mask | None = None, *, static: bool = False) -> Any:
        """The map of `Study.interactions`."""
        return _drawn(pairs.heat_map(self.facts().graph, self.pairs(base)), static)

    def graph(self, mask: Mask | None = None) -> Drawing:
        """The network in boxes, what a mask removes struck out: SVG, static by nature."""
        return drawn(Sheet(Facts(self.facts().graph, (), None, Outcome()), mask))

    @staticmethod
    def methods(
        histories: Mapping[str, Sequence[Sequence[float | None]]], *, static: bool = False
    ) -> Any:
        """Lowest loss against evaluations of several methods.

        Args:
            histories: method → for each seed the `history` of its `bench.Row`.
        """
        return _drawn(charts.methods(histories), static)


def _drawn(chart: Chart, static: bool) -> Any:
    return matplotlib.static(chart) if static else plotly.figure(chart)
