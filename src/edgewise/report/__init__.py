"""One self-contained HTML page about a study: `render` makes it, `write` saves it."""

from .facts import Outcome as Outcome
from .page import render as render
from .page import write as write
