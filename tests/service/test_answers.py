from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from machine_bundle import Machine
from prometheus_client.parser import text_string_to_metric_families
from running_service import BINARY, RunningService

from edge_cmcl import tensors
from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.store import CURRENT

Run = Callable[..., Any]
EXACT = {"rtol": 0, "atol": 2e-6}  # another number of threads sums in another order


def part(recording: Path, path: Path, n: int = 12, **more: Any) -> Path:
    """Write the first rows of a recording, with its rates and units."""
    with open_pairs(recording) as pairs:
        windows = {name: pairs.read(name, 0, n) for name in pairs.modalities}
        time = pairs.time[:n] if pairs.time is not None else None
        known: dict[str, Any] = {"rate_hz": pairs.rate_hz, "units": pairs.units, "time": time}
    write_pairs(path, windows, **{**known, **more})
    return path


def document(recording: Path) -> dict[str, Any]:
    """Return a recording as the JSON body of a request."""
    with open_pairs(recording) as pairs:
        found: dict[str, Any] = {
            "windows": {name: pairs.read(name).tolist() for name in pairs.modalities},
            "valid": {name: pairs.valid(name).tolist() for name in pairs.modalities},
            "rate_hz": pairs.rate_hz,
            "units": pairs.units,
        }
        return found if pairs.time is None else {**found, "time": pairs.time.tolist()}


def sides(query: Path, gallery: Path) -> bytes:
    """Return two recordings as the binary body of a request."""
    arrays, metadata = {}, {}
    for side, path in (("query", query), ("gallery", gallery)):
        found, described = tensors.from_bytes_with_metadata(path.read_bytes())
        arrays |= {f"{side}.{name}": array for name, array in found.items()}
        metadata |= {f"{side}.{name}": text for name, text in described.items()}
    return tensors.to_bytes(arrays, metadata)


def test_embed_answers_what_the_command_writes_in_binary_and_as_json(
    service: RunningService, machine: Machine, taught: Store, run_cli: Run, tmp_path: Path
) -> None:
    recording = part(machine.test, tmp_path / "live.safetensors")
    done = run_cli("embed", recording, "--out", tmp_path / "out.safetensors", "--store", taught.root)
    assert done.code == 0, done.stderr
    with tensors.TensorFile(tmp_path / "out.safetensors") as file:
        expected = {name: file.read_whole(name) for name in file.names}
        described = file.metadata
    answer = service.ask("/embed", recording, binary=True)
    arrays, metadata = tensors.from_bytes_with_metadata(answer.content)
    assert answer.headers["content-type"] == BINARY
    assert answer.headers["edge-cmcl-generation"] == taught.tags()[CURRENT] == metadata["generation"]
    assert metadata == {**described, "warnings": "[]"}
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, **EXACT)
    for found in (service.json("/embed", recording), service.client.post("/embed", json=document(recording)).json()):
        assert (found["generation"], found["counter"], found["warnings"]) == (taught.tags()[CURRENT], 2, [])
        assert found["modalities"] == ["acoustic", "current", "vibration"]
        assert np.array_equal(np.float32(found["embeddings"]), arrays["embeddings"])
        assert found["time"] == expected["time"].tolist()


def test_sensors_that_are_missing_in_a_moment_are_left_out_of_it(
    service: RunningService, machine: Machine, tmp_path: Path
) -> None:
    flags = np.arange(12) % 3 > 0
    valid = {"acoustic": flags, "current": np.zeros(12, np.bool_), "vibration": ~flags & (np.arange(12) > 0)}
    recording = part(machine.test, tmp_path / "live.safetensors", valid=valid)
    found = service.json("/embed", recording)
    assert found["present"] == [row > 0 for row in range(12)]
    alone = service.json("/embed", recording, modality="acoustic")
    same = np.float32(found["embeddings"])[flags], np.float32(alone["embeddings"])[flags]
    np.testing.assert_array_equal(*same)
    assert not np.any(found["embeddings"][0])
    as_json = service.client.post("/embed", json=document(recording)).json()
    assert as_json["embeddings"] == found["embeddings"]


def test_classify_answers_what_the_command_shows(
    service: RunningService, machine: Machine, taught: Store, run_cli: Run, tmp_path: Path
) -> None:
    recording = part(machine.test, tmp_path / "live.safetensors")
    named = ["--label", "healthy", "--label", "cavitation"]
    for options, parameters in (([], {}), (named, {"label": ["healthy", "cavitation"], "modality": "acoustic"})):
        sensor = ["--modality", "acoustic"] if options else []
        shown = run_cli("classify", recording, *options, *sensor, "--store", taught.root, "--json").json
        found = service.json("/classify", recording, **parameters)
        assert (found["labels"], found["modalities"]) == (shown["labels"], shown["modalities"])
        assert [each["label"] for each in found["moments"]] == [each["label"] for each in shown["moments"]]
        for name in ("row", "time", "similarity", "margin"):
            mine, theirs = ([each[name] for each in moments] for moments in (found["moments"], shown["moments"]))
            np.testing.assert_allclose(mine, theirs, **EXACT)
        answer = service.ask("/classify", recording, binary=True, **parameters)
        arrays, metadata = tensors.from_bytes_with_metadata(answer.content)
        names = json.loads(metadata["labels"])
        assert [names[index] for index in arrays["label"]] == [each["label"] for each in found["moments"]]
        assert arrays["margin"].tolist() == [each["margin"] for each in found["moments"]]


