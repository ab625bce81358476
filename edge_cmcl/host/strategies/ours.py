"""The product itself: the host trains the first step and exports it, the shipped device learner learns the rest."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from edge_cmcl.bundle import CertificateRecord, Store
from edge_cmcl.bundle.transfer import export_layout
from edge_cmcl.continual.origin import sketch_bytes
from edge_cmcl.data import open_pairs
from edge_cmcl.device.fits import FitWarning
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import universal_record
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.host.export import exported
from edge_cmcl.host.strategies.base import Settings, Step, Stored, Strategy
from edge_cmcl.host.train import train
from edge_cmcl.project import TEXT


class Ours(Strategy):
    """Runs `host.train`, `host.export`, `device.store.install` and `device.learner.update` on a store of its own.

    Epochs, learning rates and penalties are chosen by the learner from the training data; of `Settings` only
    `dimensions` and `seed` count.
    """

    name = "ours"
    title = "edge-cmcl"
    source = "design.md section 2"
    reads_files = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._folder = tempfile.TemporaryDirectory(prefix="edge-cmcl-ours-")
        self._store: Store | None = None

    def learn(self, step: Step) -> None:
        """Learn one step: the base on the host, every other one by an update on the device."""
        if self._store is None:
            self._store = self._install_base(step)
        else:
            anchor, partner = step.modalities
            with open_pairs(step.file) as pairs, warnings.catch_warnings():
                # A stream may take one modality from several places; that their rates differ is not news here.
                warnings.simplefilter("ignore", FitWarning)
                update(
                    self._store, pairs, anchor,
                    partners=[partner], task=step.name, threads=1, seed=self.settings.seed,
                    force=True,  # what learning does is compared, not where the guard would stop it
                )  # fmt: skip
        model = Model(self._store.load(CURRENT))
        self.adapters = {name: torch.from_numpy(model.adapter(name).weight) for name in model.modalities}

    def close(self) -> None:
        """Remove the store."""
        self._folder.cleanup()

    def stored(self) -> Stored:
        """Sketches, and the older adapters that certificates refer to; no window and no feature."""
        assert self._store is not None
        loaded = self._store.load(CURRENT)
        model = Model(loaded)
        sketches = {name: sketch_bytes(model.origins(name)) for name in model.modalities}
        older = {digest for record in model.generation.modalities.values() for digest in record.references}
        references = sum(loaded.blob_size(digest) for digest in older)
        details = {
            "sketches": sum(sketches.values()),
            "sketches_largest_modality": max(sketches.values()),
            "older_adapters_of_certificates": references,
        }
        return Stored(bytes=sum(sketches.values()) + references, details=details)

    def certificates(self) -> Sequence[CertificateRecord]:
        """Return the certificate of the generation in use."""
        assert self._store is not None
        return Model(self._store.load(CURRENT)).generation.certificate

    def _install_base(self, step: Step) -> Store:
        folder = Path(self._folder.name)
        project = folder / "edge-cmcl.toml"
        project.write_text(self._project(step))
        run = train(project, folder / "run", device="cpu")
        with exported(run) as (loaded, _):
            export_layout(loaded.layout, CURRENT, folder / "base.tar")
        install(folder / "base.tar", folder / "store", allow_unsigned=True)  # made two lines above
        return open_store(folder / "store")

    def _project(self, step: Step) -> str:
        widths = {side.shape[1] for name, side in zip(step.modalities, step.features, strict=True) if name != TEXT}
        dimensions = self.settings.dimensions
        lines: list[str] = ['name = "stream"', f"width = {max(widths)}", f"embedding_dim = {dimensions}"]
        with open_pairs(step.file) as pairs:
            for name in step.modalities:
                if name != TEXT:
                    record = universal_record(pairs, name, max(widths))
                    rate = record.rate_hz or 1.0
                    shape = f"frame = {list(record.frame)}" if record.frame else f"channels = {record.channels}"
                    lines += [f"[modality.{name}]", shape, f"rate_hz = {rate!r}", f"scale = {record.scale!r}"]
                    lines += [f"window_s = {pairs.shape(name)[0] / rate!r}"]
        names, files = json.dumps(step.modalities), json.dumps([str(step.file.absolute())])
        lines += ["[[pair]]", f"modalities = {names}", f"train = {files}", f"[train]\nseed = {self.settings.seed}"]
        return "\n".join(lines) + "\n"
