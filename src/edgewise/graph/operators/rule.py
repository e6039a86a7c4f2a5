"""What edgewise must know of an operator, and the table of what it knows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...errors import EdgewiseError
from ..vertices import Vertex
from .calls import Call, Follows, no_follows, nothing
from .derived import derived
from .lowering import Lower
from .macs import MacFunction, no_macs
from .passage import FlowFunction, Passage
from .reference import Reference
from .states import Live


@dataclass(frozen=True)
class Rule:
    """What edgewise must know of an operator.

    Args:
        name: the rule's name, unique.
        flow: how absence passes: one of `ew.absence`, or a function like these (see
            `ew.absence.Passage`), whose couplings and bounds are then found by asking it.
        signature: positional argument names of the function or method, space separated.
        read: plain data for `Vertex.attrs`, taken from the call.
        follows: for each parameter, what its dimensions follow (see `graph.Parameter`).
        macs: multiply-accumulates for one example, given what remains of inputs and output; of
            `ew.ops.Macs` the solver knows the factors, too.
        view: the output is a view of the input, and takes no memory.
        resize: brings a module's attributes in line after its tensors were sliced.
        sizes: numbers that a module of which channels are gone needs beside its tensors, such as
            the sizes of its groups.
        lower: writes the call into the smaller program, given its `lowering.Site`, where cutting
            its tensors is not enough; it may return None where it is.
        reference: what the operator gives at full size where it works over what remains: a
            function of the module, the vertex, what remains, and the call's arguments.

    Examples:
        >>> rule = ew.Rule("needs everything", ew.absence.join)
        >>> rule.signature
        'input'
    """

    name: str
    flow: FlowFunction
    signature: str = "input"
    read: Callable[[Call], dict[str, Any]] = nothing
    follows: Callable[[Call], Follows] = no_follows
    macs: MacFunction = no_macs
    view: bool = False
    resize: Callable[[nn.Module], None] | None = None
    sizes: Callable[[Vertex, Live], tuple[int, ...]] | None = None
    lower: Lower | None = None
    reference: Reference | None = None
    passage: Passage = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "passage", derived(self.flow))


@dataclass
class Table:
    """Which rule belongs to which function, method (by name) or module class."""

    rules: dict[str, Rule] = field(default_factory=dict)
    targets: dict[Any, Rule] = field(default_factory=dict)

    def add(self, rule: Rule, *targets: Any) -> None:
        """Register a rule for functions, module classes, "Tensor.method" or dotted class names."""
        if rule.name in self.rules and self.rules[rule.name] is not rule:
            raise EdgewiseError(f"There is already a rule called {rule.name!r}; choose another.")
        self.rules[rule.name] = rule
        for target in targets:
            self.targets[target] = rule

    def find(self, target: Any) -> Rule | None:
        """The rule of a function or of "Tensor.method"."""
        try:
            rule = self.targets.get(target)
        except TypeError:
            return None
        module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
        return rule or self.targets.get(f"{module}.{name}") or self.targets.get(str(target))

    def find_module(self, module: nn.Module) -> Rule | None:
        """The rule of a module: of its class, or of a base class whose forward it keeps."""
        for cls in type(module).__mro__:
            rule = self.targets.get(cls) or self.targets.get(f"{cls.__module__}.{cls.__qualname__}")
            if rule is not None:
                own = getattr(cls, "forward", None)
                return rule if type(module).forward is own else None
        return None
