"""What a device found of a generation that it took, kept until the host has it: a cut in between must not lose it.

It is written before the generation is installed, and means nothing where that did not come to pass: then the offer is
judged again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.attested import Judgement
from edge_cmcl.bundle.documents import from_json, to_json
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.limits import MAX_DOCUMENT_BYTES
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.device.decisions import leading
from edge_cmcl.device.reporting import tell_judgement
from edge_cmcl.durable import make_folder, storage_errors, write_bytes
from edge_cmcl.sync.remote import Remote

_FILE = "verdict.json"


def keep(store: Store, judgement: Judgement) -> None:
    """Write down what is to be told of a generation that is about to be installed.

    Raises:
        StorageError: there is no room.
    """
    make_folder(store.root / SYNC_FOLDER)
    write_bytes(_path(store), to_json(judgement))


def drop(store: Store) -> None:
    """Forget what was kept: it was told, or what it is of was not taken.

    Raises:
        StorageError: the file system refused.
    """
    path = _path(store)
    with storage_errors(path):
        for left in (path, *path.parent.glob(f".{_FILE}.*.tmp")):
            left.unlink(missing_ok=True)


def untold(store: Store) -> tuple[Judgement, Loaded] | None:
    """Return what an earlier sync could not tell any more, and what it is of; None where there is nothing."""
    with suppress(*DAMAGED):  # it is missing, or of no use
        judgement = from_json(Judgement, read_file(_path(store), MAX_DOCUMENT_BYTES), "what is to be told")
        reverted = store.state().reverted
        taken = leading(store) | ({reverted.digest} if reverted else set())
        if judgement.manifest in taken:
            return judgement, store.load_manifest(judgement.manifest)
    return None


def tell(store: Store, remote: Remote) -> None:
    """Tell the host what an earlier sync could not tell any more.

    Raises:
        RemoteError, FormatError, StorageError: as `tell_judgement`; the next sync tells it.
    """
    found = untold(store)
    if found is not None:
        judgement, loaded = found
        tell_judgement(store, remote, loaded, judgement)
    drop(store)


def _path(store: Store) -> Path:
    return store.root / SYNC_FOLDER / _FILE
