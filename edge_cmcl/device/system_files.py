"""Small files in which Linux tells of the machine: what is absent or unreadable tells nothing."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str:
    """Return what stands in a file, without white space around it; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def number_of(path: Path) -> int | None:
    """Return the integer in a file; None where there is none, such as "max" for no limit."""
    try:
        return int(text_of(path))
    except ValueError:
        return None