def test_retrieve_answers_what_the_command_finds(
    service: RunningService, machine: Machine, taught: Store, run_cli: Run, tmp_path: Path
) -> None:
    query, gallery = (
        part(machine.test, tmp_path / "q.safetensors", 4),
        part(machine.new, tmp_path / "g.safetensors", 30),
    )
    options = ["--from", "acoustic", "--in", "vibration", "--row", "3", "--row", "1", "--top", "5"]
    shown = run_cli("retrieve", query, gallery, *options, "--store", taught.root, "--json").json
    parameters = {"from": "acoustic", "in": "vibration", "row": [3, 1], "top": 5}
    body = {"query": document(query), "gallery": document(gallery)}
    as_json = service.client.post("/retrieve", json=body, params=parameters).json()
    binary = {"Content-Type": BINARY}
    as_bytes = service.client.post("/retrieve", content=sides(query, gallery), headers=binary, params=parameters).json()
    assert as_json == as_bytes
    assert (as_json["from"], as_json["in"]) == (["acoustic"], ["vibration"])
    assert [(hit["query"], hit["rows"]) for hit in as_json["hits"]] == [(h["query"], h["rows"]) for h in shown["hits"]]
    assert [hit["times"] for hit in as_json["hits"]] == [hit["times"] for hit in shown["hits"]]
    answer = service.client.post(
        "/retrieve", content=sides(query, gallery), headers={**binary, "Accept": BINARY}, params=parameters
    )
    arrays, _ = tensors.from_bytes_with_metadata(answer.content)
    assert arrays["rows"].tolist() == [hit["rows"] for hit in shown["hits"]]
    np.testing.assert_allclose(arrays["similarity"], [hit["similarity"] for hit in shown["hits"]], **EXACT)
    assert arrays["query"].tolist() == [3, 1]


def test_another_rate_is_told_in_the_answer_as_commands_warn_of_it(
    service: RunningService, machine: Machine, tmp_path: Path
) -> None:
    recording = part(machine.test, tmp_path / "live.safetensors", rate_hz={"vibration": 64.0})
    rate, length = service.json("/embed", recording, modality="vibration")["warnings"]
    assert "vibration has a rate of 64 Hz, vibration of 128 Hz" in rate
    assert "vibration has windows of 4 s, vibration of 2 s" in length
    assert service.json("/embed", recording, modality="current")["warnings"] == []
    assert "warning" not in service.told()


def test_the_drift_watch_judges_the_latest_windows_as_status_does(
    serve: Callable[..., RunningService], machine: Machine, taught: Store, run_cli: Run, tmp_path: Path
) -> None:
    running = serve("--store", taught.root, "--port", "0")
    assert running.client.get("/drift").json()["sensors"] == []
    with open_pairs(machine.test) as pairs:
        noise = np.random.default_rng(0).normal(0, 3, pairs.read("acoustic").shape)
        windows = {"acoustic": pairs.read("acoustic") + np.float32(noise), "vibration": pairs.read("vibration")}
    write_pairs(tmp_path / "old.safetensors", {name: rows[:20] for name, rows in windows.items()})
    write_pairs(tmp_path / "latest.safetensors", {name: rows[20:] for name, rows in windows.items()})
    for name in ("old", "latest"):  # 20 windows and 100: the watch forgets the old ones
        running.json("/embed", tmp_path / f"{name}.safetensors")
    latest = run_cli("status", "--data", tmp_path / "latest.safetensors", "--store", taught.root, "--json").json
    found = running.client.get("/drift").json()
    assert found["kept"] == 100
    assert [each["verdict"] for each in found["sensors"]] == ["drifted", "normal"]
    for mine, theirs in zip(found["sensors"], latest["drift"], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-3))

    samples = prometheus(running.client)
    assert samples["edge_cmcl_drift_outside", "acoustic"] == pytest.approx(latest["drift"][0]["outside"], rel=1e-3)
    assert samples["edge_cmcl_serving_generation", ""] == samples["edge_cmcl_generation", ""] == 2
    assert samples["edge_cmcl_requests_total", "/embed"] == samples["edge_cmcl_request_seconds_count", "/embed"] == 2
    assert samples["edge_cmcl_resident_bytes", ""] > 1e7


def prometheus(client: httpx.Client) -> dict[tuple[str, str], float]:
    """Return what a Prometheus server reads, by name and by sensor or path."""
    answer = client.get("/metrics")
    families = list(text_string_to_metric_families(answer.text))
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert all(family.documentation for family in families)
    return {
        (sample.name, sample.labels.get("modality") or sample.labels.get("path", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_service_says_which_generation_answers_and_never_loads_torch(
    service: RunningService, taught: Store
) -> None:
    assert service.client.get("/healthz").json() == {
        "status": "ok",
        "generation": taught.tags()[CURRENT],
        "counter": 2,
        "reason": "",
        "modalities": ["acoustic", "current", "text", "vibration"],
    }
    mapped = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "onnxruntime" in mapped
    assert "torch" not in mapped
