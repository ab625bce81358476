"""From a run to a bundle: encoders and the training step as ONNX, parity proven through the device's own classes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Generation, Loaded, ModalityRecord, PairRecord, Store
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.envelope import Envelope
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.payloads import (
    LabelFeatures,
    adapter_to_bytes,
    golden_to_bytes,
    labels_to_bytes,
    sketch_to_bytes,
)
from edge_cmcl.bundle.signature import write_signature
from edge_cmcl.bundle.transfer import export_layout
from edge_cmcl.continual.origin import Origin
from edge_cmcl.device.golden import golden_windows, make_golden
from edge_cmcl.device.model import Model
from edge_cmcl.device.runtime import runtime_of
from edge_cmcl.device.sessions import CPU
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.host.calibration import KEY as CALIBRATION
from edge_cmcl.host.calibration import calibration_of
from edge_cmcl.host.encoding import modality_record
from edge_cmcl.host.graphs import step_graph, universal_graph
from edge_cmcl.host.parity import check_embeddings, check_step
from edge_cmcl.host.precision import GATE, at_precision, chosen_precisions
from edge_cmcl.host.prepared import Prepared
from edge_cmcl.host.run import PROJECT_FOLDER, Run, load_run
from edge_cmcl.progress import Progress, silent
from edge_cmcl.version import SOFTWARE

_STAYS = (CALIBRATION, PROJECT_FOLDER)
"""Metrics of a run that are not for a bundle: the one stands in its records, the other is a path of this machine."""

KEPT_EPOCHS = 200
"""Epochs of each training history that go into a bundle."""


def export(
    run: Run,
    out: Path,
    progress: Progress = silent,
    *,
    counter: int = 1,
    signers: Sequence[PrivateKey] = (),
    rotations: Sequence[Envelope] = (),
    encoders: Mapping[str, Prepared] | None = None,
) -> dict[str, Any]:
    """Write the bundle of `run` to `out`, a folder or, where it ends in .tar, a tar; return what was proven.

    Args:
        run: a finished run.
        out: where to.
        progress: told how far it is.
        counter: devices refuse a bundle with a lower one than they were given (`counting.counter_of`).
        signers: keys that sign it; with none it is unsigned, and devices take it on request only.
        rotations: how the signers' keys came after others that devices may trust still, oldest first.
        encoders: of each sensor, as `precision.at_precision` gave them with `run`; by default float32 for the CPU.

    Raises:
        ParityError: an exported graph answers differently from torch; nothing is written.
        UsageError: something else is at `out`.
        ModelError: an encoder of the user's own cannot be used.
        StorageError: the file system refused.
    """
    with exported(run, progress, counter, signers, rotations, encoders) as (loaded, parity):
        digest = export_layout(loaded.layout, CURRENT, out)
        return {
            "bundle": str(out),
            "digest": digest,
            "counter": counter,
            "modalities": sorted(loaded.generation.modalities),
            "bytes": sum({layer.digest: layer.size for layer in loaded.manifest.layers}.values()),
            "parity": parity,
            "runtime": {name: vars(runtime_of(r)) for name, r in loaded.generation.modalities.items() if name != TEXT},
            "gate": run.metrics.get(GATE),
            "signed_by": [signer.public.fingerprint for signer in signers],
        }


@contextmanager
def exported(
    run: Run,
    progress: Progress = silent,
    counter: int = 1,
    signers: Sequence[PrivateKey] = (),
    rotations: Sequence[Envelope] = (),
    encoders: Mapping[str, Prepared] | None = None,
) -> Iterator[tuple[Loaded, dict[str, Any]]]:
    """Yield the generation of `run` in a temporary store, signed, parity checked, and the largest differences found."""

    def sign(new: Loaded) -> dict[str, Descriptor]:
        return write_signature(store, new, signers, rotations) if signers else {}

    with tempfile.TemporaryDirectory(prefix="edge-cmcl-export-") as folder:
        store = Store.create(Path(folder) / "store")
        if encoders is None:
            run, encoders = at_precision(run, chosen_precisions(run, ()))
        with store.writer():
            digest = store.commit(_generation(run, store, counter, encoders, progress), [CURRENT], sign)
        loaded = store.load(digest)
        on_host = Model(loaded, providers=CPU)  # whatever the target: torch is compared with where it runs
        yield loaded, _check_parity(run, on_host, encoders, progress)


def _check_parity(run: Run, model: Model, encoders: Mapping[str, Prepared], progress: Progress) -> dict[str, float]:
    found = {"step": check_step(model.step_session)}
    for done, (name, encoder) in enumerate(encoders.items(), start=1):
        found[name] = check_embeddings(model, name, encoder.reference, run.project.modality[name].samples)
        progress("parity", done, len(encoders))
    return found


def _generation(
    run: Run, store: Store, counter: int, encoders: Mapping[str, Prepared], progress: Progress
) -> Generation:
    names = sorted(run.adapters)
    total = len(names) + 2
    universal = universal_graph()
    progress("export", 1, total)
    step = store.put_in_parts(step_graph())
    progress("export", 2, total)
    records = {}
    for done, name in enumerate(names, start=3):
        records[name] = _write_modality(run, store, name, encoders.get(name))
        progress("export", done, total)
    return Generation.model_validate(
        {
            "name": run.project.name,
            "counter": counter,
            "created": run.created,
            "software": SOFTWARE,
            "action": "export",
            "embedding_dim": run.project.embedding_dim,
            "modalities": records,
            "universal": store.put_in_parts(universal),
            "step": step,
            "pairs": _pair_records(run),
            "metrics": {"training": thinned({key: value for key, value in run.metrics.items() if key not in _STAYS})},
        }
    )


def thinned(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return training metrics with at most about `KEPT_EPOCHS` epochs of each history, the best and the last included.

    A generation has room for 256 KiB of metrics (bundle/FORMAT.md); the run keeps every epoch.
    """
    histories = {name: value for name, value in metrics.items() if isinstance(value, Mapping) and "epochs" in value}
    return {**metrics, **{name: {**history, "epochs": _thinned(history)} for name, history in histories.items()}}


