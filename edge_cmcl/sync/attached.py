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
from edge_cmcl.sync.push import Item
from edge_cmcl.sync.remote import Remote


def plan_attached(layout: Layout, entry: Descriptor, remote: Remote, tag: str) -> list[Item]:
    """Return what the manifest `entry` of `layout` consists of, each once, in the order in which it is sent.

    Raises:
        RemoteError: the remote is away or refuses.
        DigestError, FormatError: it is damaged here, or the remote answers nonsense.
    """
    manifest = from_json(Manifest, layout.read(entry), f"the manifest of {tag}")
    subject = manifest.subject.digest if manifest.subject else ""
    blobs = {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
    items = [Item(blob, subject, remote.has(blob), attached=True) for blob in blobs.values()]
    return [*items, Item(entry, subject, there=False, attached=True, tag=tag)]


def push_attached(layout: Layout, entry: Descriptor, remote: Remote, tag: str) -> int:
    """Send the manifest `entry` of `layout` and what the remote lacks of its blobs; `tag` moves last.

    Returns:
        The bytes sent.

    Raises:
        RemoteError: the remote is away, refuses or is full.
        DigestError, FormatError: it is damaged here, or the remote lies.
    """
    lacking = [item for item in plan_attached(layout, entry, remote, tag) if not item.there]
    for item in lacking:
        if item.tag:
            remote.put(tag, layout.read(entry), entry.media_type)
        else:
            remote.upload(item.blob, layout.blob_path(item.blob.digest))
    remote.settle()
    return sum(item.blob.size for item in lacking)


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
