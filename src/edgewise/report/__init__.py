"""One self-contained HTML page about a study: `render` makes it, `write` saves it."""

from .facts import Facts as Facts
from .facts import Insight as Insight
from .facts import Outcome as Outcome
from .page import contents as contents
from .page import render as render
from .page import shell as shell
from .page import write as write
from .plot import Plot as Plot
