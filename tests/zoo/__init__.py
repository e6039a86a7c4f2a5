"""Tiny models, one for every way data flows."""

from . import networks as networks
from . import sized as sized
from .models import ZOO as ZOO
from .models import build as build
