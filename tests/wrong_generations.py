"""Generations that a device must not use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_cmcl.bundle import Generation, Loaded, Store
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.payloads import Golden, golden_from_bytes, golden_to_bytes
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.trial import begun


def commit_wrong(store: Store) -> str:
    """Put a generation on trial whose golden vectors are not what it computes, as on a device that computes wrongly."""
    with store.writer():
        parent = store.load(CURRENT)
        old = parent.generation
        record = old.modalities["vibration"]
        golden = golden_from_bytes(parent.read(str(record.golden_blob)))
        wrong = {"embeddings": np.ascontiguousarray(-golden.outputs["embeddings"])}
        blob = store.put(golden_to_bytes(Golden(golden.inputs, wrong)))
        changed = {**old.modalities, "vibration": record.model_copy(update={"golden_blob": blob})}
        fields = {"counter": old.counter + 1, "parents": (parent.digest,), "base": parent.base, "modalities": changed}
        new = Generation.model_validate({**old.model_dump(by_alias=True), **fields})

        def accept(loaded: Loaded) -> None:
            store.save_state(begun(store.state(), parent.digest, loaded.digest, old.created))

        return store.commit(new, [CURRENT, f"generation-{new.counter}-wrong"], accept)


def file_of(store: Store, digest: str) -> Path:
    """Return the file of a blob or manifest; of a blob in parts, that of the last one."""
    for loaded in store.lineage(store.tags().values(), past=DAMAGED):
        if digest in loaded.blobs:
            return store.blob_path(loaded.blobs[digest][-1].digest)
    return store.blob_path(digest)


def damage(store: Store, digest: str) -> None:
    """Change the last byte of a blob or manifest."""
    path = file_of(store, digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
