from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_samples import make_adapter, make_origin, make_store, snapshot, updated_generation

from edge_cmcl.bundle import Layout, Loaded, Store, contents, limits, transfer
from edge_cmcl.bundle.canonical import canonical, digest_of
from edge_cmcl.bundle.documents import Descriptor, Index, Manifest, from_json, to_json
from edge_cmcl.bundle.media_types import BUNDLE, OCI_MANIFEST
from edge_cmcl.bundle.payloads import adapter_to_bytes, sketch_to_bytes
from edge_cmcl.bundle.transfer import export_layout, import_layout, opened
from edge_cmcl.errors import (
    DigestError,
    EdgeCmclError,
    FormatError,
    IntegrityError,
    ModelError,
    RefusedError,
    StorageError,
    UsageError,
)

FORMS = ["bundle", "bundle.tar"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that the tests of this module only read."""
    return make_store(tmp_path_factory.mktemp("transfer") / "store")


@pytest.fixture(scope="module")
def exported(shared: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the update exported as `bundle` and `bundle.tar`."""
    folder = tmp_path_factory.mktemp("exported")
    for form in FORMS:
        export_layout(shared, "current", folder / form)
    return folder


def refused(source: Path, root: Path, error: type[EdgeCmclError] = IntegrityError) -> EdgeCmclError:
    """Import `source` into a new store, expect `error` and an untouched store, and return the error."""
    store = Store.create(root)
    before = snapshot(root)
    with pytest.raises(error) as caught:
        import_layout(source, store, tags=["current"])
    assert snapshot(root) == before
    assert not list(root.glob("work-*"))
    assert len(str(caught.value)) < 3000
    return caught.value


@pytest.mark.parametrize("form", FORMS)
def test_an_exported_bundle_arrives_whole_and_alone(shared: Store, exported: Path, tmp_path: Path, form: str) -> None:
    store = Store.create(tmp_path / "device")
    digest = import_layout(exported / form, store, tags=["current"])
    assert store.tags() == {"current": digest} == {"current": shared.tags()["current"]}
    assert store.load("current").generation == shared.load("current").generation
    assert len(list(store.lineage([store.tags()["current"]]))) == 1
    layers = {layer.digest for layer in store.load("current").manifest.layers}
    assert len(list(store.blob_path("").iterdir())) == len(layers) + 2
    assert export_layout(store, "current", tmp_path / "again.tar") == digest
    assert (tmp_path / "again.tar").read_bytes() == (exported / "bundle.tar").read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_can_be_read_without_installing_it(exported: Path, form: str) -> None:
    with opened(exported / form) as loaded:
        assert loaded.generation.counter == 2
        assert loaded.read(loaded.generation.step) == b"step graph"
    with opened(exported / form, "machine-2") as loaded:
        assert loaded.generation.name == "machine"


def test_the_folder_and_the_tar_hold_the_same_files(exported: Path) -> None:
    with tarfile.open(exported / "bundle.tar") as tar:
        members = tar.getmembers()
        read = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert read == snapshot(exported / "bundle")
    assert [member.name for member in members[:2]] == ["oci-layout", "index.json"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_tars_made_by_other_tools_are_read(exported: Path, tmp_path: Path) -> None:
    bundle = exported / "bundle"
    subprocess.run(["tar", "-C", bundle, "-cf", tmp_path / "gnu.tar", "."], check=True)
    subprocess.run(
        ["tar", "-C", bundle, "--format=pax", "-cf", tmp_path / "pax.tar", "blobs", "index.json", "oci-layout"],
        check=True,
    )
    with tarfile.open(tmp_path / "python.tar", "w") as tar:
        tar.add(bundle, arcname=".")
    for name in ("gnu", "pax", "python"):
        import_layout(tmp_path / f"{name}.tar", Store.create(tmp_path / name))


def test_a_caller_may_refuse_a_bundle_before_the_store_changes(exported: Path, tmp_path: Path) -> None:
    def too_old(loaded: Loaded) -> None:
        raise RefusedError(f"counter {loaded.generation.counter} is too old")

    store = Store.create(tmp_path / "store")
    before = snapshot(store.root)
    with pytest.raises(RefusedError, match="counter 2"):
        import_layout(exported / "bundle", store, tags=["current"], accept=too_old)
    assert snapshot(store.root) == before


def test_importing_twice_changes_nothing_and_repairs_what_was_damaged(exported: Path, tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    import_layout(exported / "bundle", store, tags=["current"])
    before = snapshot(store.root)
    blob = store.blob_path(store.load("current").generation.step)
    blob.write_bytes(b"step gruph")
    import_layout(exported / "bundle.tar", store, tags=["current"])
    assert snapshot(store.root) == before


def test_a_layout_with_several_generations_needs_a_reference(shared: Store, tmp_path: Path) -> None:
    assert "does not hold one generation" in str(refused(shared.root, tmp_path / "a", ModelError))
    store = Store.create(tmp_path / "b")
    assert import_layout(shared.root, store, ref="base") == shared.tags()["base"]
    assert store.tags() == {}


def attach(store: Store, digest: str, payload: bytes, subject: str | None = None, suffix: str = "sig") -> None:
    """Add an attachment as a signer would: blobs, a small manifest, its tag in the index."""
    with store.writer():
        config = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=store.put(b"{}"), size=2)
        layer = Descriptor(media_type="application/x", digest=store.put(payload), size=len(payload))
        about = Descriptor(media_type=OCI_MANIFEST, digest=subject or digest, size=1)
        manifest = to_json(
            Manifest(schema_version=2, artifact_type="a/b", config=config, layers=(layer,), subject=about)
        )
        entry = Descriptor(media_type=OCI_MANIFEST, digest=store.put(manifest), size=len(manifest), artifact_type="a/b")
        store.move_tags({f"{digest.replace(':', '-')}.{suffix}": entry})


@pytest.mark.parametrize("form", FORMS)
def test_signatures_travel_with_what_they_sign(tmp_path: Path, form: str) -> None:
    store = make_store(tmp_path / "store")
    digest = store.tags()["current"]
    attach(store, digest, b"signature")
    attach(store, store.tags()["base"], b"another's signature")
    export_layout(store, "current", tmp_path / form)
    device = Store.create(tmp_path / "device")
    import_layout(tmp_path / form, device, tags=["current"])
    tag = f"{digest.replace(':', '-')}.sig"
    assert set(device.tags()) == {"current", tag}
    assert device.attachments(digest)[0].digest == store.tags()[tag]
    assert device.has(digest_of(b"signature"))
    assert not device.has(digest_of(b"another's signature"))


def test_a_damaged_huge_or_misplaced_attachment_is_refused(tmp_path: Path) -> None:
    for number, (payload, subject) in enumerate([(b"x", "sha256:" + "0" * 64), (bytes((4 << 20) + 1), None)]):
        store = make_store(tmp_path / f"store-{number}")
        attach(store, store.tags()["current"], payload, subject)
        with pytest.raises(FormatError, match="attachment"):
            export_layout(store, "current", tmp_path / "out")
    store = make_store(tmp_path / "store")
    attach(store, store.tags()["current"], b"signature")
    export_layout(store, "current", tmp_path / "out.tar")
    export_layout(store, "current", tmp_path / "out")
    Layout(tmp_path / "out").blob_path(digest_of(b"signature")).write_bytes(b"forgeture")
    refused(tmp_path / "out", tmp_path / "device", DigestError)


def test_an_attachment_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    digest = store.tags()["current"]
    attach(store, digest, b"signature")
    export_layout(store, "current", tmp_path / "out")
    out = Layout(tmp_path / "out")
    manifest = from_json(Manifest, out.read(out.attachments(digest)[0]), "attachment")
    lie = manifest.model_copy(update={"layers": (manifest.layers[0].model_copy(update={"size": 1}),)})
    data = to_json(lie)
    out.blob_path(digest_of(data)).write_bytes(data)
    entry = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(data), size=len(data))
    index = out.index().with_tag(f"{digest.replace(':', '-')}.sig", entry)
    (out.root / "index.json").write_bytes(to_json(index))
    subprocess.run(["tar", "-C", out.root, "-cf", tmp_path / "out.tar", "."], check=True)
    for number, source in enumerate((out.root, tmp_path / "out.tar")):
        refused(source, tmp_path / f"device-{number}", DigestError)


def test_no_flipped_byte_of_any_blob_is_accepted(exported: Path, tmp_path: Path) -> None:
    """Sampled flips over each blob of the folder, and over every blob inside the tar; the seed is fixed."""
    chance = random.Random(7)
    folder = tmp_path / "bundle"
    shutil.copytree(exported / "bundle", folder)
    store = Store.create(tmp_path / "store")
    before = snapshot(store.root)
    flips = 0
    for blob in sorted((folder / "blobs" / "sha256").iterdir()):
        good = blob.read_bytes()
        for place in {0, len(good) - 1, *(chance.randrange(len(good)) for _ in range(3))}:
            bad = bytearray(good)
            bad[place] ^= 1 << chance.randrange(8)
            blob.write_bytes(bad)
            with pytest.raises(IntegrityError) as caught:
                import_layout(folder, store, tags=["current"])
            assert caught.value.exit_code == 4
            flips += 1
        blob.write_bytes(good)
    assert flips > 40
    assert snapshot(store.root) == before
    import_layout(folder, store)


def test_no_flipped_byte_of_a_tar_is_accepted_silently(shared: Store, exported: Path, tmp_path: Path) -> None:
    """A flip in padding or in an unsigned tag may pass: then what arrives is exactly what was sent."""
    chance = random.Random(8)
    good = (exported / "bundle.tar").read_bytes()
    source, outcomes = tmp_path / "flipped.tar", {"refused": 0, "same": 0}
    for _ in range(60):
        bad = bytearray(good)
        bad[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        source.write_bytes(bad)
        try:
            with opened(source) as loaded:
                for layer in loaded.manifest.layers:
                    loaded.layout.verify(layer)
                assert loaded.digest == shared.tags()["current"]
                outcomes["same"] += 1
        except (IntegrityError, ModelError):
            outcomes["refused"] += 1
    assert outcomes["refused"] > outcomes["same"]


def test_a_tar_cut_short_anywhere_is_refused(exported: Path, tmp_path: Path) -> None:
    good = (exported / "bundle.tar").read_bytes()
    cut = tmp_path / "cut.tar"
    places = {0, 1, 511, 512, 513, len(good) - 1, len(good) - 513, *random.Random(9).sample(range(len(good)), 15)}
    for number, place in enumerate(sorted(places)):
        cut.write_bytes(good[:place])
        refused(cut, tmp_path / f"store-{number}")


def with_member(make: Callable[[tarfile.TarFile], None]) -> Callable[[Path, Path], None]:
    """Return a function that writes the good tar's files, after what `make` adds, to a new tar."""

    def write(good: Path, out: Path) -> None:
        with tarfile.open(good) as source, tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as target:
            make(target)
            for member in source.getmembers():
                target.addfile(member, source.extractfile(member))

    return write


def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "") -> Callable[[Path, Path], None]:
    def make(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, len(data), link
        tar.addfile(info, io.BytesIO(data))

    return with_member(make)


HEX = "0" * 64
HOSTILE_TARS = {
    "absolute path": add("/etc/cron.d/x", data=b"x"),
    "traversal": add("../../x", data=b"x"),
    "traversal in a blob's name": add("blobs/sha256/../../../x", data=b"x"),
    "symbolic link": add(f"blobs/sha256/{HEX}", tarfile.SYMTYPE, link="/etc/passwd"),
    "symbolic link for a folder": add("blobs", tarfile.SYMTYPE, link="/tmp"),
    "hard link": add(f"blobs/sha256/{HEX}", tarfile.LNKTYPE, link="oci-layout"),
    "device": add(f"blobs/sha256/{HEX}", tarfile.CHRTYPE),
    "pipe": add("index.json", tarfile.FIFOTYPE),
    "sparse file": add(f"blobs/sha256/{HEX}", tarfile.GNUTYPE_SPARSE),
    "long name": add("blobs/sha256/" + "a" * 300, data=b"x"),
    "a stranger": add("README.md", data=b"x"),
    "store state": add("state.json", data=b"{}"),
    "a folder elsewhere": add("keys", tarfile.DIRTYPE),
    "a file twice": add("oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}'),
    "huge index": add("index.json", data=bytes((4 << 20) + 1)),
    "renaming header": add("x", tarfile.XHDTYPE, b"17 path=../../x\n"),
    "resizing header": add("x", tarfile.XGLTYPE, b"13 size=9999\n"),
    "huge header": add("x", tarfile.XHDTYPE, bytes(1 << 20)),
    "wrong blob": add(f"blobs/sha256/{HEX}", data=b"not of this digest"),
    "compressed": lambda good, out: out.write_bytes(gzip.compress(good.read_bytes())),
    "empty tar": lambda good, out: out.write_bytes(bytes(10240)),
    "noise": lambda good, out: out.write_bytes(random.Random(1).randbytes(4096)),
}


@pytest.mark.parametrize("kind", HOSTILE_TARS)
def test_a_hostile_tar_is_refused(exported: Path, tmp_path: Path, kind: str) -> None:
    HOSTILE_TARS[kind](exported / "bundle.tar", tmp_path / "hostile.tar")
    error = refused(tmp_path / "hostile.tar", tmp_path / "store", IntegrityError if kind != "empty tar" else ModelError)
    assert "hostile.tar" in error.message
    if any(word in kind for word in ("link", "device", "pipe", "sparse")):
        assert "plain files" in error.expected
    assert {path.name for path in tmp_path.iterdir()} == {"hostile.tar", "store"}


def test_a_tar_that_claims_a_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    info = tarfile.TarInfo(f"blobs/sha256/{HEX}")
    for size in (1 << 40, 1 << 31):
        info.size = size
        (tmp_path / "big.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
        assert "too large" in str(refused(tmp_path / "big.tar", tmp_path / "store"))


def rewrite(folder: Path, change: Callable[[Manifest, dict[str, object]], tuple[Manifest, dict[str, object]]]) -> None:
    """Rewrite the manifest and document of the bundle `folder` with right digests: a forger's work, not a disk's."""
    layout = Layout(folder)
    loaded = layout.load("machine-2")
    manifest, document = change(loaded.manifest, json.loads(to_json(loaded.generation)))
    data = canonical(document)
    layout.blob_path(digest_of(data)).write_bytes(data)
    config = manifest.config
    if config == loaded.manifest.config:
        config = config.model_copy(update={"digest": digest_of(data), "size": len(data)})
    data = to_json(manifest.model_copy(update={"config": config}))
    layout.blob_path(digest_of(data)).write_bytes(data)
    entry = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(data), size=len(data), artifact_type=BUNDLE)
    (folder / "index.json").write_bytes(to_json(Index.of().with_tag("machine-2", entry)))


def test_a_forged_bundle_with_right_digests_is_still_checked(exported: Path, tmp_path: Path) -> None:
    forgeries: dict[str, Callable[[Manifest, dict[str, object]], tuple[Manifest, dict[str, object]]]] = {
        "lies about a size": lambda m, d: (
            m.model_copy(update={"layers": (m.layers[0].model_copy(update={"size": 1}), *m.layers[1:])}),
            d,
        ),
        "claims a huge document": lambda m, d: (
            m.model_copy(update={"config": m.config.model_copy(update={"size": 5 << 20})}),
            d,
        ),
        "leaves a layer out": lambda m, d: (m.model_copy(update={"layers": m.layers[1:]}), d),
        "is another dimension": lambda m, d: (m, d | {"embedding_dim": 5}),
        "has an unknown field": lambda m, d: (m, d | {"later": 1}),
    }
    for number, (what, forgery) in enumerate(forgeries.items()):
        folder = tmp_path / f"bundle-{number}"
        shutil.copytree(exported / "bundle", folder)
        rewrite(folder, forgery)
        assert refused(folder, tmp_path / f"store-{number}"), what


@pytest.mark.parametrize("wrong", ["width", "modality", "reference", "statistics", "unused reference", "twice"])
def test_payloads_that_do_not_fit_their_generation_are_refused(tmp_path: Path, wrong: str) -> None:
    store = make_store(tmp_path / "store")
    with store.writer():
        generation = updated_generation(store, "current", seed=40)
        acc = generation.modalities["acc"]
        unknown = "sha256:" + "5" * 64
        change: dict[str, object] = {
            "width": {"origins": (store.put(sketch_to_bytes(make_origin("acc", acc.adapter_blob, width=7))),)},
            "modality": {"origins": (store.put(sketch_to_bytes(make_origin("gyro", acc.adapter_blob))),)},
            "reference": {"origins": (store.put(sketch_to_bytes(make_origin("acc", unknown))),)},
            "statistics": {"adapter_blob": store.put(adapter_to_bytes(make_adapter(1, text=True)))},
            "unused reference": {"references": (*acc.references, store.put(adapter_to_bytes(make_adapter(77))))},
            "twice": {"origins": (*acc.origins, store.put(sketch_to_bytes(make_origin("acc", acc.adapter_blob))))},
        }[wrong]
        assert isinstance(change, dict)
        changed = {**generation.modalities, "acc": acc.model_copy(update=change)}
        store.commit(generation.model_copy(update={"modalities": changed}), ["odd"])
    export_layout(store, "odd", tmp_path / "bundle")
    assert "does not fit the generation" in str(refused(tmp_path / "bundle", tmp_path / "device", FormatError))


JUNK = {
    "adapter_blob": 4 * (4 + 2) * 6,
    "origins": 2 * 1024 * 6,
    "golden_blob": 260 << 20,
    "label_blob": 4 * 1024 * 4096,
}
"""Most bytes of tensors that a record of bundle_samples implies (FORMAT.md, "Limits")."""


@pytest.mark.parametrize("field", JUNK)
def test_a_payload_larger_than_its_document_implies_is_refused_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    store, junk = make_store(tmp_path / "store"), tmp_path / "junk"
    size = JUNK[field] + (1 << 20) + 9
    with junk.open("wb") as file:
        file.truncate(size)
    digest = hashlib.sha256()
    with junk.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    junk.rename(store.blob_path(digest.hexdigest()))
    name = "text" if field == "label_blob" else "acc"
    with store.writer():
        generation = store.load("current").generation
        value = f"sha256:{digest.hexdigest()}"
        record = generation.modalities[name].model_copy(update={field: (value,) if field == "origins" else value})
        modalities = {**generation.modalities, name: record}
        store.commit(generation.model_copy(update={"modalities": modalities, "counter": 3}), ["odd"])
    read = Layout.read
    sizes: list[int] = []

    def noted(self: Layout, descriptor: Descriptor) -> bytes:
        sizes.append(descriptor.size)
        return read(self, descriptor)

    monkeypatch.setattr(Layout, "read", noted)
    with pytest.raises(FormatError, match="is too large") as caught:
        contents.check_contents(store.load("odd"))
    assert caught.value.got == f"{size} bytes"
    assert size not in sizes


def test_a_folder_larger_than_a_bundle_may_be_is_refused_before_it_is_copied(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(path.stat().st_size for path in (exported / "bundle" / "blobs" / "sha256").iterdir())
    monkeypatch.setattr(limits, "MAX_BUNDLE_BYTES", total)
    import_layout(exported / "bundle", Store.create(tmp_path / "fits"))
    monkeypatch.setattr(limits, "MAX_BUNDLE_BYTES", total - 1)
    monkeypatch.setattr(transfer, "_write_folder", lambda *arguments: pytest.fail("it is copied"))
    assert "holds too much" in str(refused(exported / "bundle", tmp_path / "store", FormatError))


def test_what_is_no_bundle_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "a", ModelError)
    assert "no such folder" in str(refused(tmp_path / "nothing", tmp_path / "b", ModelError))


@pytest.mark.parametrize("form", FORMS)
def test_export_replaces_a_bundle_and_nothing_else(shared: Store, tmp_path: Path, form: str) -> None:
    out = tmp_path / form
    export_layout(shared, "base", out)
    export_layout(shared, "current", out)
    with opened(out) as loaded:
        assert loaded.generation.counter == 2
    assert {path.name for path in tmp_path.iterdir()} == {form}
    precious = tmp_path / ("precious.tar" if form.endswith(".tar") else "precious")
    if form.endswith(".tar"):
        precious.write_bytes(b"years of work")
    else:
        make_store(precious)
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="not a bundle"):
        export_layout(shared, "current", precious)
    assert snapshot(tmp_path) == before


def image_of_another_tool(root: Path, *, beside: Store | None = None) -> None:
    """Write an OCI image layout as container tools do, on its own or in the index of a bundle of ours."""
    store = Store.create(root)
    with store.writer():
        config = Descriptor(media_type="application/x", digest=store.put(b"{}"), size=2)
        manifest = to_json(Manifest(schema_version=2, config=config, layers=()))
        entries = [Descriptor(media_type=OCI_MANIFEST, digest=store.put(manifest), size=len(manifest))]
        if beside is not None:
            digest = import_layout(beside.root, store, ref="base")
            entries.append(store.load(digest).descriptor)
    (root / "index.json").write_bytes(to_json(Index.of(*entries)))
    (root / "lock").unlink()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "beside a bundle"])
