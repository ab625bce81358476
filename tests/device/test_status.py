from __future__ import annotations

import json

from edge_cmcl.bundle import Store
from edge_cmcl.device.status import status
from edge_cmcl.device.store import store_bytes


def test_status_tells_what_each_modality_learned_with_whom_and_how_far_it_moved(taught: Store) -> None:
    found = status(taught)
    assert (found["counter"], found["action"], found["embedding_dim"]) == (2, "update", 256)
    assert found["device_id"] == taught.state().device_id
    assert found["store_bytes"] == store_bytes(taught)
    modalities = {each["modality"]: each for each in found["modalities"]}
    assert {name: each["encoder"] for name, each in modalities.items()} == {
        "acoustic": "universal",
        "current": "conv",
        "text": "text",
        "vibration": "universal",
    }
    (acoustic,) = modalities["acoustic"]["origins"]
    assert (acoustic["partners"], acoustic["pairs"], acoustic["revision"]) == (["text", "vibration"], 240, 0)
    base, own = sorted(modalities["vibration"]["origins"], key=lambda origin: not origin["id"].startswith("base:"))
    assert own["relative_displacement_bound"] == 0.0
    assert base["id"].startswith("base:")
    assert 0.0 < base["relative_displacement_bound"] < 0.1
    (untouched,) = modalities["current"]["origins"]
    assert untouched["relative_displacement_bound"] == 0.0


def test_status_tells_the_pairs_learned_and_is_plain_json(taught: Store) -> None:
    found = status(taught)
    pairs = {tuple(pair["modalities"]): pair for pair in found["pairs"]}
    assert set(pairs) == {("vibration", "current"), ("acoustic", "vibration"), ("acoustic", "text")}
    assert pairs["acoustic", "vibration"]["metrics"]["mrr"] > pairs["acoustic", "vibration"]["metrics"]["mrr_chance"]
    assert json.loads(json.dumps(found)) == found
