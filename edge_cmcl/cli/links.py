"""Options of every command that talks to a remote, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_cmcl.sync.remote import Remote

Limit = Annotated[
    float | None, typer.Option("--limit", min=0.001, help="Kilobytes per second that may be sent and received.")
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="Certificates (PEM) to trust, instead of the system's.")]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Talk to a registry without TLS.")]
KnownHosts = Annotated[Path | None, typer.Option("--known-hosts", help="Of ssh. [default: ~/.ssh/known_hosts]")]
Identity = Annotated[Path | None, typer.Option("--identity", help="A private key of ssh. [default: as ssh does]")]
Patience = Annotated[
    float, typer.Option("--patience", min=0.0, help="Seconds to try each step again while the remote is away.")
]
PATIENCE_S = 60.0

REMOTE = "oci://host[:port]/repository, file:///folder or ssh://[user@]host[:port]/folder."


def remote_at(
    url: str,
    work: Path,
    limit: float | None,
    ca_file: Path | None,
    plain_http: bool,
    known_hosts: Path | None,
    identity: Path | None,
    patience: float,
) -> Remote:
    """Return the remote at `url`.

    Args:
        url: its address.
        work: folder for what a later process needs to go on with an upload, made where there is none.
        limit: kilobytes per second, None for no limit.
        ca_file, plain_http, known_hosts, identity, patience: see `sync.settings`.

    Raises:
        UsageError: `url` is no address of a remote.
        MissingExtraError: ssh, and asyncssh is not installed.
    """
    from edge_cmcl.durable import make_folder
    from edge_cmcl.sync.connect import connect
    from edge_cmcl.sync.settings import LinkSettings

    make_folder(work)
    settings = LinkSettings(
        work=work,
        ca_file=ca_file,
        plain_http=plain_http,
        known_hosts=known_hosts,
        identity=identity,
        bytes_per_s=None if limit is None else limit * 1000.0,
        patience_s=patience,
    )
    return connect(url, settings)
