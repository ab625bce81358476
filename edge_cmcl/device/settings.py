"""What a user's commands on a device go by, and where each setting comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def settings(asked: Path | None, store: Path, environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (setting, value, where it comes from) of what this user's commands go by; secrets stay hidden.

    Args:
        asked: the store that an option or variable named, None for neither.
        store: the one that is used.
        environment: the process's variables.
    """
    source = "EDGE_CMCL_STORE" if asked is not None and environment.get("EDGE_CMCL_STORE") == str(asked) else "--store"
    rows = [("store", str(store), source if asked is not None else "default")]
    for name in sorted(environment):
        if name.startswith(("EDGE_CMCL_", "ORT_", "OMP_NUM", "XDG_DATA")) and name != "EDGE_CMCL_STORE":
            secret = any(word in name for word in ("PASSWORD", "TOKEN", "KEY"))
            ours = (name, environment[name]) == ("ORT_DISABLE_TELEMETRY", "1")  # set as the program starts
            rows.append((name, "***" if secret else environment[name], "default" if ours else "environment"))
    return rows
