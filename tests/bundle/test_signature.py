"""Signatures as attachments: written, found, carried along, and read without trust."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import make_store, updated_generation

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.collect import collect
from edge_cmcl.bundle.documents import Descriptor, Index, Manifest, from_json, to_json
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.media_types import ENVELOPE, OCI_MANIFEST, SIGNATURE
from edge_cmcl.bundle.signature import read_signature, signature_tag, write_signature
from edge_cmcl.bundle.statement import check_statement, signers_of, statement_of
from edge_cmcl.bundle.transfer import export_layout, opened
from edge_cmcl.errors import DigestError, FormatError

A, B = PrivateKey.generate(), PrivateKey.generate()


def signed_successor(store: Store, *signers: PrivateKey) -> str:
    """Commit one more update, signed in the same replacement of the index."""
    with store.writer():
        generation = updated_generation(store, "current", seed=11 + store.load("current").generation.counter)
        return store.commit(generation, ["current"], lambda new: write_signature(store, new, signers))


def test_a_signature_is_in_place_when_the_tag_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store")
    indexes: list[Index] = []
    write = Store._write_index

    def noted(self: Store, index: Index) -> None:
        indexes.append(index)
        write(self, index)

    monkeypatch.setattr(Store, "_write_index", noted)
    digest = signed_successor(store, A, B)
    (index,) = indexes
    assert {entry.tag for entry in index.manifests} == {"base", "current", signature_tag(digest)}
    loaded = store.load("current")
    found = read_signature(loaded)
    assert found is not None
    names = (A.public.fingerprint, B.public.fingerprint)
    assert signers_of(found.envelope, found.keys, "it") == names
    check_statement(found.envelope, statement_of(loaded), "it")
    statement = json.loads(found.envelope.body("it"))
    assert (statement["manifest"], statement["counter"], statement["name"]) == (digest, 3, "machine")


def test_equal_bundles_signed_with_equal_keys_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store = make_store(tmp_path / name)
        signed_successor(store, A)
        export_layout(store, "current", tmp_path / f"{name}.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with opened(tmp_path / "a.tar") as loaded:
        assert read_signature(loaded) is not None


def test_a_signature_is_collected_with_what_it_signs_and_kept_with_what_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    first = signed_successor(store, A)
    second = signed_successor(store, A)
    with store.writer():
        collect(store, store.lineage([store.tags()["current"], store.tags()["base"]]), [second])
    assert set(store.tags()) == {"base", "current", signature_tag(second)}
    assert not store.has(first)
    assert read_signature(store.load("current")) is not None


def test_what_is_not_signed_has_no_signature(tmp_path: Path) -> None:
    assert read_signature(make_store(tmp_path / "store").load("current")) is None


def resigned(store: Store, change: Callable[[Manifest, Callable[[bytes], Descriptor]], Manifest]) -> Loaded:
    """Put another signature manifest in the place of the current generation's."""
    loaded = store.load("current")
    (entry,) = store.attachments(loaded.digest)
    manifest = from_json(Manifest, store.read(entry), "it")
    with store.writer():

        def put(data: bytes) -> Descriptor:
            return Descriptor(media_type=ENVELOPE, digest=store.put(data), size=len(data))

        data = to_json(change(manifest, put))
        new = put(data).model_copy(update={"media_type": OCI_MANIFEST, "artifact_type": SIGNATURE})
        store.move_tags({signature_tag(loaded.digest): new})
    return loaded


def layers(manifest: Manifest, place: int, new: Descriptor) -> Manifest:
    kept = list(manifest.layers)
    kept[place] = new.model_copy(update={"media_type": kept[place].media_type})
    return manifest.model_copy(update={"layers": tuple(kept)})


def keys_document(**update: Any) -> bytes:
    fields = {"schema": "edge-cmcl/keys/1", "keys": [A.public.encoded()], "rotations": []}
    return json.dumps({**fields, **update}).encode()


LIES: dict[str, Callable[[Manifest, Callable[[bytes], Descriptor]], Manifest]] = {
    "another kind": lambda m, put: m.model_copy(update={"artifact_type": "a/b"}),
    "a layer less": lambda m, put: m.model_copy(update={"layers": m.layers[:1]}),
    "a huge layer": lambda m, put: layers(m, 0, m.layers[0].model_copy(update={"size": 1 << 30})),
    "a huge envelope": lambda m, put: layers(m, 0, put(b" " * (64 * 1024 + 1))),
    "no envelope": lambda m, put: layers(m, 0, put(b"{}")),
    "no json": lambda m, put: layers(m, 0, put(b"\xff")),
    "no keys": lambda m, put: layers(m, 1, put(keys_document(keys=[]))),
    "a short key": lambda m, put: layers(m, 1, put(keys_document(keys=["AAAA"]))),
    "a key that has not signed": lambda m, put: layers(m, 1, put(keys_document(keys=[B.public.encoded()]))),
    "a key twice": lambda m, put: layers(m, 1, put(keys_document(keys=[A.public.encoded()] * 2))),
    "another schema": lambda m, put: layers(m, 1, put(keys_document(schema="edge-cmcl/keys/2"))),
    "an unknown field": lambda m, put: layers(m, 1, put(keys_document(later=1))),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_signature_of_ours_is_refused(tmp_path: Path, lie: str) -> None:
    store = make_store(tmp_path / "store")
    signed_successor(store, A)
    loaded = resigned(store, LIES[lie])
    with pytest.raises(FormatError):
        read_signature(loaded)


def test_two_signatures_under_one_tag_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    digest = signed_successor(store, A)
    entries = [*store.index().manifests, *store.attachments(digest)]
    with pytest.raises(FormatError, match="there twice"):
        read_signature(store.load("current"), entries)


def test_a_damaged_signature_is_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    digest = signed_successor(store, A)
    (entry,) = store.attachments(digest)
    for blob in (entry, *from_json(Manifest, store.read(entry), "it").layers):
        path = store.blob_path(blob.digest)
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(DigestError):
            read_signature(store.load("current"))
        path.write_bytes(good)
