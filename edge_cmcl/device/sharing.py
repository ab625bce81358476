"""Sharing pairs that a device kept back with its host: only on request, signed, beside the generation in use.

What is shared are outputs of frozen encoders, of which recordings can be guessed: it is for those who may see them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Shared, shared_tag
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.device.attesting import written
from edge_cmcl.device.held_out import packed
from edge_cmcl.device.judgement import kept_pairs
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


@dataclass(frozen=True)
class Sharing:
    """What a device would share.

    Attributes:
        loaded: the generation in use, beside which it lies.
        document: names the files.
        files: the pairs, one file for each learned step.
        pairs: how many pairs, of all steps together.
        steps: ids of the origins that they are of.
    """

    loaded: Loaded
    document: Shared
    files: tuple[bytes, ...]
    pairs: int
    steps: tuple[str, ...]

    @property
    def tag(self) -> str:
        """Where it goes on a remote."""
        return shared_tag(self.document.manifest, self.document.device_id)


def share(store: Store, remote: Remote, count: int) -> SharedPairs:
    """Send at most `count` of the pairs that were kept back of each learned step.

    Raises:
        DataError: none were kept back.
        RemoteError: the other side is away.
        StorageError: there is no room.
    """
    sharing = to_share(store, count)
    with written(store, sharing.loaded.descriptor, sharing.document, sharing.files) as (layout, entry):
        sent = push_attached(layout, entry, remote, sharing.tag)
    return SharedPairs(sharing.pairs, sharing.steps, sent)


def to_share(store: Store, count: int) -> Sharing:
    """Return what `share` would send.

    Raises:
        DataError: no pairs were kept back.
    """
    kept = [held.first(count) for held in kept_pairs(store)]
    if not kept:
        raise DataError(
            "there are no pairs to share",
            expected="pairs that an update has kept back",
            got="none",
            hint="`edge-cmcl update --hold-back 0.1` keeps a tenth of a recording back",
        )
    loaded, files = store.load(CURRENT), tuple(packed(held) for held in kept)
    document = Shared(
        manifest=loaded.digest,
        device_id=store.state().device_id,
        created=timestamp(),
        files=tuple(map(digest_of, files)),
    )
    return Sharing(loaded, document, files, sum(held.n for held in kept), tuple(held.origin for held in kept))
