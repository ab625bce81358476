"""What every link can do: carry bytes both ways, until it is lost."""

from __future__ import annotations

import select
import socket
from typing import Protocol

from edge_cmcl.errors import RemoteError

READ_BYTES = 1 << 16


class LinkEnd(Exception):  # noqa: N818 - a replayed file ends; that is no error
    """There is no more to come, ever."""


class Link(Protocol):
    """A connection to a firmware. One thread may read while another one writes.

    Attributes:
        address: as it is told and recorded; without passwords.
    """

    address: str

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, at most 64 KiB; nothing if nothing does within `timeout_s`.

        Raises:
            RemoteError: the link is lost.
            LinkEnd: there is no more to come.
        """

    def write(self, data: bytes) -> None:
        """Send `data`.

        Raises:
            RemoteError: the link is lost, or takes nothing.
        """

    def close(self) -> None:
        """Let go of it; never fails."""


def lost(address: str, why: object) -> RemoteError:
    """Return the error that says that a link was there and is no more."""
    return RemoteError(f"{address} is lost", expected="a link that stays", got=str(why))


class SocketLink:
    """A TCP or unix socket.

    Attributes:
        address: see `Link`.
    """

    def __init__(self, address: str, connected: socket.socket, write_timeout_s: float = 5.0) -> None:
        self.address = address
        self._socket = connected
        self._socket.settimeout(write_timeout_s)

    def read(self, timeout_s: float) -> bytes:
        """See `Link.read`."""
        try:
            ready, _, _ = select.select([self._socket], [], [], timeout_s)
            if not ready:
                return b""
            data = self._socket.recv(READ_BYTES)
        except (OSError, ValueError) as error:
            raise lost(self.address, error) from None
        if not data:
            raise lost(self.address, "the other side has closed it")
        return data

    def write(self, data: bytes) -> None:
        """See `Link.write`."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise lost(self.address, error) from None

    def close(self) -> None:
        """See `Link.close`."""
        self._socket.close()
