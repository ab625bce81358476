"""Signed bundles on a device: what `install` and `update` do with keys and signatures on the disk."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from changed_bundles import changed_bundle
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.keys import PrivateKey, read_private_key, read_public_key
from edge_cmcl.bundle.signature import read_signature, signature_tag, write_signature
from edge_cmcl.bundle.statement import endorsement
from edge_cmcl.bundle.transfer import export_layout, import_layout
from edge_cmcl.device.generations import log, rollback
from edge_cmcl.device.keys import revoke, rotate, trust
from edge_cmcl.device.signing import keyring, signed, signed_by
from edge_cmcl.device.status import status
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.errors import (
    FormatError,
    RefusedError,
    RevokedKeyError,
    SignatureError,
    UnsignedError,
    UntrustedKeyError,
    UsageError,
)


def resigned(machine: Machine, folder: Path, *signers: PrivateKey, rotations: tuple = (), **update: object) -> Path:  # type: ignore[type-arg]
    """Write the machine's bundle with fields changed, signed anew, to a tar in `folder`."""
    plain = changed_bundle(machine.bundle, folder, update)
    store = Store.create(folder / "signing")
    with store.writer():
        loaded = store.load(import_layout(plain, store, tags=["plain"]))
        generation = loaded.generation
        store.commit(generation, ["signed"], lambda new: write_signature(store, new, signers, rotations))
    export_layout(store, "signed", folder / "signed.tar")
    return folder / "signed.tar"


def files(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.name != "lock"}


def refused(error: type[RefusedError] | type[SignatureError], bundle: Path, root: Path, **said: object) -> str:
    """Install, expect `error` and a store that is as it was; return what to do."""
    before = files(root)
    with pytest.raises(error) as caught:
        install(bundle, root, **said)  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert files(root) == before
    return caught.value.hint


def test_first_trust_is_explicit_and_lasts(machine: Machine, tmp_path: Path) -> None:
    fingerprint = read_public_key(machine.public_key).fingerprint
    hint = refused(UntrustedKeyError, machine.bundle, tmp_path / "store")
    assert hint.endswith(f"--trust {fingerprint}")
    assert not (tmp_path / "store").exists()
    done = install(machine.bundle, tmp_path / "store", trust=fingerprint.upper())
    assert done.signed_by == fingerprint
    store = open_store(tmp_path / "store")
    assert keyring(store).trust().standing(fingerprint) == "trusted"
    later = resigned(machine, tmp_path / "later", read_private_key(machine.key), counter=2)
    assert install(later, store.root).signed_by == fingerprint
    assert str(signed_by(store.load(CURRENT), keyring(store).trust())) == f"key {fingerprint[:16]}"


def test_a_key_can_be_trusted_before_anything_is_installed(machine: Machine, tmp_path: Path) -> None:
    trust(tmp_path / "store", read_public_key(machine.public_key))
    assert install(machine.bundle, tmp_path / "store").first


