"""Edgewise beside simpler methods, on the user's own model."""

from .bench import METHODS as METHODS
from .bench import Row as Row
from .bench import bench as bench
from .bench import histories as histories
from .bench import summary as summary
