"""How many requests, and how many bytes of them, a service holds at once; what is beyond is refused at the door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_cmcl.service.problems import Problem

RETRY_AFTER_S = 1


class Gate:
    """Bounds what is in the service. Used in the event loop's thread alone.

    Args:
        requests: how many may be inside: in work and waiting.
        bytes_: how many bytes of bodies.

    Attributes:
        inside: requests that are inside.
        refused: requests that were turned away so far.
    """

    def __init__(self, requests: int, bytes_: int) -> None:
        self.inside = 0
        self.refused = 0
        self._requests = requests
        self._bytes = bytes_
        self._taken = 0

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Let a request in whose body has at most `size` bytes.

        Raises:
            Problem: 503, there is no room.
        """
        if self.inside >= self._requests or self._taken + size > self._bytes:
            self.refused += 1
            raise Problem(
                503,
                "the service is busy",
                expected=f"at most {self._requests} requests and {self._bytes} bytes of bodies at once",
                got=f"{self.inside} requests, {self._taken} bytes",
                hint="ask again later; send fewer requests at once, or start it with more --workers or --queue",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self.inside += 1
        self._taken += size
        try:
            yield
        finally:
            self.inside -= 1
            self._taken -= size
