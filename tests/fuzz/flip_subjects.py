"""What bits are flipped in: an exported bundle as a folder and as a tar, and the store of a device in use.

All are of the simulated machine, signed, with graphs that run. A subject works on its own copy and knows what an intact
one gives; each class says which other outcomes are harmless.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flips import Flip, Region, file_regions, tar_regions
from machine_bundle import Machine
from numpy.typing import NDArray

from edge_cmcl.bundle import Layout, Store
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.documents import ATTACHMENT_TAG, TAG_ANNOTATION
from edge_cmcl.bundle.media_types import ROLES
from edge_cmcl.bundle.parts import part_type
from edge_cmcl.bundle.twofold import DamagedFileWarning
from edge_cmcl.data import open_pairs
from edge_cmcl.device.intact import DamagedGenerationWarning
from edge_cmcl.device.learner import update
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.starting import RevertedWarning, confirm
from edge_cmcl.device.status import status
from edge_cmcl.device.store import install, open_store
from edge_cmcl.errors import EdgeCmclError


def kinds(layout: Layout) -> Callable[[Path], str]:
    """Return what says of a path in `layout` what kind of file it is: "sketch", "manifest", "index.json", ..."""
    roles = {
        kind: role
        for role, media_type in ROLES.items()
        if role != "reference"
        for kind in (media_type, part_type(media_type))
    }
    names: dict[str, str] = {}
    for entry in layout.index().manifests:
        attached = ATTACHMENT_TAG.fullmatch(entry.tag) is not None
        names[entry.digest[7:]] = "signature manifest" if attached else "manifest"
        if attached:
            document = json.loads(layout.read(entry))
            names[document["config"]["digest"][7:]] = "signature config"
            for layer, kind in zip(document["layers"], ("DSSE envelope", "signature keys"), strict=True):
                names[layer["digest"][7:]] = kind
    for tag, digest in layout.tags().items():
        if not ATTACHMENT_TAG.fullmatch(tag):
            for loaded in layout.lineage([digest], past=()):
                names[loaded.digest[7:]] = "manifest"
                names[loaded.manifest.config.digest[7:]] = "generation"
                names |= {layer.digest[7:]: roles[layer.media_type] for layer in loaded.manifest.layers}

    def kind_of(path: Path) -> str:
        return names.get(path.name, "private key" if path.suffix == ".pem" else path.name)

    return kind_of


class BundleSubject:
    """A signed bundle that is installed on a new device, whose owner names the key to trust.

    Accepted must be what was exported: the same generation, every blob of it intact, signed. Beyond that, the entries
    of `index.json` may say other things in fields that nobody reads.
    """

    def __init__(self, machine: Machine, form: str, folder: Path) -> None:
        self.name = form
        self._key, self._device = machine.public_key, folder / "device"
        self.path = folder / ("bundle.tar" if form == "tar" else "bundle")
        unpacked = folder / "bundle"
        with tarfile.open(machine.bundle) as tar:
            tar.extractall(unpacked, filter="data")
        if form == "tar":
            shutil.copy(machine.bundle, self.path)
        kind_of = kinds(Layout(unpacked))
        self.regions = tar_regions(self.path, kind_of) if form == "tar" else file_regions(self.path, kind_of)
        self._intact = self._installed()

    def outcome(self, flip: Flip) -> str:
        try:
            found = self._installed()
        except EdgeCmclError:
            assert not self._device.exists(), f"{flip}: a refused bundle leaves something behind"
            raise
        if found == self._intact:
            return "accepted, identical"
        entries, wanted = found.pop("entries"), self._intact["entries"]
        rest = {name: value for name, value in self._intact.items() if name != "entries"}
        assert found == rest, f"{flip} changes {found} from {rest}"
        assert [_read_part(e) for e in entries] == [_read_part(e) for e in wanted], f"{flip}: {entries}"
        return "accepted, other unread fields of an index entry"

    def _installed(self) -> dict[str, Any]:
        """Install the bundle on a new device; return what is there then, and remove it."""
        try:
            done = install(self.path, self._device, trust=self._key)
            store = open_store(self._device)
            loaded = store.load("current")
            check_digests(loaded)
            for entry in store.attachments(loaded.digest):
                for layer in (entry, *json.loads(store.read(entry))["layers"]):
                    digest = layer["digest"] if isinstance(layer, dict) else layer.digest
                    assert store.has(digest)
            return {
                "digest": done.digest,
                "signed_by": done.signed_by,
                "blobs": sorted(path.name for path in store.blob_path("").iterdir()),
                "files": sorted(path.name for path in store.root.iterdir()),
                "entries": [json.loads(e.model_dump_json(by_alias=True)) for e in store.index().manifests],
            }
        finally:
            shutil.rmtree(self._device, ignore_errors=True)


def _read_part(entry: dict[str, Any]) -> tuple[str, str]:
    """Return what this project reads of an index entry: which manifest has which tag."""
    return entry["digest"], (entry.get("annotations") or {}).get(TAG_ANNOTATION, "")


class StoreSubject:
    """The store of a device that has learned a sensor: on trial still, or confirmed.

    Used as a device uses it: `status`, then open the model and embed what two sensors measured, and in one flip of
    ten an update without commit. Whatever is not refused must embed exactly as the intact store, or, where the
    generation in use is damaged, as the one before, with a warning.
    """

    def __init__(self, machine: Machine, form: str, folder: Path) -> None:
        self.name = form
        self._machine, self._root = machine, folder / "store"
        self._before: NDArray[np.float32] | None = None
        install(machine.bundle, self._root, trust=machine.public_key)
        store = open_store(self._root)
        with open_pairs(machine.new) as pairs:
            self._windows = {name: pairs.read(name, 0, 2) for name in ("vibration", "acoustic")}
            self._before = self._embedded("vibration")
            update(store, pairs, "acoustic", partners=["vibration", "text"])
        if form == "confirmed":
            confirm(store)
        self._small = {path: path.read_bytes() for path in self._small_files()}
        self.regions: list[Region] = file_regions(self._root, kinds(store))
        self._wanted = {name: self._embedded(name) for name in self._windows}
        self._status = status(store)
        self._restore()

    def outcome(self, flip: Flip) -> str:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                return self._used(flip, caught)
        finally:
            self._restore(flip)

    def _used(self, flip: Flip, caught: Sequence[warnings.WarningMessage]) -> str:
        told = self._told(flip)
        embedded = self._embedded("vibration")
        warned = {each.category for each in caught}
        if warned & {RevertedWarning, DamagedGenerationWarning}:
            assert self.name == "trial" or RevertedWarning not in warned, f"{flip}: a confirmed generation went back"
            assert np.array_equal(embedded, self._before), f"{flip}: another model than before the update"
            return f"{told}; the generation before answers"
        assert np.array_equal(embedded, self._wanted["vibration"]), f"{flip}: another model"
        assert np.array_equal(self._embedded("acoustic"), self._wanted["acoustic"]), f"{flip}: another model"
        if flip.ident.endswith("0"):
            self._update_without_commit()
        return f"{told}, from a copy" if DamagedFileWarning in warned else told

    def _told(self, flip: Flip) -> str:
        """Return how `status` takes it: the same, or other figures that FORMAT.md names."""
        try:
            found = status(open_store(self._root))
        except EdgeCmclError as error:
            if error.exit_code not in (3, 4):
                raise
            return f"status says {type(error).__name__}, the model answers the same"
        other = {name for name, value in self._status.items() if found[name] != value}
        if other == {"trial"}:
            assert found["trial"] == {**self._status["trial"], "back_to": None}, f"{flip}: {found['trial']}"
            return "the same, what a failed trial returns to is unknown"
        assert other <= {"signed_by"}, f"{flip}: status shows other {sorted(other)}"
        if other:
            assert found["signed_by"]["standing"] != "trusted", f"{flip}: {found['signed_by']}"
            return f"the same, signature {found['signed_by']['standing']}"
        return "the same"

    def _embedded(self, sensor: str) -> NDArray[np.float32]:
        return open_model(self._root, threads=1).embed(sensor, self._windows[sensor])

    def _update_without_commit(self) -> None:
        with open_pairs(self._machine.new) as pairs:
            update(Store(self._root), pairs, "acoustic", partners=["vibration"], dry_run=True, threads=1)

    def _small_files(self) -> list[Path]:
        files = (path for path in self._root.rglob("*") if path.is_file())
        return [path for path in files if path.parent.name != "sha256"]

    def _restore(self, flip: Flip | None = None) -> None:
        """Bring back every small file as it was, but the flipped byte, which is flipped back afterwards."""
        for path in {*self._small_files(), *self._small}:
            if path not in self._small:
                path.unlink()
            elif not path.exists() or path.read_bytes() != self._small[path]:
                path.write_bytes(self._small[path])


SUBJECTS: dict[str, Callable[[Machine, str, Path], BundleSubject | StoreSubject]] = {
    "folder": BundleSubject,
    "tar": BundleSubject,
    "trial": StoreSubject,
    "confirmed": StoreSubject,
}
"""Each subject by the first part of its ids, and what makes it in an empty folder."""
