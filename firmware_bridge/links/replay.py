"""A file of bytes as they once came over a line, played back as a link."""

from __future__ import annotations

from pathlib import Path

from edge_cmcl.errors import DataError
from firmware_bridge.links.link import READ_BYTES, LinkEnd, lost


class ReplayLink:
    """Plays `path` as fast as it is read; what is written goes nowhere.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.address = f"file://{path}"
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise DataError(f"{path} cannot be read", expected="bytes of a line", got=error.strerror or "") from None

    def read(self, timeout_s: float) -> bytes:
        """See `Link.read`; it never waits."""
        try:
            data = self._file.read(READ_BYTES)
        except (OSError, ValueError) as error:
            raise lost(self.address, error) from None
        if not data:
            raise LinkEnd
        return data

    def write(self, data: bytes) -> None:
        """Drop `data`: nobody is there to take it."""

    def close(self) -> None:
        """See `Link.close`."""
        self._file.close()
