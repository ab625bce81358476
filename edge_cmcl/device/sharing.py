"""Sharing pairs that a device kept back with its host: only on request, signed, beside the generation in use.

What is shared are outputs of frozen encoders, of which recordings can be guessed: it is for those who may see them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_cmcl.bundle import Store, timestamp
from edge_cmcl.bundle.attested import Shared, attest, shared_tag
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.media_types import HELD_OUT_PAIRS
from edge_cmcl.device.held_out import packed
from edge_cmcl.device.judgement import kept_pairs
from edge_cmcl.device.signing import signing_key
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import DataError
from edge_cmcl.sync.attached import push_attached
from edge_cmcl.sync.remote import Remote


@dataclass(frozen=True)
class SharedPairs:
    """What was shared.

    Attributes:
        pairs: how many pairs, of all learned steps together.
        steps: ids of the origins that they are of.
        bytes: what was sent.
    """

    pairs: int
    steps: tuple[str, ...]
    bytes: int


def share(store: Store, remote: Remote, count: int) -> SharedPairs:
    """Send at most `count` of the pairs that were kept back of each learned step.

    Raises:
        DataError: none were kept back.
        RemoteError: the other side is away.
        StorageError: there is no room.
    """
    kept = [held.first(count) for held in kept_pairs(store)]
    if not kept:
        raise DataError(
            "there are no pairs to share",
            expected="pairs that an update has kept back",
            got="none",
            hint="`edge-cmcl update --hold-back 0.1` keeps a tenth of a recording back",
        )
    loaded, device = store.load(CURRENT), store.state().device_id
    key, rotations = signing_key(store)
    with TemporaryDirectory(prefix="edge-cmcl-shares-") as folder:
        scratch = Store.create(Path(folder) / "layout")
        with scratch.writer():
            files = [_put(scratch, packed(held)) for held in kept]
            document = Shared(
                manifest=loaded.digest,
                device_id=device,
                created=timestamp(),
                files=tuple(file.digest for file in files),
            )
            entry = attest(scratch, loaded, document, [key], rotations, files)
        sent = push_attached(scratch, entry, remote, shared_tag(loaded.digest, device))
    return SharedPairs(sum(held.n for held in kept), tuple(held.origin for held in kept), sent)


def _put(store: Store, data: bytes) -> Descriptor:
    return Descriptor(media_type=HELD_OUT_PAIRS, digest=store.put(data), size=len(data))
