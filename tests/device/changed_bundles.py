"""Bundles that differ in one respect from the machine's, every digest right: a wrong export's work, or a forger's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Generation, Store
from edge_cmcl.bundle.transfer import export_layout, import_layout

Change = Callable[[Store, Generation], dict[str, Any]]


def changed_bundle(good: Path, folder: Path, change: Change | dict[str, Any]) -> Path:
    """Write the bundle `good` with fields of its generation changed to a tar in `folder`, and return that."""
    store = Store.create(folder / "workshop")
    with store.writer():
        generation = store.load(import_layout(good, store, tags=["good"])).generation
        update = change if isinstance(change, dict) else change(store, generation)
        # Validated anew, as a plain copy would not be: a wrong change is the test's own mistake.
        fields = {**generation.model_dump(by_alias=True), **update}
        store.commit(Generation.model_validate(fields), ["changed"])
    export_layout(store, "changed", folder / "changed.tar")
    return folder / "changed.tar"


def changed_modality(generation: Generation, modality: str, **update: Any) -> dict[str, Any]:
    """Return the generation's field `modalities` with one record changed."""
    record = generation.modalities[modality].model_copy(update=update)
    return {"modalities": {**generation.modalities, modality: record}}
