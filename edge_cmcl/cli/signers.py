"""With which keys a host signs: files that its user names, or the user's own key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cmcl.cli.options import host_keys

if TYPE_CHECKING:
    from edge_cmcl.bundle.envelope import Envelope
    from edge_cmcl.bundle.keys import PrivateKey

Key = Annotated[
    list[Path] | None,
    typer.Option("--key", help="A private key file to sign with; repeat. [default: this user's own key]"),
]


def signers(files: Sequence[Path] | None) -> tuple[list[PrivateKey], tuple[Envelope, ...]]:
    """Return the keys to sign with, and how this user's own came after others.

    Raises:
        ModelError: a file is no private key.
        StoreLockedError, StorageError: the user's own key cannot be made.
    """
    from edge_cmcl.bundle.keyring import own_key
    from edge_cmcl.bundle.keys import read_private_key

    if files:
        return [read_private_key(path) for path in files], ()
    own, trust = own_key(host_keys())
    return [own], trust.rotations()
