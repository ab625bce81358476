"""What a service is asked to be, and the bounds that hold for every one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

BODY_S = 30.0
"""How long a client may take to send a body."""
ANSWER_S = 30.0
"""How long a client may take to read an answer."""
DRAIN_S = 30
"""How long a service that was told to stop finishes what it has."""
KEEP_ALIVE_S = 75
MAX_CONNECTIONS = 512
"""Open connections; one beyond it is answered by the server itself, with a bare 503."""
POLL_S = 1.0
"""How often the store is asked for another generation: one `stat`."""
BODIES = 4
"""Bodies of the largest size that may be in memory at once; more smaller ones."""


@dataclass(frozen=True)
class Settings:
    """One service.

    Attributes:
        store: the device store.
        socket: path of the unix socket; None to listen on `host` and `port`.
        host: an address, or localhost.
        port: a TCP port, 0 for a free one.
        allow_remote: whether `host` may be reached from elsewhere.
        workers: requests computed at once, each on one thread.
        queue: requests that wait beside those.
        max_body_bytes: the largest body of a request.
    """

    store: Path
    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    allow_remote: bool = False
    workers: int = 1
    queue: int = 64
    max_body_bytes: int = 16 << 20


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
