"""Which surrogates a search can use: those of this package by name, and any regressor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from ..errors import EdgewiseError, PlanError
from ..graph.graph import Graph
from ..values.description import digest, lines
from ..values.spelling import close
from .bootstrap import Bootstrap
from .cross_gamma import CrossGamma
from .degree2 import Degree2
from .fcn import FCN
from .graph_gp import GraphGP
from .linear import Linear
from .logistic import Logistic
from .path_sum import PathSum
from .surrogate import Probabilistic
from .trees import Trees
from .unit_gp import UnitGP
from .validation import Link

Maker = Callable[[Graph, Link], Any]
OWN = "#"  # in the name of a surrogate that is the user's own

_CANDIDATES: dict[str, Maker] = {  # of "auto", which stays with the first in doubt
    "UnitGP": lambda graph, link: UnitGP(graph, link=link),
    "GraphGP": lambda graph, link: GraphGP(graph, link=link),
    "Degree2": lambda graph, link: Degree2(link=link),
    "Linear": lambda graph, link: Linear(link=link),
}
_NAMED: dict[str, Maker] = {
    **_CANDIDATES,
    "PathSum": lambda graph, link: Bootstrap(PathSum(graph), link=link),
    "CrossGamma": lambda graph, link: Bootstrap(CrossGamma(graph), link=link),
    "Logistic": lambda graph, link: Bootstrap(Logistic(), link=link),
    "FCN": lambda graph, link: Bootstrap(FCN(), link=link),
    "Trees": lambda graph, link: Bootstrap(Trees(), link=link),
}
NAMES = ("auto", *_NAMED)
SLOW = ("GraphGP",)  # of the candidates: takes time for each path of each mask


@dataclass(frozen=True)
class Searcher:
    """A surrogate to search with.

    Args:
        name: under which runs and plans know it.
        candidates: what makes each surrogate there is to choose from, by name; the first is the
            one to stay with in doubt.
    """

    name: str
    candidates: Mapping[str, Maker]


def searcher(wanted: Any) -> Searcher:
    """What to search with.

    Args:
        wanted: one of `NAMES`; a scikit-learn regressor; or a class or function without arguments
            that makes one.

    Raises:
        EdgewiseError: no surrogate has that name; or the regressor lacks `fit` or `predict`, or
            cannot be cloned.
    """
    if isinstance(wanted, str):
        if wanted not in NAMES:
            raise EdgewiseError(
                f"No surrogate that can search is called {wanted!r}.{close(wanted, NAMES)} There "
                f"are {', '.join(NAMES)}, and in Python any scikit-learn regressor."
            )
        return Searcher(wanted, _CANDIDATES if wanted == "auto" else {wanted: _NAMED[wanted]})
    model = _estimator(wanted)
    name = f"{type(model).__name__}{OWN}{digest(_described(model))[:8]}"

    def make(graph: Graph, link: Link) -> Any:
        if isinstance(model, Probabilistic):
            return clone(model).set_params(link=link)
        return Bootstrap(model, link=link)

    return Searcher(name, {name: make})


def recalled(name: str) -> Searcher:
    """The surrogate of a run by its name.

    Raises:
        PlanError: it was the user's own, which no storage keeps.
    """
    if OWN not in name:
        return searcher(name)
    raise PlanError(
        f"The last run searched with a surrogate of your own, {name}, which is not stored. Give it "
        f"again, surrogate={name.partition(OWN)[0]}(...), or the name of another one."
    )


def _estimator(wanted: Any) -> Any:
    """A regressor that can be copied, of what stands for one."""
    makes = isinstance(wanted, type) or (callable(wanted) and not hasattr(wanted, "fit"))
    name = getattr(wanted, "__name__", type(wanted).__name__)
    try:
        model = wanted() if makes else wanted
    except Exception as error:
        raise EdgewiseError(f"The surrogate {name} cannot be made: {error}") from error
    for method in ("fit", "predict"):
        if not callable(getattr(model, method, None)):
            raise EdgewiseError(
                f"The surrogate {type(model).__name__} has no {method}(): give a scikit-learn "
                f"regressor, or one of the names {', '.join(NAMES)}."
            )
    try:
        clone(model)
    except Exception as error:
        raise EdgewiseError(
            f"The surrogate {type(model).__name__} cannot be cloned ({error}): it needs "
            "get_params() and set_params() of sklearn.base.BaseEstimator."
        ) from error
    return model


def _described(value: Any) -> tuple[str, ...]:
    """What a fit of an estimator depends on: its class and settings, those of its parts too.

    Its state is left out: scikit-learn's version is part of that, and whether it has been fitted.
    """
    return lines("surrogate", _settings(value))


def _settings(value: Any) -> Any:
    if isinstance(value, Graph):
        return value.fingerprint
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, list | tuple):
        return [_settings(part) for part in value]
    if hasattr(value, "get_params") and not isinstance(value, type):
        found = value.get_params(deep=False)
        return [type(value), {name: _settings(part) for name, part in found.items()}]
    return value
