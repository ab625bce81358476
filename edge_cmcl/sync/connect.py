"""The way to a remote by its address."""

from __future__ import annotations

import importlib.util

from edge_cmcl.errors import MissingExtraError, UsageError
from edge_cmcl.sync.address import parse_address
from edge_cmcl.sync.remote import Remote
from edge_cmcl.sync.settings import LinkSettings


def connect(url: str, settings: LinkSettings | None = None) -> Remote:
    """Return the remote at `url`; the first request opens the connection.

    Args:
        url: `oci://host[:port]/repository`, `file:///path` or `ssh://[user@]host[:port]/path`.
        settings: how to talk to it.

    Raises:
        UsageError: `url` is none of these, or a setting does not fit.
        MissingExtraError: ssh, and asyncssh is not installed.
    """
    address = parse_address(url)
    settings = settings or LinkSettings()
    if settings.bytes_per_s is not None and not settings.bytes_per_s > 0:
        raise UsageError("the bandwidth cap lets nothing through", expected="above 0", got=str(settings.bytes_per_s))
    if address.scheme == "oci":
        from edge_cmcl.sync.registry import Registry

        return Registry(address, settings)
    from edge_cmcl.sync.folder import Folder

    if address.scheme == "file":
        from edge_cmcl.sync.local_files import LocalFiles

        return Folder(address, settings, LocalFiles)
    if importlib.util.find_spec("asyncssh") is None:
        raise MissingExtraError(
            "ssh remotes need a part of edge-cmcl that is not installed",
            expected="asyncssh",
            got="none",
            hint="pip install '.[ssh]' in a checkout of edge-cmcl",
        )
    from edge_cmcl.sync.sftp_files import SftpFiles

    return Folder(address, settings, SftpFiles)
