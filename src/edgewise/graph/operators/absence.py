"""How absence passes through one operator: what it gives, given what remains of its inputs.

A flow takes a vertex, the shapes of its inputs and what remains of each (None = absent) and
returns a `Flow`. Flows are pure and know nothing of tensors. They are also monotone: less in
never gives more out, which is why removing more never raises a cost. Each of these is a `Passage`:
called, it is the flow, and it holds the same meaning for couplings and for the solver's bounds.

Examples:
    >>> half = ew.absence.Live(((1, (True, False, True, False)),))
    >>> half.shape((4, 8, 8))  # axis 1 is cut
    (4, 2, 8)
"""

from .elementwise import by_axes as by_axes
from .elementwise import group_norm as group_norm
from .elementwise import norm as norm
from .elementwise import reduce as reduce
from .merging import add as add
from .merging import concat as concat
from .merging import multiply as multiply
from .mixing import contract as contract
from .mixing import halves as halves
from .mixing import mix as mix
from .passage import FlowFunction as FlowFunction
from .passage import Passage as Passage
from .passage import join as join
from .passage import lookup as lookup
from .recurrent import recurrent as recurrent
from .recurrent import state as state
from .states import FULL as FULL
from .states import Flow as Flow
from .states import Keep as Keep
from .states import Live as Live
from .states import Shapes as Shapes
from .states import State as State
from .states import States as States
from .states import elements as elements
from .states import intersection as intersection
from .states import live as live
from .views import member as member
from .views import piece as piece
from .views import reshape as reshape
from .views import split as split
from .views import take as take
from .views import unbind as unbind
