"""Searching for the best mask within a budget; knows nothing of files, databases or progress."""

from .descent import descend as descend
from .evolve import trade_offs as trade_offs
from .exact import Solution as Solution
from .exact import solve as solve
from .front import Point as Point
from .front import front as front
from .front import levels as levels
from .proposals import Settings as Settings
from .sampling import draw_at_budget as draw_at_budget
from .sampling import sample_masks as sample_masks
from .space import Space as Space
from .stopping import Patience as Patience
from .strategy import Ask as Ask
from .strategy import Questions as Questions
from .strategy import answered as answered
from .strategy import fatal_units as fatal_units
from .strategy import search as search
