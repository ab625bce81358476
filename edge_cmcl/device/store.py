"""The device's store: installing a bundle, going back, and what is there."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cmcl.bundle import Generation, Layout, Loaded, Store, timestamp
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.store import GENERATION_TAG
from edge_cmcl.bundle.store_files import discard
from edge_cmcl.bundle.transfer import import_layout
from edge_cmcl.device.trial import begun, ended
from edge_cmcl.durable import make_folder, storage_errors, sync_folder
from edge_cmcl.errors import ModelError, PlatformError

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
    """

    digest: str
    counter: int
    name: str
    modalities: tuple[str, ...]
    device_id: str
    first: bool
    signed_by: str

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
        current = store.load(CURRENT) if CURRENT in store.tags() else None
        known = _generations(store)
        admissions: list[Admitted] = []

        def admit_signed(bundle: Loaded) -> None:
            here = {each.digest for each in known}
            admissions.append(admit(store, bundle, said, bundle.digest in here))
            check_admissible(bundle, store.state(), current, known)

        def accept(bundle: Loaded) -> dict[str, Descriptor]:
            self_test(Model(bundle))
            keep_keys(store, admissions[0])
            state = begun(store.state(), current.digest if current else None, bundle.digest, timestamp())
            store.save_state(recorded(state, store, bundle.digest, admissions[0]))
            return _tags(store, bundle, current)

        digest = import_layout(source, store, admit=admit_signed, accept=accept)
        generation = store.load(digest).generation
        raise_counter(store, generation.counter)
    modalities = tuple(sorted(generation.modalities))
    signer = admissions[0].signed_by
    return Installed(digest, generation.counter, generation.name, modalities, device_id, current is None, signer)


def _tags(store: Store, bundle: Loaded, current: Loaded | None) -> dict[str, Descriptor]:
    """Return what the tags of `store` point to when `bundle` becomes current."""
    name = generation_tag(bundle.generation)
    if store.tags().get(name, bundle.digest) != bundle.digest:
        name += f"-{bundle.digest[7:15]}"  # two exports of one run have one time
    tags = {CURRENT: bundle.descriptor, name: bundle.descriptor}
    if current is not None and bundle.digest != current.digest and current.digest not in bundle.generation.parents:
        tags[PREVIOUS] = current.descriptor
    return tags


def raise_counter(store: Store, counter: int) -> None:
    """Note that generation `counter` was current here, so that older bundles can be told apart."""
    state = store.state()
    if counter > state.highest_counter:
        store.save_state(state.model_copy(update={"highest_counter": counter}))


def store_bytes(store: Layout) -> int:
    """Return the bytes of all blobs in the store; a writer may add and remove files meanwhile."""
    total = 0
    for path in store.blob_path("").iterdir():
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def rollback(store: Store, ref: str = "") -> Loaded:
    """Make an older generation current again, confirmed: it is a decision of its user. Nothing is deleted.

    Args:
        store: the device store.
        ref: a tag, a digest or the start of one, or a counter that one generation alone has; by default the parent of
            the current one or, where that is not here, what the last `install` replaced.

    Raises:
        ModelError: there is no such generation here, or several.
        DigestError: it is damaged; the current one stays.
    """
    with store.writer():
        current = store.load(CURRENT)
        loaded = store.load(_named(store, ref) if ref else _before(store, current))
        check_digests(loaded)
        last = store.tags().get(PREVIOUS) == loaded.digest
        store.set_tag(CURRENT, loaded.digest, drop=[PREVIOUS] if last else ())
        store.save_state(ended(store.state()))
    return loaded


def _before(store: Store, current: Loaded) -> str:
    """Return the digest of what was current before `current`."""
    for digest in current.generation.parents:
        if store.has(digest):
            return digest
    found = store.tags().get(PREVIOUS)
    if found is None:
        raise ModelError(
            "there is nothing to roll back to",
            expected="a parent of the current generation in the store, or one that an install replaced",
            got=f"generation {current.generation.counter} is the first one installed",
            hint="`edge-cmcl log` lists what is here",
        )
    return found


def _named(store: Store, ref: str) -> str:
    """Return `ref`, or the digest of the only generation with that counter."""
    if ref in store.tags() or not ref.isdecimal():
        return ref
    found = [loaded.digest for loaded in _generations(store) if str(loaded.generation.counter) == ref]
    if len(found) > 1:
        raise ModelError(
            f"there are {len(found)} generations {ref} here",
            expected="a tag or digest of one of them",
            got=", ".join(" ".join([digest[7:19], *_tags_of(store, digest)]) for digest in found),
            hint="`edge-cmcl log` lists what is here",
        )
    return found[0] if found else ref


def log(store: Layout) -> list[dict[str, Any]]:
    """Return every generation of the store, newest first, in JSON types; those rolled back from included."""
    from edge_cmcl.device.signing import keyring, signed_by

    leading = {loaded.digest for loaded in store.history(CURRENT)}
    trust, entries = keyring(store).trust(), store.index().manifests
    current = store.tags()[CURRENT]
    return [
        {
            "digest": loaded.digest,
            "counter": loaded.generation.counter,
            "created": loaded.generation.created,
            "action": loaded.generation.action,
            "device_id": loaded.generation.device_id,
            "modalities": sorted(loaded.generation.modalities),
            "parents": list(loaded.generation.parents),
            "tags": _tags_of(store, loaded.digest),
            "current": loaded.digest == current,
            "in_use": loaded.digest in leading,
            "signed_by": vars(signed_by(loaded, trust, entries)).copy(),
        }
        for loaded in _generations(store)
    ]


def _generations(store: Layout) -> list[Loaded]:
    """Return every generation of the store, newest first."""
    own = [tag for tag in store.tags() if tag in (CURRENT, PREVIOUS) or tag.startswith(GENERATION_TAG)]
    return sorted(store.history(*own), key=_age, reverse=True)


def _tags_of(store: Layout, digest: str) -> list[str]:
    return sorted(tag for tag, found in store.tags().items() if found == digest)


def generation_tag(generation: Generation) -> str:
    """Return the tag that keeps a generation findable after a rollback: its counter and time of creation."""
    return f"{GENERATION_TAG}{generation.counter}-{generation.created.replace(':', '')}"


def _age(loaded: Loaded) -> tuple[int, str, str]:
    return loaded.generation.counter, loaded.generation.created, loaded.digest
