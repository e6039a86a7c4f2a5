"""Prune whole connections, layers and blocks of any trained PyTorch model, chosen jointly."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import absence as absence
    from . import errors as errors
    from . import importance as importance
    from . import latency as latency
    from . import ops as ops
    from . import surrogates as surrogates
    from .cluster import Ray as Ray
    from .cost import cost as cost
    from .engine import EngineOptions as EngineOptions
    from .export import export as export
    from .graph import Cost as Cost
    from .graph import Graph as Graph
    from .graph import Mask as Mask
    from .graph import Unit as Unit
    from .heal import Healing as Healing
    from .heal import heal as heal
    from .liveness import liveness as liveness
    from .losses import calibrated_cross_entropy as calibrated_cross_entropy
    from .masked import masked as masked
    from .objective import Objective as Objective
    from .objective import Recovery as Recovery
    from .ops import Rule as Rule
    from .ops import register as register
    from .plan import Plan as Plan
    from .records import Budget as Budget
    from .records import Comparison as Comparison
    from .records import Evaluation as Evaluation
    from .rewrite import prune as prune
    from .search import sample_masks as sample_masks
    from .study import Study as Study
    from .trace import trace as trace
    from .version import __version__ as __version__
    from .weights import load as load
    from .weights import save as save

_HOMES = {
    "absence": "absence",
    "errors": "errors",
    "EngineOptions": "engine",
    "importance": "importance",
    "latency": "latency",
    "ops": "ops",
    "surrogates": "surrogates",
    "Ray": "cluster",
    "cost": "cost",
    "export": "export",
    "Cost": "graph",
    "Graph": "graph",
    "Mask": "graph",
    "Unit": "graph",
    "Healing": "heal",
    "heal": "heal",
    "liveness": "liveness",
    "calibrated_cross_entropy": "losses",
    "masked": "masked",
    "Objective": "objective",
    "Recovery": "objective",
    "Rule": "ops",
    "register": "ops",
    "Plan": "plan",
    "Budget": "records",
    "Comparison": "records",
    "Evaluation": "records",
    "prune": "rewrite",
    "sample_masks": "search",
    "Study": "study",
    "trace": "trace",
    "__version__": "version",
    "load": "weights",
    "save": "weights",
}


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