def _thinned(history: Mapping[str, Any]) -> list[Any]:
    epochs = history["epochs"]
    every = -(-len(epochs) // KEPT_EPOCHS)
    kept = {*range(0, len(epochs), max(every, 1)), history["best_epoch"], len(epochs) - 1}
    return [epoch for number, epoch in enumerate(epochs) if number in kept]


def _write_modality(run: Run, store: Store, name: str, encoder: Prepared | None) -> ModalityRecord:
    adapter = run.adapters[name]
    weights = store.put_in_parts(adapter_to_bytes(adapter))
    update: dict[str, Any] = {"adapter_blob": weights, "origins": (store.put_in_parts(_sketch(run, name, weights)),)}
    if encoder is None:
        labels = LabelFeatures(run.labels, label_features(run.labels))
        return modality_record(run.project, TEXT).model_copy(
            update={**update, "label_blob": store.put_in_parts(labels_to_bytes(labels))}
        )
    record = encoder.record
    windows = golden_windows(name, record, run.project.modality[name].samples)
    golden = golden_to_bytes(make_golden(encoder.golden, adapter, windows))
    update["calibration"] = {**record.calibration, **calibration_of(run.metrics, name, _origin_id(run))}
    blobs = {"encoder_blob": store.put_in_parts(encoder.graph), "golden_blob": store.put_in_parts(golden)}
    return record.model_copy(update={**update, **blobs})


def _sketch(run: Run, name: str, reference: str) -> bytes:
    partners = {other for pair in run.project.pair if name in pair.modalities for other in pair.modalities} - {name}
    return sketch_to_bytes(
        Origin(
            id=_origin_id(run),
            revision=0,
            device="",
            modality=name,
            partners=tuple(sorted(partners)),
            created=run.created,
            sketch=run.sketches[name],
            reference=reference,
        )
    )


def _origin_id(run: Run) -> str:
    return f"base:{run.run_id}"


def _pair_records(run: Run) -> tuple[PairRecord, ...]:
    rows = [pair["fitted_rows"] for pair in run.metrics["pairs"]]
    return tuple(
        PairRecord(modalities=pair.modalities, origin=_origin_id(run), n=n)
        for pair, n in zip(run.project.pair, rows, strict=True)
    )


@contextmanager
def exported_model(folder: Path) -> Iterator[Model]:
    """Yield the model that exporting the run in `folder` would give; raises as `export` and `load_run` do."""
    with exported(load_run(folder)) as (loaded, _):
        yield Model(loaded)
