"""The device's store: installing a bundle, and what is there."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cmcl.bundle import Layout, Loaded, Store, timestamp
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.store_files import discard
from edge_cmcl.bundle.tags import GENERATION_TAG, free_tag
from edge_cmcl.bundle.transfer import import_layout, opened
from edge_cmcl.device.intact import fallbacks, intact
from edge_cmcl.device.trial import begun, noted
from edge_cmcl.durable import make_folder, storage_errors, sync_folder
from edge_cmcl.errors import IntegrityError, ModelError, PlatformError, RefusedError

if TYPE_CHECKING:
    from edge_cmcl.bundle.verification import Admitted, Consent

CURRENT = "current"
"""The tag of the generation in use."""

PREVIOUS = "previous"
"""The tag of the generation that the last `install` replaced, where the new one is no child of it."""


@dataclass(frozen=True)
class Installed:
    """What `install` did.

    Attributes:
        digest, counter, name, modalities: of the generation now current.
        device_id: the device's id.
        first: whether it is a first install.
        signed_by: fingerprint of the trusted key that has signed it, "" where it was let in without one.
        mended: damaged files that were written anew from the bundle, while the generation in use, grown from it, stays.
            0 where the bundle itself was installed.
    """

    digest: str
    counter: int
    name: str
    modalities: tuple[str, ...]
    device_id: str
    first: bool
    signed_by: str
    mended: int = 0

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


def install(source: Path, path: Path, *, trust: str | Path = "", allow_unsigned: bool = False) -> Installed:
    """Install the bundle at `source` (an OCI layout folder, or a tar of one) into the store at `path`.

    The first install makes the store and gives the device its id and its own key. Before anything changes, the bundle
    must be signed by a trusted key (`verification`), be one for this device (`admission`) and pass its self-test here
    (`self_test`).

    Args:
        source: the bundle.
        path: the store.
        trust: fingerprint or file of a public key that has signed the bundle and is to be trusted from now on; "" for
            those that are trusted already.
        allow_unsigned: let it in although no trusted key has signed it; the store's state says so.

    Raises:
        ModelError: `source` is no bundle.
        UsageError: `trust` is neither a fingerprint nor a file.
        DigestError, FormatError: it is damaged; nothing was installed.
        SignatureError: its signature is wrong.
        ParityError: it embeds its golden windows differently on this device.
        RefusedError: it is not signed by a trusted key, belongs to another project, device class or history, is older,
            or cannot run here; each has a class of its own (`errors`).
        StoreLockedError, StorageError: the store cannot be written.
    """
    from edge_cmcl.device.signing import consent

    said = consent(trust, allow_unsigned)
    if not source.exists():
        raise ModelError(
            f"cannot read {source}", expected="a bundle: an OCI layout folder or a tar of one", got="no such path"
        )
    made = _make_folder(path)
    try:
        return _install(source, path, said)
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


def _install(source: Path, path: Path, said: Consent) -> Installed:
    # onnxruntime and cryptography come with these; `log` and `rollback` do not wait for it.
    from edge_cmcl.device.admission import check_admissible
    from edge_cmcl.device.model import Model
    from edge_cmcl.device.self_test import self_test
    from edge_cmcl.device.signing import admit, keep_keys, recorded

    store = Store.create(path)
    with store.writer():
        state = store.state()
        device_id = state.device_id or uuid.uuid4().hex
        store.save_state(state.model_copy(update={"device_id": device_id}))
        current = in_use(store)
        known = generations(store)
        admissions: list[tuple[Admitted, dict[str, Descriptor]]] = []

        def admit_signed(bundle: Loaded) -> None:
            here = {each.digest for each in known}
            admissions.append(admit(store, bundle, said, bundle.digest in here))
            check_admissible(bundle, store.state(), current, known)

        def accept(bundle: Loaded) -> dict[str, Descriptor]:
            self_test(Model(bundle))
            admission, kept_signature = admissions[0]
            keep_keys(store, admission)
            state = noted(store.state(), current.generation.counter if current else 0)
            state = begun(state, current.digest if current else None, bundle.digest, timestamp())
            store.save_state(recorded(state, store, bundle.digest, admission))
            return {**_tags(store, bundle, current), **kept_signature}

        mended = 0
        try:
            digest = import_layout(source, store, admit=admit_signed, accept=accept)
        except RefusedError:
            if not admissions or current is None:
                raise
            mended = _mended(store, source, current)
            if not mended:
                raise
            digest = store.tags()[CURRENT]
        generation = store.load(digest).generation
    modalities = tuple(sorted(generation.modalities))
    signer = admissions[0][0].signed_by
    return Installed(
        digest, generation.counter, generation.name, modalities, device_id, current is None, signer, mended
    )


def _mended(store: Store, source: Path, current: Loaded) -> int:
    """Mend `store` from a bundle whose key is trusted, but that is refused: it is older than what grew from it here."""
    from edge_cmcl.bundle.mending import mend

    with opened(source) as bundle:
        ours = bundle.digest in {current.base, *(each.digest for each in generations(store))}
        return mend(store, bundle) if ours else 0


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


def generations(store: Layout, *, whole: bool = False) -> list[Loaded]:
    """Return every generation of the store, newest first.

    Args:
        store: the device store.
        whole: raise for a damaged one, instead of leaving it out with those that are found only through it.

    Raises:
        DigestError, FormatError: one is damaged, and `whole` is set.
    """
    own = [d for tag, d in store.tags().items() if tag in (CURRENT, PREVIOUS) or tag.startswith(GENERATION_TAG)]
    return sorted(store.lineage(own, past=() if whole else (IntegrityError,)), key=_age, reverse=True)


def in_use(store: Store) -> Loaded | None:
    """Return the generation in use or, where it is damaged, what could be used instead; None where nothing is."""
    current = store.tags().get(CURRENT)
    if current is None:
        return None
    try:
        return store.load_manifest(current)
    except DAMAGED:
        return next(intact(store, fallbacks(store, current)), None)


def _age(loaded: Loaded) -> tuple[int, str, str]:
    return loaded.generation.counter, loaded.generation.created, loaded.digest
