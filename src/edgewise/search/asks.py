"""What a search asks for, and how it is answered."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from ..evaluation.records import Evaluation
from ..graph.graph import Mask
from .proposals import Predictor
from .space import Space

FitFunction = Callable[[Sequence[Evaluation], Space], Predictor]


@dataclass(frozen=True)
class Ask:
    """Masks to measure together, and what was expected of them (mean, deviation).

    On some lots of the examples, where `lots` names any.
    """

    phase: str
    origin: str
    masks: tuple[Mask, ...]
    expected: Mapping[Mask, tuple[float, float]] = field(default_factory=dict)
    lots: tuple[int, ...] = ()


Questions = Generator[Ask, Sequence[Evaluation], None]


def answered(steps: Questions, answer: Callable[[Ask], Sequence[Evaluation]]) -> list[Evaluation]:
    """Answer what a search asks until it ends; all answers, in order."""
    found: list[Evaluation] = []
    answers: Sequence[Evaluation] | None = None
    while True:
        try:
            ask = next(steps) if answers is None else steps.send(answers)
        except StopIteration:
            return found
        answers = answer(ask)
        found.extend(answers)
