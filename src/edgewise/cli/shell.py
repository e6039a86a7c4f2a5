"""What all commands share: options, the screen, and errors that become exit codes."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from .screen import Screen

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Log lines, no progress bar.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON.")]
Form = Literal["program", "module"]  # that of edgewise.pruning, which takes long to import
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class _Saying(logging.Handler):
    """Shows on the screen what the library logs, above a progress bar if there is one."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self.screen.say(record.getMessage())


@contextmanager
def open_screen(
    quiet: bool, debug: bool, interrupted: str = "Interrupted.", json: bool = False
) -> Iterator[Screen]:
    """Where a command draws; what it raises becomes a message and an exit code."""
    from ..errors import ConfigError, EdgewiseError
    from ..values.redact import legible, redact
    from .screen import Screen

    screen = Screen(quiet, json)
    logger, handler = logging.getLogger("edgewise"), _Saying(screen)
    logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: screen.warn(str(message))
        try:
            yield screen
            screen.close()
        except KeyboardInterrupt:
            screen.say(interrupted)
            raise typer.Exit(130) from None
        except (EdgewiseError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            if debug:
                sys.stderr.write(legible(redact(traceback.format_exc())))
            screen.fail(str(error))
            raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None
        finally:
            logger.removeHandler(handler)
