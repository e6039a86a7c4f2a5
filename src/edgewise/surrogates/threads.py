"""Many small matrices: one thread does them faster than several that wait for each other."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

P = ParamSpec("P")
R = TypeVar("R")


@cache
def _controller() -> Any:
    """Finding the loaded BLAS libraries takes milliseconds, so it is done once."""
    return ThreadpoolController()


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """The function with BLAS held to one thread while it runs, as before afterwards.

    On a busy machine OpenBLAS threads spin for each other: a fit of 0.1 s then takes minutes.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
