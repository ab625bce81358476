from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.signature import signature_tag
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.errors import DigestError, FormatError, ModelError, RefusedError, StoreLockedError


def test_the_first_install_makes_the_store_and_names_the_device(machine: Machine, tmp_path: Path) -> None:
    done = install(machine.bundle, tmp_path / "new" / "store", trust=machine.public_key)
    store = open_store(tmp_path / "new" / "store")
    assert (done.first, done.counter, done.name) == (True, 1, "machine")
    assert done.modalities == ("current", "vibration")
    assert store.state().device_id == done.device_id != ""
    generation = store.load(CURRENT).generation
    tags = {tag: digest for tag, digest in store.tags().items() if tag != signature_tag(done.digest)}
    assert tags == {CURRENT: done.digest, generation_tag(generation): done.digest}
    assert signature_tag(done.digest) in store.tags()


def test_two_devices_get_two_ids(machine: Machine, tmp_path: Path) -> None:
    assert len({install(machine.bundle, tmp_path / name, trust=machine.public_key).device_id for name in "ab"}) == 2


def test_installing_the_same_bundle_again_keeps_the_device(machine: Machine, store: Store) -> None:
    tags, device = store.tags(), store.state().device_id
    done = install(machine.bundle, store.root, trust=machine.public_key)
    assert (done.first, done.device_id) == (False, device)
    assert store.tags() == tags


def test_a_bundle_does_not_replace_what_the_device_has_learned(machine: Machine, taught_copy: Store) -> None:
    tags = taught_copy.tags()
    with pytest.raises(RefusedError, match="learned by itself") as refused:
        install(machine.bundle, taught_copy.root, trust=machine.public_key)
    assert "rollback" in refused.value.hint
    assert taught_copy.tags() == tags
    rollback(taught_copy)
    assert install(machine.bundle, taught_copy.root, trust=machine.public_key).counter == 1
    assert taught_copy.has(tags[CURRENT])


def test_a_failed_first_install_leaves_no_folder(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        install(tmp_path / "nothing.tar", tmp_path / "store")
    damaged = bytearray(machine.bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.tar").write_bytes(damaged)
    with pytest.raises(DigestError):
        install(tmp_path / "damaged.tar", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.tar"]


def test_a_folder_with_something_else_in_it_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(ModelError, match="not a store and not empty"):
        install(machine.bundle, tmp_path / "photos", trust=machine.public_key)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_an_install_that_finds_another_at_work_removes_nothing(machine: Machine, tmp_path: Path) -> None:
    root = tmp_path / "store"
    bundle = tmp_path / "bundle.tar"
    shutil.copy(machine.bundle, bundle)
    other = Store.create(root)
    with other.writer(), pytest.raises(StoreLockedError):
        install(bundle, root, trust=machine.public_key)
    assert Store(root).tags() == {}
    assert install(bundle, root, trust=machine.public_key).first


def test_a_failed_first_install_removes_nothing_of_another_that_succeeded_meanwhile(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finds the folder that this one has just made, installs into it, and is done first."""
    root, create = tmp_path / "store", Store.create
    damaged = bytearray(machine.bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.tar").write_bytes(damaged)

    def create_late(path: Path) -> Store:
        monkeypatch.setattr(Store, "create", create)
        install(machine.bundle, root, trust=machine.public_key)
        return create(path)

    monkeypatch.setattr(Store, "create", create_late)
    with pytest.raises(DigestError):
        install(tmp_path / "damaged.tar", root)
    assert open_store(root).load(CURRENT).generation.counter == 1


def test_a_failed_install_into_a_folder_of_the_user_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "noise.tar").write_bytes(b"noise" * 1000)
    with pytest.raises(FormatError):
        install(tmp_path / "noise.tar", tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()


def test_onnxruntime_is_not_loaded_to_list_or_go_back() -> None:
    code = "import sys, edge_cmcl.device.store; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
