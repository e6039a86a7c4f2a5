"""Tiny models, one for every way data flows."""

from . import networks as networks
from . import sized as sized
from .models import ZOO as ZOO
from .models import build as build
from .traced import BRANCHES as BRANCHES
from .traced import WIDTHS as WIDTHS
from .traced import traced as traced
