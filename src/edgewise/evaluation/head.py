"""The last layer of a language model, whose output is far larger than what is measured of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.utils import _pytree as pytree

PLACES = 256  # of which the layer gives its output at a time


@dataclass(frozen=True)
class Head:
    """What a linear layer gives at all places of a batch, computed where it is read.

    Args:
        x: what it reads [batch, length, inputs].
        layer: called on [places, inputs].
        width: of its output.
    """

    x: Tensor
    layer: Callable[[Tensor], Tensor]
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the output."""
        return (*self.x.shape[:-1], self.width)

    def __iter__(self) -> Iterator[Tensor]:
        """The output [places, width] for some places after others."""
        return map(self.layer, self.x.flatten(0, -2).split(PLACES))


pytree.register_pytree_node(
    Head,
    lambda head: ([head.x], (head.layer, head.width)),
    lambda tensors, context: Head(*tensors, *context),
)
