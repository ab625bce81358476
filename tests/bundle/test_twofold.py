from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle_samples import make_store

from edge_cmcl.bundle import State, Store
from edge_cmcl.bundle.documents import index_from_json, to_json
from edge_cmcl.bundle.twofold import DamagedFileWarning, copy_of, write_twice
from edge_cmcl.errors import FormatError, StorageError


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_any_flipped_bit_of_the_index_leaves_the_tags_as_they_were(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    tags, path = store.tags(), tmp_path / "store" / "index.json"
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamagedFileWarning)
            assert store.tags() == tags, bit
        flip(path, bit)


@pytest.mark.parametrize("name", ["index.json", "state.json"])
def test_a_damaged_or_missing_file_is_read_from_its_copy_with_a_warning(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path / "store")
    with store.writer():
        store.save_state(State(device_id="device-1"))
    for spoil in (lambda path: flip(path, 300), lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        spoil(store.root / name)
        with pytest.warns(DamagedFileWarning, match=name):
            assert (store.tags().keys(), store.state().device_id) == ({"base", "current"}, "device-1")
        (store.root / name).write_bytes(copy_of(store.root / name).read_bytes())


def test_the_next_write_mends_the_file(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    flip(store.root / "index.json", 300)
    with store.writer():
        store.set_tag("again", "base")
    assert set(store.tags()) == {"base", "current", "again"}


@pytest.mark.parametrize("ahead", ["index.json", "copy-of-index.json"])
def test_what_a_crash_between_the_two_left_is_made_equal_by_the_next_writer(tmp_path: Path, ahead: str) -> None:
    store = make_store(tmp_path / "store")
    path, before = store.root / "index.json", store.tags()
    with store.writer():
        store.set_tag("again", "base")
        newer = path.read_bytes()
        store.move_tags({}, drop=["again"])
    (store.root / ahead).write_bytes(newer)
    with store.writer():
        pass
    assert path.read_bytes() == copy_of(path).read_bytes()
    assert store.tags() == (before if ahead != path.name else {**before, "again": before["base"]})


def test_a_write_that_fails_half_way_leaves_the_file_and_its_copy_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flush = tmp_path / "index.json", os.fsync
    write_twice(path, b"old")
    for failing in range(1, 5):  # file and folder of the copy, file and folder of the original
        calls = iter(range(1, 100))

        def fsync(descriptor: int, calls: Iterator[int] = calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise OSError(errno.EIO, "Input/output error")
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError):
            write_twice(path, b"new")
        assert (path.read_bytes(), copy_of(path).read_bytes()) == (b"old", b"old"), failing
        assert len(list(tmp_path.iterdir())) == 2


def test_both_damaged_is_an_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    for path in (store.root / "index.json", copy_of(store.root / "index.json")):
        flip(path, 300)
    with pytest.raises(FormatError):
        store.tags()


def test_an_index_that_another_tool_wrote_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    bare = store.index().model_copy(update={"annotations": None})
    assert index_from_json(to_json(bare), "index").manifests == bare.manifests
    (store.root / "index.json").write_bytes(to_json(bare))
    assert Store(store.root).tags() == store.tags()
