"""Small signed documents on a remote: each a manifest under a tag of its own, with its two or three blobs (SYNC.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_cmcl.bundle import Layout
from edge_cmcl.bundle.documents import Descriptor, Manifest, from_json
from edge_cmcl.bundle.limits import MAX_ATTACHMENT_BYTES
from edge_cmcl.bundle.media_types import OCI_MANIFEST
from edge_cmcl.errors import FormatError
from edge_cmcl.sync.remote import Remote


def push_attached(layout: Layout, entry: Descriptor, remote: Remote, tag: str) -> int:
    """Send the manifest `entry` of `layout` and what the remote lacks of its blobs; `tag` moves last.

    Returns:
        The bytes sent.

    Raises:
        RemoteError: the remote is away, refuses or is full.
        DigestError, FormatError: it is damaged here, or the remote lies.
    """
    data, sent = layout.read(entry), 0
    manifest = from_json(Manifest, data, f"the manifest of {tag}")
    for blob in (manifest.config, *manifest.layers):
        if not remote.has(blob):
            remote.upload(blob, layout.blob_path(blob.digest))
            sent += blob.size
    remote.put(tag, data, entry.media_type)
    remote.settle()
    return sent + len(data)


def blob_reader(remote: Remote) -> Callable[[Descriptor], bytes]:
    """Return a function that reads a small blob or manifest of `remote`, its size and digest checked.

    It raises as the remote does, and FormatError for one that is not small, or gone.
    """

    def read(blob: Descriptor) -> bytes:
        if blob.size > MAX_ATTACHMENT_BYTES:
            expected = f"at most {MAX_ATTACHMENT_BYTES} bytes"
            raise FormatError(f"{remote.name}: a document is too large", expected=expected, got=f"{blob.size} bytes")
        if blob.media_type == OCI_MANIFEST:
            data = remote.manifest(blob.digest)
            if data is None:
                raise FormatError(f"{remote.name}: a manifest is gone", expected=blob.digest, got="none")
            return data
        with TemporaryDirectory(prefix="edge-cmcl-reads-") as folder:
            target = Path(folder) / "blob"
            remote.download(blob, target)
            return target.read_bytes()

    return read
