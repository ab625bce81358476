"""The device's store: installing a bundle, going back, and what is there."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Generation, Layout, Loaded, Store
from edge_cmcl.bundle.transfer import import_layout
from edge_cmcl.errors import ModelError, RefusedError, StoreLockedError

CURRENT = "current"
"""The tag of the generation in use."""

_TAG_PREFIX = "generation-"


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

    The first install makes the store and gives the device its id. What the device learned by itself is never replaced
    by a bundle that does not continue it.

    Raises:
        ModelError: `source` is no bundle.
        DigestError, FormatError: it is damaged; nothing was installed.
        RefusedError: the device holds generations that the bundle does not know.
        StoreLockedError, StorageError: the store cannot be written.
    """
    if not source.exists():
        raise ModelError(
            f"cannot read {source}", expected="a bundle: an OCI layout folder or a tar of one", got="no such path"
        )
    if path.exists():
        return _install(source, path)
    try:
        return _install(source, path)
    except StoreLockedError:  # another install began at the same time: the store is not ours to remove
        raise
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _install(source: Path, path: Path) -> Installed:
    store = Store.create(path)
    with store.writer():
        first = CURRENT not in store.tags()
        state = store.state()
        device_id = state.device_id or uuid.uuid4().hex
        store.save_state(state.model_copy(update={"device_id": device_id}))

        def accept(bundle: Loaded) -> None:
            if not first:
                _check_continues(store, bundle)

        digest = import_layout(source, store, tags=[CURRENT], accept=accept)
        generation = store.load(digest).generation
        store.set_tag(generation_tag(generation), digest)
        raise_counter(store, generation.counter)
    modalities = tuple(sorted(generation.modalities))
    return Installed(digest, generation.counter, generation.name, modalities, device_id, first)


def raise_counter(store: Store, counter: int) -> None:
    """Note that generation `counter` was current here, so that older bundles can be told apart."""
    state = store.state()
    if counter > state.highest_counter:
        store.save_state(state.model_copy(update={"highest_counter": counter}))


def store_bytes(store: Layout) -> int:
    """Return the bytes of all blobs in the store."""
    return sum(path.stat().st_size for path in store.blob_path("").iterdir())


def rollback(store: Store, ref: str = "") -> Loaded:
    """Make an older generation current again: the parent of the current one, or `ref`. Nothing is deleted.

    Raises:
        ModelError: there is no such generation here.
        DigestError: it is damaged; the current one stays.
    """
    with store.writer():
        current = store.load(CURRENT)
        target = ref or next((digest for digest in current.generation.parents if store.has(digest)), "")
        if not target:
            raise ModelError(
                "there is nothing to roll back to",
                expected="a parent of the current generation in the store",
                got=f"generation {current.generation.counter} is the first one installed",
                hint="`edge-cmcl log` lists what is here",
            )
        loaded = verify(store.load(target))
        store.set_tag(CURRENT, loaded.digest)
    return loaded


def verify(loaded: Loaded) -> Loaded:
    """Check every blob of a generation against its digest, and return it.

    Raises:
        DigestError: one is missing or damaged.
    """
    for layer in loaded.manifest.layers:
        loaded.layout.verify(layer)
    return loaded


def log(store: Layout) -> list[dict[str, Any]]:
    """Return every generation of the store, newest first, in JSON types; those rolled back from included."""
    tags = store.tags()
    own = [tag for tag in tags if tag == CURRENT or tag.startswith(_TAG_PREFIX)]
    found = {loaded.digest: loaded for tag in own for loaded in store.history(tag)}
    leading = {loaded.digest for loaded in store.history(CURRENT)}
    return [
        {
            "digest": digest,
            "counter": loaded.generation.counter,
            "created": loaded.generation.created,
            "action": loaded.generation.action,
            "device_id": loaded.generation.device_id,
            "modalities": sorted(loaded.generation.modalities),
            "parents": list(loaded.generation.parents),
            "current": digest == tags[CURRENT],
            "in_use": digest in leading,
        }
        for digest, loaded in sorted(found.items(), key=lambda item: _age(item[1]), reverse=True)
    ]


def generation_tag(generation: Generation) -> str:
    """Return the tag that keeps a generation findable after a rollback: its counter and time of creation."""
    return f"{_TAG_PREFIX}{generation.counter}-{generation.created.replace(':', '')}"


def _age(loaded: Loaded) -> tuple[int, str, str]:
    return loaded.generation.counter, loaded.generation.created, loaded.digest


def _check_continues(store: Store, bundle: Loaded) -> None:
    current = store.load(CURRENT)
    known = {bundle.digest, *bundle.generation.parents}
    if current.generation.device_id and current.digest not in known:
        raise RefusedError(
            "the bundle would replace what this device has learned by itself",
            expected=f"a bundle that continues generation {current.generation.counter} ({current.digest[:19]})",
            got=f"{bundle.generation.name}, generation {bundle.generation.counter} ({bundle.digest[:19]})",
            hint="`edge-cmcl rollback` to the installed base first, or use another --store",
        )
