"""A link that comes back by itself when it was lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

from edge_cmcl.errors import RemoteError
from firmware_bridge.links.link import Link

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


class KeptLink:
    """Reads from a link and opens it again, with growing pauses, for as long as it is away.

    Args:
        opened: the link, open.
        reopen: opens it again.

    Attributes:
        address: of the link.
        reconnects: how often it came back.
        away: why it is away; "" while it is there.
    """

    def __init__(self, opened: Link, reopen: Callable[[], Link]) -> None:
        self.address = opened.address
        self.reconnects = 0
        self.away = ""
        self._link: Link | None = opened
        self._reopen = reopen
        self._pause_s = FIRST_PAUSE_S
        self._next_try_s = 0.0

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, nothing within `timeout_s` or while the link is away.

        Raises:
            LinkEnd: there is no more to come.
        """
        link = self._link or self._try_again(timeout_s)
        if link is None:
            return b""
        try:
            return link.read(timeout_s)
        except RemoteError as error:
            self._lose(link, error)
            return b""

    def write(self, data: bytes) -> bool:
        """Send `data`, if the link is there; return whether it was."""
        link = self._link
        if link is None:
            return False
        try:
            link.write(data)
        except RemoteError as error:
            self.away = error.got or error.message
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _lose(self, link: Link, error: RemoteError) -> None:
        self._link = None
        self.away = error.got or error.message
        with suppress(RemoteError):
            link.close()
        self._pause_s = FIRST_PAUSE_S
        self._next_try_s = time.monotonic() + self._pause_s

    def _try_again(self, timeout_s: float) -> Link | None:
        """Open the link again when its time has come; else wait for that, at most `timeout_s`."""
        wait_s = self._next_try_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            return None
        try:
            link = self._reopen()
        except RemoteError as error:
            self.away = error.got or error.message
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            # Many devices that lost one broker must not come back at the same instant.
            self._next_try_s = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
            return None
        self._link, self.away = link, ""
        self.reconnects += 1
        return link
