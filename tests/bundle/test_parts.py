from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_samples import make_adapter, make_origin, make_store, updated_generation
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cmcl.bundle import Generation, Loaded, Store
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.collect import collect
from edge_cmcl.bundle.contents import check_contents, check_digests, read_labels, read_origins
from edge_cmcl.bundle.documents import Descriptor, Manifest
from edge_cmcl.bundle.generation import check_manifest
from edge_cmcl.bundle.mending import mend
from edge_cmcl.bundle.parts import MOST_PARTS, WHOLE_BYTES, cut, part_of
from edge_cmcl.bundle.payloads import LabelFeatures, adapter_to_bytes, labels_to_bytes, sketch_to_bytes
from edge_cmcl.bundle.transfer import export_layout, import_layout, opened
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.errors import DigestError, FormatError, StorageError

Put = Callable[[bytes], str]


def successor(store: Store, put: Put) -> Generation:
    """Return an update with a large sketch, and with labels whose features are all the same, and so are its parts."""
    random = np.random.default_rng(3)
    generation = updated_generation(store, "current", seed=12)
    text = generation.modalities["text"]
    rows = random.normal(size=(128, 1024)).astype(np.float16).astype(np.float32)
    origin = replace(make_origin("text", text.adapter_blob, "large", 1024), sketch=Sketch(rows, 200, 1e6, 1e-7))
    names = tuple(f"label {number}" for number in range(100))
    labels = LabelFeatures(names, np.tile(np.eye(1, 1024, dtype=np.float32), (100, 1)))
    update = {
        "origins": (*text.origins, put(sketch_to_bytes(origin))),
        "label_blob": put(labels_to_bytes(labels)),
    }
    modalities = {**generation.modalities, "text": text.model_copy(update=update)}
    return generation.model_copy(update={"modalities": modalities})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose current generation has blobs in parts."""
    made = make_store(tmp_path / "store")
    with made.writer():
        made.commit(successor(made, made.put_in_parts), ["current"])
    return made


def large(loaded: Loaded) -> str:
    """Return the digest of the large sketch."""
    return loaded.generation.modalities["text"].origins[-1]


@settings(max_examples=50, deadline=None)
@given(size=st.integers(0, 1 << 21))
def test_parts_are_the_blob_again_and_neither_many_nor_small(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    parts = cut(data)
    assert b"".join(parts) == data
    assert len(parts) <= MOST_PARTS
    assert (len(parts) == 1) == (size <= WHOLE_BYTES)
    assert all(len(part) == len(parts[0]) for part in parts[:-1])
    assert len(parts) == 1 or len(parts[0]) <= max(WHOLE_BYTES // 2, size / MOST_PARTS + 4096)


def test_a_large_blob_is_kept_in_parts_and_read_as_one(store: Store) -> None:
    loaded = store.load("current")
    layers = loaded.layers(large(loaded))
    assert len(layers) > 5
    assert all(part_of(layer) == large(loaded) for layer in layers)
    assert {layer.media_type for layer in layers} == {"application/vnd.edge-cmcl.sketch-part.v1"}
    assert not store.has(large(loaded))
    assert loaded.blob_size(large(loaded)) == len(loaded.read(large(loaded))) > 2 * 128 * 1024
    assert read_origins(loaded, "text")[-1].id == "large"
    check_contents(loaded)


def test_equal_parts_lie_there_once_and_count_each_time(store: Store) -> None:
    loaded = store.load("current")
    layers = loaded.layers(loaded.generation.modalities["text"].label_blob or "")
    assert len({layer.digest for layer in layers}) < len(layers)
    labels = read_labels(loaded)
    assert labels is not None
    assert labels.features.sum() == labels.features[:, 0].sum() == 100


def test_what_a_later_generation_takes_over_stays_in_the_same_parts(store: Store) -> None:
    before = store.load("current")
    again = Store(store.root)  # another process, which has cut nothing itself
    with again.writer():
        digest = again.commit(updated_generation(again, "current", seed=13), ["current"])
    assert again.load(digest).layers(large(before)) == before.layers(large(before))


def test_a_blob_that_lies_there_whole_stays_whole(tmp_path: Path) -> None:
    """A store that software before parts wrote goes on without having everything twice."""
    store = make_store(tmp_path / "store")
    with store.writer():
        old = store.load(store.commit(successor(store, store.put), ["current"]))
        files = set(store.blob_path("").iterdir())
        assert store.put_in_parts(old.read(large(old))) == large(old)
        new = store.load(store.commit(updated_generation(store, "current", seed=13), ["current"]))
    assert [layer.digest for layer in new.layers(large(old))] == [large(old)]
    assert len(set(store.blob_path("").iterdir()) - files) == 4  # adapter, sketch, document, manifest


@pytest.mark.parametrize("form", ["bundle", "bundle.tar"])
def test_a_bundle_with_parts_is_exported_and_installed_as_it_is(store: Store, tmp_path: Path, form: str) -> None:
    digest = export_layout(store, "current", tmp_path / form)
    device = Store.create(tmp_path / "device")
    assert import_layout(tmp_path / form, device, tags=["current"]) == digest
    check_contents(device.load("current"))


def test_of_a_damaged_blob_the_damaged_part_alone_is_mended(store: Store, tmp_path: Path) -> None:
    export_layout(store, "current", tmp_path / "bundle")
    loaded = store.load("current")
    path = store.blob_path(loaded.layers(large(loaded))[3].digest)
    path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(DigestError, match="is damaged"):
        loaded.read(large(loaded))
    with opened(tmp_path / "bundle") as good, store.writer():
        assert mend(store, good) == 1
    check_contents(store.load("current"))


def test_parts_go_with_the_last_generation_that_has_them(store: Store) -> None:
    loaded = store.load("current")
    paths = [store.blob_path(layer.digest) for layer in loaded.layers(large(loaded))]
    with store.writer():
        generations = list(store.lineage([loaded.digest]))
        store.set_tag("current", "base")
        collect(store, generations, kept=[])
    assert not any(path.exists() for path in paths)


def test_a_part_that_cannot_be_written_leaves_nothing_half_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in store.blob_path("").iterdir()}

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with store.writer(), pytest.raises(StorageError, match="No space left"):
        store.put_in_parts(np.random.default_rng(9).bytes(300_000))
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in store.blob_path("").iterdir()} == before


def test_a_missing_blob_is_told_before_anything_is_committed(store: Store) -> None:
    unknown = digest_of(b"never put")
    with store.writer():
        generation = updated_generation(store, "current", seed=14)
        with pytest.raises(DigestError, match="is missing"):
            store.commit(generation.model_copy(update={"step": unknown}), ["current"])


def wrong(layers: tuple[Descriptor, ...], what: str) -> tuple[Descriptor, ...]:
    """Return the layers of a manifest with something wrong about the parts of one blob."""
    parts = [layer for layer in layers if layer.media_type.endswith("sketch-part.v1")]
    others = tuple(layer for layer in layers if layer not in parts)
    first, *rest = parts
    return {
        "of another kind": (*others, first.model_copy(update={"media_type": layers[0].media_type}), *rest),
        "beside the whole": (*others, *parts, first.model_copy(update={"digest": part_of(first), "annotations": None})),
        "of a blob that nobody names": (
            *layers,
            first.model_copy(update={"annotations": {"vnd.edge-cmcl.part-of": digest_of(b"")}}),
        ),
        "too large together": (*others, *(part.model_copy(update={"size": 1 << 29}) for part in parts)),
    }[what]


@pytest.mark.parametrize(
    "what", ["of another kind", "beside the whole", "of a blob that nobody names", "too large together"]
)
def test_wrong_parts_are_refused_by_their_manifest(store: Store, what: str) -> None:
    loaded = store.load("current")
    manifest = loaded.manifest.model_copy(update={"layers": wrong(loaded.manifest.layers, what)})
    with pytest.raises(FormatError):
        check_manifest(manifest, loaded.generation, "it")


@pytest.mark.parametrize("change", ["swapped", "left out", "twice"])
def test_intact_parts_that_are_another_blob_together_are_refused_when_read(store: Store, change: str) -> None:
    loaded = store.load("current")
    parts = loaded.layers(large(loaded))
    first = loaded.manifest.layers.index(parts[0])
    changed = {
        "swapped": (parts[1], parts[0], *parts[2:]),
        "left out": parts[1:],
        "twice": (parts[0], *parts),
    }[change]
    layers = (*loaded.manifest.layers[:first], *changed, *loaded.manifest.layers[first + len(parts) :])
    manifest = Manifest.model_validate(loaded.manifest.model_copy(update={"layers": layers}).model_dump(by_alias=True))
    check_manifest(manifest, loaded.generation, "it")
    forged = replace(loaded, manifest=manifest)
    for use in (lambda: forged.read(large(loaded)), lambda: check_digests(forged)):
        with pytest.raises(DigestError, match=f"blob {large(loaded)} .* is damaged"):
            use()


def test_an_adapter_that_is_small_is_one_file(store: Store) -> None:
    with store.writer():
        assert store.has(store.put_in_parts(adapter_to_bytes(make_adapter(77))))