def test_export_does_not_replace_an_image_of_another_tool(
    shared: Store, tmp_path: Path, form: str, mixed: bool
) -> None:
    image = tmp_path / "image"
    image_of_another_tool(image, beside=shared if mixed else None)
    if form.endswith(".tar"):
        names = ["oci-layout", "index.json", "blobs"]
        subprocess.run(["tar", "-C", image, "--format=ustar", "-cf", tmp_path / "image.tar", *names], check=True)
        image = tmp_path / "image.tar"
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="is not a bundle") as caught:
        export_layout(shared, "current", image)
    assert "remove it first" in caught.value.hint
    assert snapshot(tmp_path) == before


def test_export_replaces_a_signed_bundle_and_not_a_damaged_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    attach(store, store.tags()["current"], b"signature")
    for form in FORMS:
        export_layout(store, "current", tmp_path / form)
        export_layout(store, "base", tmp_path / form)
    manifest = Layout(tmp_path / "bundle").blob_path(store.tags()["base"])
    manifest.write_bytes(manifest.read_bytes()[:-1])
    (tmp_path / "bundle.tar").write_bytes((tmp_path / "bundle.tar").read_bytes()[:1500])
    for form in FORMS:
        with pytest.raises(UsageError, match="is not a bundle"):
            export_layout(store, "current", tmp_path / form)


