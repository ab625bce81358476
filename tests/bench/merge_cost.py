"""Time and memory of a merge of many devices: generations of real shape, made from one that learned a sensor."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_cmcl.bundle import ModalityRecord, Store
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.payloads import Adapter, adapter_to_bytes, sketch_to_bytes
from edge_cmcl.device.memory import peak_memory_bytes
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import CURRENT
from edge_cmcl.host.fleet import merge


def cost(stores: Mapping[str, Store], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return seconds and bytes of merging so many devices, each that taught acc and gyro with statistics of its own.

    Each count runs in a process of its own, whose peak memory is taken.
    """
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-merge-cost-") as folder:
        digests = simulated(Store.create(Path(folder) / "host"), stores["a"], max(counts))
        found = []
        for count in counts:
            command = [sys.executable, __file__, str(Path(folder) / "host"), *digests[:count]]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, peak, size = done.stdout.split()
            found.append(
                {"devices": count, "seconds": float(seconds), "peak_memory_bytes": int(peak), "bytes": int(size)}
            )
        return found


def simulated(host: Store, taught: Store, count: int) -> list[str]:
    """Write generations of `count` devices like `taught` into `host`, and return their digests."""
    model = Model(taught.load(CURRENT))
    random, digests = np.random.default_rng(0), []
    with host.writer():
        for _, _, digest in model.generation.blobs():
            host.put_in_parts(model.loaded.read(digest))
        for place in range(count):
            device = f"simulated-{place}"
            records = dict(model.generation.modalities)
            for name in ("acc", "gyro"):
                records[name] = _another(host, model, name, device, random)
            update: dict[str, Any] = {"device_id": device, "modalities": records}
            digests.append(host.commit(model.generation.model_copy(update=update), [device]))
    return digests


def _another(host: Store, model: Model, name: str, device: str, random: np.random.Generator) -> ModalityRecord:
    """Write the adapter and origin of another device, a little different, and return its record."""
    record, own = model.record(name), model.adapter(name)
    weight = own.weight * (1 + 0.01 * random.standard_normal(own.weight.shape)).astype(np.float32)
    std = np.asarray(own.std) * (1 + 0.1 * random.random(record.width, np.float32)) if name == "gyro" else own.std
    data = adapter_to_bytes(Adapter(weight, own.mean, std))
    origins, entries = [], {}
    for origin in model.origins(name):
        mine = replace(origin, id=f"{device}:acc+gyro", device=device, reference=digest_of(data))
        origins.append(mine if origin.device else origin)
        entry = record.calibration["drift"][origin.id]  # type: ignore[index, call-overload]
        entries[origins[-1].id] = entry
    used = {origin.reference for origin in origins} - {digest_of(data)}
    origins.sort(key=lambda origin: origin.id)
    return record.model_copy(
        update={
            "adapter_blob": host.put_in_parts(data),
            "origins": tuple(host.put_in_parts(sketch_to_bytes(origin)) for origin in origins),
            "references": tuple(sorted(used)),
            "golden_blob": None,
            "calibration": {"drift": entries},
        }
    )


if __name__ == "__main__":
    store = Store(Path(sys.argv[1]))
    parents = [store.load(digest) for digest in sys.argv[2:]]
    began = time.monotonic()
    merged = store.load(merge(store, parents, force=True).digest)
    seconds = time.monotonic() - began
    print(seconds, peak_memory_bytes(), sum(layer.size for layer in merged.manifest.layers))
