"""Latency as a budget: operators are measured, masks predicted, chosen ones measured again.

Examples:
    >>> table = ew.latency.measure(graph, rounds=3)
    >>> table.times(graph).seconds(ew.liveness(graph, graph.empty)) > 0
    True
"""

from .measurement import compare as compare
from .measurement import measure as measure
from .measurement import settle as settle
from .table import LatencyTable as LatencyTable
from .table import Ratio as Ratio
from .table import Target as Target
