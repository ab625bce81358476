"""What damage on the disk, too little memory or an impatient user must not cost a device."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine_bundle import Machine
from test_starting import attempts, commit_wrong, damage

from edge_cmcl.bundle import Store, twofold
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.signature import signature_tag
from edge_cmcl.bundle.transfer import export_layout, import_layout
from edge_cmcl.bundle.twofold import DamagedFileWarning
from edge_cmcl.data import open_pairs
from edge_cmcl.device import keys, starting
from edge_cmcl.device.generations import collect_garbage, log, rollback
from edge_cmcl.device.intact import DamagedGenerationWarning
from edge_cmcl.device.learner import update
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.starting import RevertedWarning, confirm, start
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.errors import DigestError, PlatformError, RefusedError, RevokedKeyError, StorageError


@pytest.mark.parametrize("what", ["manifest", "document"])
def test_a_confirmed_generation_whose_own_document_is_damaged_is_replaced_by_the_base(
    machine: Machine, taught_copy: Store, what: str
) -> None:
    current = confirm(taught_copy)
    damage(taught_copy, current.digest if what == "manifest" else current.manifest.config.digest)
    with pytest.warns(DamagedGenerationWarning, match="generation 1 answers"):
        assert open_model(taught_copy.root).generation.counter == 1
    assert rollback(taught_copy).generation.counter == 1
    assert open_model(taught_copy.root).generation.counter == 1


def test_to_install_the_base_again_helps_where_what_was_learned_is_damaged(
    machine: Machine, taught_copy: Store
) -> None:
    damage(taught_copy, confirm(taught_copy).manifest.config.digest)
    assert install(machine.bundle, taught_copy.root).counter == 1
    assert open_model(taught_copy.root).generation.counter == 1


def test_a_damaged_ancestor_is_mended_by_its_bundle_and_nothing_is_collected_before(
    machine: Machine, taught_copy: Store
) -> None:
    (base,) = confirm(taught_copy).generation.parents
    damage(taught_copy, base)
    assert [each["counter"] for each in log(taught_copy)] == [2]
    with pytest.raises(DigestError):
        collect_garbage(taught_copy)
    rolled = taught_copy.tags()[CURRENT]
    assert install(machine.bundle, taught_copy.root).mended == 1
    assert taught_copy.tags()[CURRENT] == rolled
    assert [each["counter"] for each in log(taught_copy)] == [2, 1]
    with pytest.raises(RefusedError, match="would replace what this device has learned"):
        install(machine.bundle, taught_copy.root)


def test_a_bit_in_what_all_generations_share_is_mended_by_the_base_and_nothing_learned_is_lost(
    machine: Machine, taught_copy: Store
) -> None:
    current = confirm(taught_copy)
    (base,) = current.generation.parents
    shared = {layer.digest for layer in current.manifest.layers} & {
        layer.digest for layer in taught_copy.load_manifest(base).manifest.layers
    }
    for digest in shared:
        damage(taught_copy, digest)
    with pytest.raises(DigestError):
        rollback(taught_copy, base[7:19])
    done = install(machine.bundle, taught_copy.root)
    assert (done.mended, done.digest, done.counter) == (len(shared), current.digest, 2)
    assert "acoustic" in open_model(taught_copy.root).generation.modalities
    check_digests(taught_copy.load_manifest(current.digest))


def test_what_is_not_trusted_or_never_was_here_mends_nothing(
    machine: Machine, taught_copy: Store, tmp_path: Path
) -> None:
    (base,) = confirm(taught_copy).generation.parents
    damage(taught_copy, base)
    workshop = Store.create(tmp_path / "workshop")
    with workshop.writer():
        digest = import_layout(machine.bundle, workshop)
        workshop.move_tags({"bare": workshop.load(digest).descriptor}, drop=[signature_tag(digest)])
    export_layout(workshop, digest, tmp_path / "bare.tar")
    with pytest.raises(RefusedError, match="not signed"):
        install(tmp_path / "bare.tar", taught_copy.root)
    with pytest.raises(DigestError):
        taught_copy.load_manifest(base)


def test_a_signature_that_was_stripped_does_not_shed_a_revocation(
    machine: Machine, store: Store, tmp_path: Path
) -> None:
    (signer,) = (key["fingerprint"] for key in keys.listed(keys.keyring(store)) if key["role"] == "given")
    keys.revoke(store, signer)
    workshop = Store.create(tmp_path / "workshop")
    with workshop.writer():
        digest = import_layout(machine.bundle, workshop)
        workshop.move_tags({"bare": workshop.load(digest).descriptor}, drop=[signature_tag(digest)])
    export_layout(workshop, digest, tmp_path / "bare.tar")
    for bundle in (machine.bundle, tmp_path / "bare.tar"):
        with pytest.raises(RevokedKeyError):
            install(bundle, store.root)


def test_a_bundle_that_comes_again_without_its_signature_leaves_the_one_that_is_here(
    machine: Machine, store: Store, tmp_path: Path
) -> None:
    digest, tag = store.tags()[CURRENT], signature_tag(store.tags()[CURRENT])
    kept = store.tags()[tag]
    workshop = Store.create(tmp_path / "workshop")
    with workshop.writer():
        import_layout(machine.bundle, workshop)
        workshop.move_tags({"bare": workshop.load(digest).descriptor}, drop=[tag])
    export_layout(workshop, digest, tmp_path / "bare.tar")
    assert install(tmp_path / "bare.tar", store.root).digest == digest
    assert store.tags()[tag] == kept


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), PlatformError("bad_alloc")])
def test_a_start_without_a_verdict_does_not_count_against_a_trial(
    taught_copy: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(model: object) -> None:
        raise error

    monkeypatch.setattr(starting, "self_test", interrupted)
    for _ in range(4):
        if isinstance(error, PlatformError):
            start(taught_copy)  # reading goes on
        else:
            with pytest.raises(type(error)):
                start(taught_copy)
        assert attempts(taught_copy) == 0


def test_a_memory_limit_says_nothing_of_a_generation_on_trial(machine: Machine, taught_copy: Store) -> None:
    current = taught_copy.tags()[CURRENT]
    with open_pairs(machine.new) as pairs:
        update(taught_copy, pairs, "acoustic", partners=["vibration"], max_memory_bytes=1 << 40, dry_run=True)
    assert (taught_copy.tags()[CURRENT], attempts(taught_copy)) == (current, 0)


@pytest.mark.parametrize("spoil", ["flip", "remove"])
def test_a_damaged_marker_costs_nothing_and_is_mended(taught_copy: Store, machine: Machine, spoil: str) -> None:
    marker = taught_copy.root / "oci-layout"
    good = marker.read_bytes()
    if spoil == "flip":
        marker.write_bytes(good.replace(b"1.0.0", b"1.0.1"))
    else:
        marker.unlink()
    with pytest.warns(DamagedFileWarning, match="its index is read all the same"):
        assert open_model(taught_copy.root).generation.counter == 2
    confirm(open_store(taught_copy.root))
    assert marker.read_bytes() == good
    assert [each["counter"] for each in log(taught_copy)] == [2, 1]


def test_a_lost_marker_does_not_make_an_install_forget_what_is_here(machine: Machine, taught_copy: Store) -> None:
    rollback(taught_copy)
    (taught_copy.root / "oci-layout").unlink()
    install(machine.bundle, taught_copy.root)
    assert [each["counter"] for each in log(open_store(taught_copy.root))] == [2, 1]


def test_a_disk_that_does_not_give_a_file_is_as_good_as_a_damaged_one(
    taught_copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = twofold.read_file

    def unreadable(path: Path, limit: int) -> bytes:
        if path.name == "index.json":
            raise StorageError(f"cannot read {path}", got="Input/output error")
        return read(path, limit)

    monkeypatch.setattr(twofold, "read_file", unreadable)
    with pytest.warns(DamagedFileWarning, match="index"):
        assert taught_copy.tags()[CURRENT]


def test_what_failed_its_trial_answers_for_nothing(taught_copy: Store) -> None:
    good = confirm(taught_copy)
    wrong = commit_wrong(taught_copy)
    with pytest.warns(RevertedWarning):
        start(taught_copy)
    damage(taught_copy, good.generation.modalities["vibration"].adapter_blob)
    with pytest.warns(DamagedGenerationWarning):
        answered = open_model(taught_copy.root).loaded.digest
    assert answered not in (wrong, good.digest)
    assert answered == good.generation.parents[0]


def test_a_collection_keeps_the_base_so_that_another_one_can_be_installed(taught_copy: Store) -> None:
    confirm(taught_copy)
    collect_garbage(taught_copy, keep=1)
    assert [each["counter"] for each in log(taught_copy)] == [2, 1]
    assert rollback(taught_copy).generation.counter == 1


def test_to_install_again_leaves_the_files_that_readers_hold(machine: Machine, store: Store) -> None:
    before = {path.name: path.stat().st_ino for path in store.blob_path("").iterdir()}
    install(machine.bundle, store.root)
    assert {path.name: path.stat().st_ino for path in store.blob_path("").iterdir()} == before
