"""Searching for the best mask within a budget; knows nothing of files, databases or progress."""

from .asks import Ask as Ask
from .asks import Questions as Questions
from .asks import answered as answered
from .joint import search as search
from .local_search import descend as descend
from .pareto.front import Point as Point
from .pareto.front import front as front
from .pareto.front import levels as levels
from .pareto.nsga2 import trade_offs as trade_offs
from .picks import fatal_units as fatal_units
from .proposals import Settings as Settings
from .sampling import draw_at_budget as draw_at_budget
from .sampling import sample_masks as sample_masks
from .solver.solve import Solution as Solution
from .solver.solve import solve as solve
from .space import Space as Space
from .stopping import Patience as Patience
