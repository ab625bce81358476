"""How a room tells its caller how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)` while work goes on; the command line draws a bar from it."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
