"""Where a user's programs keep what is theirs (XDG Base Directory Specification 0.8)."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Return $XDG_DATA_HOME/edge-cmcl, with ~/.local/share where that is unset, empty or not absolute."""
    return _home("XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/edge-cmcl, with ~/.cache where that is unset, empty or not absolute."""
    return _home("XDG_CACHE_HOME", ".cache")


def _home(variable: str, default: str) -> Path:
    named = Path(os.environ.get(variable, ""))
    return (named if named.is_absolute() else Path.home() / default) / "edge-cmcl"
