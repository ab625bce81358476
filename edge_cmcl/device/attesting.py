"""Writing a signed document as it is sent: in a folder of its own, since the store may be busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.attested import Judgement, Report, Shared, attest
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.media_types import HELD_OUT_PAIRS
from edge_cmcl.device.signing import signing_key


@contextmanager
def written(
    store: Store, subject: Descriptor, document: Judgement | Report | Shared, files: Sequence[bytes] = ()
) -> Iterator[tuple[Store, Descriptor]]:
    """Sign a document with this device's key; yield the layout in which it lies, and its manifest.

    Args:
        store: the device store.
        subject: manifest that the document is about.
        document: what is signed.
        files: what it names by digest.

    Raises:
        FormatError: this device's keys are damaged.
        StorageError: there is no room.
    """
    key, rotations = signing_key(store)
    with TemporaryDirectory(prefix="edge-cmcl-says-") as folder:
        scratch = Store.create(Path(folder) / "layout")
        with scratch.writer():
            further = [Descriptor(media_type=HELD_OUT_PAIRS, digest=scratch.put(f), size=len(f)) for f in files]
            entry = attest(scratch, subject, document, [key], rotations, further)
        yield scratch, entry