@pytest.mark.parametrize("form", FORMS)
def test_a_failed_export_leaves_the_older_bundle_and_no_debris(tmp_path: Path, form: str) -> None:
    store = make_store(tmp_path / "store")
    export_layout(store, "base", tmp_path / form)
    before = snapshot(tmp_path / form) if form == "bundle" else (tmp_path / form).read_bytes()
    step = store.blob_path(store.load("current").generation.step)
    step.write_bytes(b"step gruph")
    with pytest.raises(DigestError):
        export_layout(store, "current", tmp_path / form)
    assert {path.name for path in tmp_path.iterdir()} == {"store", form}
    assert before == (snapshot(tmp_path / form) if form == "bundle" else (tmp_path / form).read_bytes())
    with pytest.raises(ModelError):
        export_layout(store, "unknown", tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        export_layout(store, "base", tmp_path / "file" / form)


def test_a_replayed_counter_is_refused_where_the_parent_is_known(shared: Store, exported: Path, tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    import_layout(shared.root, store, ref="base", tags=["current"])
    folder = tmp_path / "bundle"
    shutil.copytree(exported / "bundle", folder)
    rewrite(folder, lambda manifest, document: (manifest, document | {"counter": 1}))
    before = snapshot(store.root)
    with pytest.raises(FormatError, match="not newer"):
        import_layout(folder, store)
    assert snapshot(store.root) == before


def test_export_uses_bounded_memory(tmp_path: Path) -> None:
    """A 96 MiB blob passes through import and export while the process may not grow by half of that."""
    code = (
        "import hashlib, sys, resource; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from bundle_samples import base_generation; from edge_cmcl.bundle import Store\n"
        "from edge_cmcl.bundle.transfer import export_layout, import_layout\n"
        "root = Path(sys.argv[2]); store = Store.create(root / 'store')\n"
        "big, digest = root / 'big', hashlib.sha256()\n"
        "with big.open('wb') as file: file.truncate(96 << 20)\n"
        "for _ in range(96): digest.update(bytes(1 << 20))\n"
        "big.rename(store.blob_path(digest.hexdigest()))\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with store.writer():\n"
        "    base = base_generation(store)\n"
        "    store.commit(base.model_copy(update={'step': 'sha256:' + digest.hexdigest()}), ['base'])\n"
        "export_layout(store, 'base', root / 'out.tar'); import_layout(root / 'out.tar', Store.create(root / 'b'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)"
    )
    here = os.fspath(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code, here, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 48 << 20
