"""Prune whole connections, layers and blocks of any trained PyTorch model, chosen jointly."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors as errors
    from . import latency as latency
    from . import surrogates as surrogates
    from .evaluation.engine import EngineOptions as EngineOptions
    from .evaluation.losses import calibrated_cross_entropy as calibrated_cross_entropy
    from .evaluation.losses import imitated as imitated
    from .evaluation.objective import Objective as Objective
    from .evaluation.objective import Recovery as Recovery
    from .evaluation.ray.executor import Ray as Ray
    from .evaluation.records import Comparison as Comparison
    from .evaluation.records import Evaluation as Evaluation
    from .evaluation.recover import recover as recover
    from .graph import importance as importance
    from .graph.budget import Budget as Budget
    from .graph.cost import cost as cost
    from .graph.graph import Graph as Graph
    from .graph.graph import Mask as Mask
    from .graph.liveness import liveness as liveness
    from .graph.operators import absence as absence
    from .graph.operators import table
    from .graph.operators.table import Rule as Rule
    from .graph.operators.table import register as register
    from .graph.rules import restrict as restrict
    from .graph.unit import Cost as Cost
    from .graph.unit import Unit as Unit
    from .pruning import hf as hf
    from .pruning.export import export as export
    from .pruning.heal import Healing as Healing
    from .pruning.heal import heal as heal
    from .pruning.masked import masked as masked
    from .pruning.module_form import without_module_form as without_module_form
    from .pruning.plan import Plan as Plan
    from .pruning.prune import prune as prune
    from .pruning.weights import load as load
    from .pruning.weights import save as save
    from .search import sample_masks as sample_masks
    from .study.study import Study as Study
    from .tracing.trace import trace as trace
    from .values.version import __version__ as __version__

    ops = table

_NAMES = {  # by module
    "errors": "errors",
    "evaluation.engine": "EngineOptions",
    "evaluation.losses": "calibrated_cross_entropy imitated",
    "evaluation.objective": "Objective Recovery",
    "evaluation.ray.executor": "Ray",
    "evaluation.records": "Comparison Evaluation",
    "evaluation.recover": "recover",
    "graph.budget": "Budget",
    "graph.cost": "cost",
    "graph.graph": "Graph Mask",
    "graph.importance": "importance",
    "graph.liveness": "liveness",
    "graph.operators.absence": "absence",
    "graph.operators.table": "ops Rule register",
    "graph.rules": "restrict",
    "graph.unit": "Cost Unit",
    "latency": "latency",
    "pruning.export": "export",
    "pruning.heal": "Healing heal",
    "pruning.hf": "hf",
    "pruning.masked": "masked",
    "pruning.module_form": "without_module_form",
    "pruning.plan": "Plan",
    "pruning.prune": "prune",
    "pruning.weights": "load save",
    "search": "sample_masks",
    "study.study": "Study",
    "surrogates": "surrogates",
    "tracing.trace": "trace",
    "values.version": "__version__",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


class _Package(ModuleType):
    """Loads public names on first use, so that `edgewise --help` does not wait for torch."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module(f"{__name__}.{_HOMES[name]}")
        value = self.__dict__[name] = getattr(home, name, home)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule binds it here; a public function of the same name goes before it.
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (__name__,)  # user functions that name the package can be sent

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package
