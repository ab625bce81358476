"""The file `oci-layout`, which says that a folder is a layout: always the same bytes (FORMAT.md, "Files")."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_cmcl.bundle.canonical import canonical
from edge_cmcl.bundle.layout import LAYOUT_FILE, LAYOUT_VERSION
from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import StorageError

MARKER = canonical({"imageLayoutVersion": LAYOUT_VERSION})


def is_damaged(root: Path) -> bool:
    """Whether the marker of `root` is missing, unreadable or one bit off; any other one is another version's."""
    data = _bytes(root)
    if data is None:
        return True
    off = sum((a ^ b).bit_count() for a, b in zip(data, MARKER, strict=False))
    return len(data) == len(MARKER) and off == 1


def mend(root: Path) -> None:
    """Write the marker of `root` again where it is another one; where the file system refuses, it stays as it is."""
    if _bytes(root) != MARKER:
        with suppress(StorageError):  # the store can be read all the same
            write_bytes(root / LAYOUT_FILE, MARKER)


def _bytes(root: Path) -> bytes | None:
    try:
        return (root / LAYOUT_FILE).read_bytes()
    except OSError:
        return None
