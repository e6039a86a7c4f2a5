"""Everything edgewise raises on purpose: what is wrong, where in the user's model, what to do.

Where Python has a word for the kind of mistake, an error is that as well: a mask, a budget or an
objective that makes no sense is a `ValueError`, what cannot be done at all a `RuntimeError`.

Examples:
    >>> try:
    ...     ew.cost(graph, graph.mask([0, 3]))
    ... except ew.errors.DisconnectedError as error:
    ...     print(error)
    The mask removes every path to the model output ...
"""


class EdgewiseError(Exception):
    """The base of every error that edgewise raises on purpose.

    Examples:
        >>> issubclass(ew.errors.BudgetError, ew.errors.EdgewiseError)
        True
    """


class EdgewiseWarning(UserWarning):
    """Something a user should know, although the work goes on."""


class TraceError(EdgewiseError, RuntimeError):
    """The model could not be turned into a graph."""


class UnknownOperatorError(TraceError, NotImplementedError):
    """The model uses an operator for which no rule says what an absent input means."""


class TooLargeError(TraceError):
    """The model has more operators than can be searched."""


class NoUnitsError(TraceError):
    """The model was traced, but nothing in it can be removed."""


class MaskError(EdgewiseError, ValueError):
    """A mask does not belong to the graph, or has the wrong length."""


class DisconnectedError(MaskError):
    """The mask cuts every path to a model output."""


class BudgetError(EdgewiseError, ValueError):
    """No mask can meet the budget, or the budget makes no sense."""


class RuleError(EdgewiseError, ValueError):
    """A rule for what may go names nothing, contradicts another one, or leaves nothing to go."""


class ObjectiveError(EdgewiseError, ValueError):
    """The data, the loss or a metric cannot be used."""


class StorageError(EdgewiseError, RuntimeError):
    """A study file belongs to something else, is newer than this program, or cannot be used."""


class OtherStudyError(StorageError):
    """The evaluations of a stored study are of another network or another objective."""


class ExecutorError(EdgewiseError, RuntimeError):
    """Workers cannot be started, reached, or sent what they need."""


class PlanError(EdgewiseError):
    """A plan cannot be read, or belongs to another model."""


class FormError(PlanError):
    """No edit of the model's own modules says what a mask does; the program form does."""


class VerificationError(EdgewiseError, ArithmeticError):
    """A pruned or exported model differs from its reference; nothing is returned."""


class ConfigError(EdgewiseError):
    """A configuration file, or a value in it, cannot be used."""


class LatencyError(EdgewiseError):
    """A latency table is of another machine or model, or cannot be read or measured."""


def lacks_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, of the processor or of an accelerator.

    Examples:
        >>> from edgewise.errors import lacks_memory
        >>> lacks_memory(MemoryError())
        True
    """
    words = ("not enough memory", "out of memory", "can't allocate memory")
    kinds = ("MemoryError", "OutOfMemoryError")  # the second is torch's
    return type(error).__name__ in kinds or any(word in str(error) for word in words)