def test_the_first_install_makes_a_key_that_only_its_user_can_read(store: Store) -> None:
    ring = keyring(store)
    known = ring.trust()
    assert known.own
    (private,) = ring.folder.glob("*.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert known.role(known.own) == "own"


def test_a_failed_first_install_leaves_no_key(machine: Machine, tmp_path: Path) -> None:
    other = resigned(machine, tmp_path / "made", read_private_key(machine.key), device_class="orin")
    with pytest.raises(RefusedError, match="other hardware"):
        install(other, tmp_path / "store", trust=machine.public_key)
    assert not (tmp_path / "store").exists()


def test_an_unsigned_bundle_is_let_in_on_request_and_on_record(machine: Machine, store: Store, tmp_path: Path) -> None:
    old = changed_bundle(machine.bundle, tmp_path / "old", {"counter": 2})
    hint = refused(UnsignedError, old, store.root)
    assert "--allow-unsigned" in hint
    done = install(old, store.root, allow_unsigned=True)
    assert done.signed_by == ""
    assert store.state().unsigned == (done.digest,)
    assert status(store)["signed_by"]["standing"] == "unsigned"
    assert install(old, store.root).digest == done.digest
    assert store.state().unsigned == (done.digest,)


def test_every_wrong_signer_is_refused_for_its_own_reason(machine: Machine, store: Store, tmp_path: Path) -> None:
    host, stranger = read_private_key(machine.key), PrivateKey.generate()
    strange = resigned(machine, tmp_path / "strange", stranger, counter=2)
    by_host = resigned(machine, tmp_path / "host", host, counter=2)
    refused(UntrustedKeyError, strange, store.root)
    refused(UntrustedKeyError, strange, store.root, trust=machine.public_key)
    revoke(store, stranger.public.fingerprint)
    refused(RevokedKeyError, strange, store.root)
    refused(RevokedKeyError, strange, store.root, trust=stranger.public.fingerprint)
    refused(RevokedKeyError, strange, store.root, allow_unsigned=True)
    revoke(store, str(machine.public_key))
    refused(RevokedKeyError, by_host, store.root)
    refused(RevokedKeyError, machine.bundle, store.root)
    with pytest.raises(RevokedKeyError):
        trust(store.root, host.public)
    trust(store.root, host.public, restore=True)
    assert install(by_host, store.root).counter == 2


def test_the_signature_of_another_bundle_does_not_do(machine: Machine, store: Store, tmp_path: Path) -> None:
    """Blobs, subject and tag all right: the signature itself says which manifest it is for."""
    host, workshop = read_private_key(machine.key), Store.create(tmp_path / "workshop")
    with workshop.writer():
        base = workshop.load(import_layout(machine.bundle, workshop, tags=["good"]))
        newer = base.generation.model_copy(update={"counter": 2})
        made = workshop.commit(newer, ["newer"])
        (entry,) = write_signature(workshop, base, [host]).values()
        workshop.move_tags({signature_tag(made): entry}, ())
    for form in ("bundle", "bundle.tar"):
        with pytest.raises(FormatError, match="about another manifest"):
            export_layout(workshop, "newer", tmp_path / form)
    without_subject(workshop, made)
    for form in ("bundle", "bundle.tar"):
        export_layout(workshop, "newer", tmp_path / form)
        refused(SignatureError, tmp_path / form, store.root)
        refused(SignatureError, tmp_path / form, store.root, allow_unsigned=True)


def without_subject(store: Store, digest: str) -> None:
    from edge_cmcl.bundle.documents import Descriptor, Manifest, from_json, to_json

    (entry,) = store.attachments(digest)
    bare = from_json(Manifest, store.read(entry), "it").model_copy(update={"subject": None})
    with store.writer():
        data = to_json(bare)
        new = Descriptor(media_type=entry.media_type, digest=store.put(data), size=len(data))
        store.move_tags({signature_tag(digest): new}, ())


def test_a_rotated_host_is_followed_and_its_old_key_lets_nothing_new_in(
    machine: Machine, store: Store, tmp_path: Path
) -> None:
    old, new = read_private_key(machine.key), PrivateKey.generate()
    rotations = (endorsement(old, new.public),)
    second = resigned(machine, tmp_path / "second", new, rotations=rotations, counter=2)
    third = resigned(machine, tmp_path / "third", old, counter=3)
    assert install(second, store.root).signed_by == new.public.fingerprint
    known = keyring(store).trust()
    assert [known.standing(key.public.fingerprint) for key in (old, new)] == ["retired", "trusted"]
    refused(UntrustedKeyError, third, store.root)
    assert rollback(store).generation.counter == 1
    assert status(store)["signed_by"]["standing"] == "retired"
    assert install(resigned(machine, tmp_path / "both", old, new, counter=3), store.root).counter == 3


def test_a_device_signs_what_it_learns_and_still_knows_it_after_a_rotation(taught_copy: Store) -> None:
    store = taught_copy
    loaded = store.load(CURRENT)
    own = keyring(store).trust().own
    found = signed_by(loaded, keyring(store).trust())
    assert (found.fingerprint, found.role, found.standing, str(found)) == (own, "own", "trusted", "this device")
    known, endorsed = rotate(store)
    assert endorsed
    assert known.own != own
    assert str(signed_by(loaded, keyring(store).trust())) == "this device (retired)"
    with store.writer():
        tags = signed(store, loaded)
        store.move_tags(tags, ())
    signature = read_signature(loaded)
    assert signature is not None
    assert len(signature.rotations) == 1
    assert [entry["signed_by"]["role"] for entry in log(store)] == ["own", "given"]


def test_what_a_device_has_learned_can_go_to_another_that_trusts_it(taught_copy: Store, tmp_path: Path) -> None:
    export_layout(taught_copy, CURRENT, tmp_path / "taught.tar")
    own = keyring(taught_copy).trust().own
    refused(UntrustedKeyError, tmp_path / "taught.tar", tmp_path / "other")
    assert install(tmp_path / "taught.tar", tmp_path / "other", trust=own).signed_by == own


def test_a_wrong_signature_in_the_store_is_shown(taught_copy: Store) -> None:
    (entry,) = taught_copy.attachments(taught_copy.tags()[CURRENT])
    path = taught_copy.blob_path(entry.digest)
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert status(taught_copy)["signed_by"]["standing"] == "wrong"
    assert [each["signed_by"]["standing"] for each in log(taught_copy)] == ["wrong", "trusted"]


def test_a_store_from_before_there_were_keys_gets_one_when_it_learns(taught_copy: Store) -> None:
    shutil.rmtree(keyring(taught_copy).folder)
    with taught_copy.writer():
        tags = signed(taught_copy, taught_copy.load(CURRENT))
    assert list(tags) == [signature_tag(taught_copy.tags()[CURRENT])]
    assert keyring(taught_copy).trust().own


@pytest.mark.parametrize("said", ["abc", "0" * 63, "no such file"])
def test_what_is_neither_a_fingerprint_nor_a_file_is_told(machine: Machine, tmp_path: Path, said: str) -> None:
    with pytest.raises(UsageError, match="neither a fingerprint nor a key file"):
        install(machine.bundle, tmp_path / "store", trust=said)
    assert not (tmp_path / "store").exists()


def test_a_payload_is_not_opened_before_its_signature_is_known(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("edge_cmcl.bundle.transfer.check_contents", lambda loaded: opened.append(loaded.digest))
    refused(UntrustedKeyError, machine.bundle, tmp_path / "store")
    assert opened == []
