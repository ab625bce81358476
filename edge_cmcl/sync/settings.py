"""What a caller may set of the link to a remote, and the name of each limit in time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 60.0
CONNECT_S = 10.0
SILENCE_S = 30.0
"""A connection that moves nothing for so long is dead; TCP gets over a cut of 5 s in at most 7."""


@dataclass(frozen=True)
class LinkSettings:
    """How to talk to a remote; the defaults suit a device on a bad link.

    Attributes:
        work: folder that keeps what another process needs to go on with an upload; None to keep nothing.
        ca_file: certificates (PEM) to trust instead of the system's, or of those in the variable SSL_CERT_FILE.
        plain_http: allow http without TLS to other hosts than this one.
        known_hosts: instead of ~/.ssh/known_hosts.
        identity: private key of ssh, instead of those of the agent, ~/.ssh/config and ~/.ssh.
        bytes_per_s: cap on what is sent and received, payloads only; None for none.
        patience_s: seconds that one step is tried again for while the remote is away.
        time_limit_s: seconds after which no more is begun, however it goes; None for none.
    """

    work: Path | None = None
    ca_file: Path | None = None
    plain_http: bool = False
    known_hosts: Path | None = None
    identity: Path | None = None
    bytes_per_s: float | None = None
    patience_s: float = PATIENCE_S
    time_limit_s: float | None = None
