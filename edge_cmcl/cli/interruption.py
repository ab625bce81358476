"""Signals that ask a command to end: they leave through every context manager on the way, and none is lost.

Python raises an interruption in whatever code is at work, and compiled modules that call Python may clear the errors
that a call left: of 90 Ctrl-C in the first second of an update one went that way, and the update was committed. So
what was asked is kept, and raised again when the command next tells how far it is.
"""

from __future__ import annotations

import signal
from typing import NoReturn

from edge_cmcl.cli.failures import Terminated

_asked: BaseException | None = None


def watch() -> None:
    """Raise KeyboardInterrupt or Terminated on a signal; one that is ignored (SIGHUP under nohup) stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def check() -> None:
    """Raise again what a signal has raised and somebody has swallowed."""
    if _asked is not None:
        raise _asked


def _interrupt(_number: int, _frame: object) -> NoReturn:
    _raise(KeyboardInterrupt())


def _terminate(number: int, _frame: object) -> NoReturn:
    """End once: a second signal must not cut the clean-up short."""
    signal.signal(number, signal.SIG_IGN)
    _raise(Terminated(number))


def _raise(asked: BaseException) -> NoReturn:
    global _asked
    _asked = asked
    raise asked
