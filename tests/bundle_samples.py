"""A small but complete bundle, as an update would leave it: two sensors, a text modality, a moved adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_cmcl.bundle import CertificateRecord, Generation, ModalityRecord, PairRecord, Store
from edge_cmcl.bundle.payloads import (
    Adapter,
    Golden,
    LabelFeatures,
    adapter_to_bytes,
    golden_to_bytes,
    labels_to_bytes,
    sketch_to_bytes,
)
from edge_cmcl.continual.origin import Origin
from edge_cmcl.continual.sketch import Sketch

D, WIDTH = 4, 6
CREATED = "2026-01-02T03:04:05Z"
REFERENCE = "sha256:" + "1" * 64


def make_adapter(seed: int, width: int = WIDTH, *, text: bool = False) -> Adapter:
    random = np.random.default_rng(seed)
    weight = random.normal(size=(D, width)).astype(np.float32)
    if text:
        return Adapter(weight)
    return Adapter(weight, random.normal(size=width).astype(np.float32), np.full(width, 0.5, np.float32))


def make_origin(modality: str, reference: str = REFERENCE, name: str = "base", width: int = WIDTH) -> Origin:
    rows = np.arange(2 * width, dtype=np.float32).reshape(2, width) / 8
    sketch = Sketch(rows, n=40, trace=0.1 + 0.2, delta=1e-7)
    return Origin(name, 0, "", modality, ("gyro",), CREATED, sketch, reference)


def make_golden() -> Golden:
    return Golden({"windows": np.ones((2, 16, 3), np.float32)}, {"embeddings": np.zeros((2, D), np.float32)})


def make_labels() -> LabelFeatures:
    return LabelFeatures(("walk", "läuft"), np.eye(2, 1024, dtype=np.float32))


def sensor(store: Store, name: str, universal: str, seed: int) -> ModalityRecord:
    """Store what one sensor needs and return its record."""
    adapter = store.put_in_parts(adapter_to_bytes(make_adapter(seed)))
    return ModalityRecord(
        kind="series",
        channels=3,
        rate_hz=50.0,
        window_s=2.0,
        unit="g",
        scale=2.0,
        encoder="universal",
        encoder_blob=universal,
        width=WIDTH,
        adapter_blob=adapter,
        origins=(store.put_in_parts(sketch_to_bytes(make_origin(name, adapter))),),
        golden_blob=store.put_in_parts(golden_to_bytes(make_golden())),
        calibration={"drift_threshold": 0.25},
    )


def base_generation(store: Store) -> Generation:
    """Store the blobs of a host's export and return its generation."""
    universal, step = store.put_in_parts(b"universal encoder graph"), store.put_in_parts(b"step graph")
    adapter = store.put_in_parts(adapter_to_bytes(make_adapter(9, 1024, text=True)))
    text = ModalityRecord(
        kind="text",
        encoder="text",
        width=1024,
        adapter_blob=adapter,
        origins=(store.put_in_parts(sketch_to_bytes(make_origin("text", adapter, width=1024))),),
        label_blob=store.put_in_parts(labels_to_bytes(make_labels())),
    )
    return Generation(
        name="machine",
        counter=1,
        created=CREATED,
        software="edge-cmcl 0.1.0",
        action="export",
        embedding_dim=D,
        modalities={
            "acc": sensor(store, "acc", universal, 1),
            "gyro": sensor(store, "gyro", universal, 2),
            "text": text,
        },
        universal=universal,
        step=step,
        pairs=(PairRecord(modalities=("acc", "gyro"), origin="base", n=40, metrics={"mrr": 0.5, "by": ["a", None]}),),
        certificate=(CertificateRecord(modality="acc", origin="base", bound=0.0, relative=0.0),),
        metrics={"r@10": {"mean": 46.4}},
    )


def updated_generation(store: Store, parent: str, seed: int = 11) -> Generation:
    """Store the blobs of an update of acc on top of `parent` and return its generation."""
    loaded = store.load(parent)
    old = loaded.generation
    acc = old.modalities["acc"]
    learned = store.put_in_parts(adapter_to_bytes(make_adapter(seed)))
    new = store.put_in_parts(sketch_to_bytes(make_origin("acc", learned, name=f"step-{seed}")))
    references = tuple(sorted({acc.adapter_blob, *acc.references}))
    moved = {"adapter_blob": learned, "origins": (*acc.origins, new), "references": references}
    return old.model_copy(
        update={
            "counter": old.counter + 1,
            "parents": (loaded.digest,),
            "base": loaded.base,
            "device_id": "device-1",
            "action": "update",
            "modalities": {**old.modalities, "acc": acc.model_copy(update=moved)},
        }
    )


def make_store(root: Path) -> Store:
    """Return a store with a base and one update: tags "base" and "current"."""
    store = Store.create(root)
    with store.writer():
        base = store.commit(base_generation(store), ["base"])
        store.commit(updated_generation(store, base), ["current"])
    return store


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` but the lock, whose text is a courtesy."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
