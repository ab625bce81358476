"""The device's store: installing a bundle, and what is there."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Layout, Loaded, Store, timestamp
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.store_folder import discard
from edge_cmcl.bundle.tags import GENERATION_TAG, free_tag
from edge_cmcl.bundle.transfer import import_layout
from edge_cmcl.device.trial import begun, noted
from edge_cmcl.durable import make_folder, storage_errors, sync_folder
from edge_cmcl.errors import ModelError, PlatformError

CURRENT = "current"
"""The tag of the generation in use."""

PREVIOUS = "previous"
"""The tag of the generation that the last `install` replaced, where the new one is no child of it."""


@dataclass(frozen=True)
class Installed:
    """What `install` did: the generation now current, whether it is a first install, and the device's id."""

    digest: str
    counter: int
    name: str
    modalities: tuple[str, ...]
    device_id: str
    first: bool

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def open_store(path: Path | str) -> Store:
    """Open the device store at `path`.

    Raises:
        ModelError: nothing is installed there.
    """
    try:
        store = Store(Path(path))
    except ModelError as error:
        raise ModelError(
            f"nothing is installed in {path}",
            expected="a store made by `edge-cmcl install BUNDLE`",
            got=error.got,
            hint="install a bundle first, or name another store with --store or EDGE_CMCL_STORE",
        ) from error
    if CURRENT not in store.tags():
        raise ModelError(f"nothing is installed in {path}", expected="a generation tagged current", got="none")
    return store


def install(source: Path, path: Path) -> Installed:
    """Install the bundle at `source` (an OCI layout folder, or a tar of one) into the store at `path`.

    The first install makes the store and gives the device its id. Before anything changes, the bundle must be one for
    this device (`admission`) and pass its self-test here (`self_test`).

    Raises:
        ModelError: `source` is no bundle.
        DigestError, FormatError: it is damaged; nothing was installed.
        ParityError: it embeds its golden windows differently on this device.
        RefusedError: it belongs to another project, device class or history, is older, or cannot run here.
        StoreLockedError, StorageError: the store cannot be written.
    """
    if not source.exists():
        raise ModelError(
            f"cannot read {source}", expected="a bundle: an OCI layout folder or a tar of one", got="no such path"
        )
    made = _make_folder(path)
    try:
        return _install(source, path)
    except BaseException:
        if made:
            with suppress(PlatformError):  # another process works in it by now, or the disk is full: it stays
                discard(path)
        raise


def _make_folder(path: Path) -> bool:
    """Return whether this very process made the folder `path`."""
    make_folder(path.parent)
    with storage_errors(path):
        try:
            path.mkdir()
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True


def _install(source: Path, path: Path) -> Installed:
    # onnxruntime comes with these; `log` and `rollback` do not wait for it.
    from edge_cmcl.device.admission import check_admissible
    from edge_cmcl.device.model import Model
    from edge_cmcl.device.self_test import self_test

    store = Store.create(path)
    with store.writer():
        state = store.state()
        device_id = state.device_id or uuid.uuid4().hex
        store.save_state(state.model_copy(update={"device_id": device_id}))
        current = store.load(CURRENT) if CURRENT in store.tags() else None

        def accept(bundle: Loaded) -> dict[str, Descriptor]:
            check_admissible(bundle, store.state(), current, generations(store))
            self_test(Model(bundle))
            state = noted(store.state(), current.generation.counter if current else 0)
            store.save_state(begun(state, current.digest if current else None, bundle.digest, timestamp()))
            return _tags(store, bundle, current)

        digest = import_layout(source, store, accept=accept)
        generation = store.load(digest).generation
    modalities = tuple(sorted(generation.modalities))
    return Installed(digest, generation.counter, generation.name, modalities, device_id, current is None)


def _tags(store: Store, bundle: Loaded, current: Loaded | None) -> dict[str, Descriptor]:
    """Return what the tags of `store` point to when `bundle` becomes current."""
    tags = {CURRENT: bundle.descriptor, free_tag(bundle, store.tags()): bundle.descriptor}
    if current is not None and bundle.digest != current.digest and current.digest not in bundle.generation.parents:
        tags[PREVIOUS] = current.descriptor
    return tags


def store_bytes(store: Layout) -> int:
    """Return the bytes of all blobs in the store; a writer may add and remove files meanwhile."""
    total = 0
    for path in store.blob_path("").iterdir():
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def generations(store: Layout) -> list[Loaded]:
    """Return every generation of the store, newest first."""
    own = [tag for tag in store.tags() if tag in (CURRENT, PREVIOUS) or tag.startswith(GENERATION_TAG)]
    return sorted(store.history(*own), key=_age, reverse=True)


def _age(loaded: Loaded) -> tuple[int, str, str]:
    return loaded.generation.counter, loaded.generation.created, loaded.digest
