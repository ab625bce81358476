from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_bundle import Machine
from running_service import BINARY, RunningService

from edge_cmcl import tensors
from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs
from edge_cmcl.data.pairs_format import FORMAT, VERSION
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.use import joint_embeddings
from edge_cmcl.errors import DataError

Run = Callable[..., Any]

WINDOW = [[[0.0]] * 16]


def bodies(machine: Machine) -> dict[str, bytes]:
    """Return recordings that no command takes either, by what is wrong with them."""
    metadata = {"format": FORMAT, "version": VERSION}
    with open_pairs(machine.test) as pairs:
        good = pairs.read("vibration", 0, 4)
    hole = good.copy()
    hole[2, 5, 1] = np.nan
    endless = good.copy()
    endless[0] = np.inf
    return {
        "nan": tensors.to_bytes({"vibration": hole}, metadata),
        "infinity": tensors.to_bytes({"vibration": endless}, metadata),
        "channels": tensors.to_bytes({"vibration": good[:, :, :2]}, metadata),
        "samples": tensors.to_bytes({"vibration": good[:, :8]}, metadata),
        "rank": tensors.to_bytes({"vibration": good[0]}, metadata),
        "dtype": tensors.to_bytes({"vibration": good.astype(np.float64)}, metadata),
        "counts": tensors.to_bytes({"vibration": good, "current": good[:3, :, :1]}, metadata),
        "unknown": tensors.to_bytes({"pressure": good}, metadata),
        "format": tensors.to_bytes({"vibration": good}, {"format": "another"}),
        "truncated": tensors.to_bytes({"vibration": good}, metadata)[:-1],
        "header": b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        "empty": b"",
    }


def test_what_no_command_takes_is_refused_with_the_same_words(
    service: RunningService, machine: Machine, taught: Store, run_cli: Run, tmp_path: Path
) -> None:
    """The words are checked for all; that the command line exits with them, for two, since starting it takes long."""
    model = open_model(taught.root)
    for name, body in bodies(machine).items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(body)
        with pytest.raises(DataError) as raised, open_pairs(path) as pairs:
            joint_embeddings(model, pairs)
        expected = raised.value
        answer = service.ask("/embed", path)
        found = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), name
        assert found["detail"] == expected.message.replace(str(path), "the request"), name
        assert (found["error"], found["exit_code"]) == ("DataError", 3)
        if name not in ("truncated", "header", "empty"):  # the library words those otherwise for a file
            assert (found.get("expected", ""), found.get("got", "")) == (expected.expected, expected.got), name
        if name in ("nan", "format"):
            shown = run_cli("embed", path, "--out", tmp_path / "o", "--store", taught.root, "--json")
            error = shown.json["error"]
            assert (shown.code, error["type"], error["to_do"]) == (3, found["error"], found.get("to_do", ""))


WINDOWS = {"acoustic": WINDOW}
NAN = str([[float("nan")]] * 16).replace("nan", "NaN").encode()
REFUSED: list[tuple[str, object, int, str]] = [
    ("no json", b"{", 400, "not JSON"),
    ("not utf-8", b'{"windows": "\xff"}', 400, "not JSON"),
    ("deep", b"[" * 100_000, 400, "not JSON"),
    ("a list", [], 422, "an object with windows"),
    ("no windows", {}, 422, "an object with windows"),
    ("a key too many", {"windows": WINDOWS, "widows": 1}, 422, "an object with windows"),
    ("windows as a list", {"windows": [WINDOW]}, 422, "a key for each sensor"),
    ("no sensor", {"windows": {}}, 422, "no modality"),
    ("a reserved name", {"windows": {"label": WINDOW}}, 422, "no modality"),
    ("a number", {"windows": {"acoustic": 1}}, 422, "nested lists of numbers"),
    ("texts", {"windows": {"acoustic": [[["1"]] * 16]}}, 422, "something else than numbers"),
    ("null", {"windows": {"acoustic": [[[None]] * 16]}}, 422, "something else than numbers"),
    ("huge integers", {"windows": {"acoustic": [[[10**30]] * 16]}}, 422, "something else than numbers"),
    ("ragged", {"windows": {"acoustic": [[[0.0]] * 16, [[0.0]] * 17]}}, 422, "not regular"),
    (
        "beyond the encoder",
        {"windows": {"current": [[[x * 1e38] for x in range(-3, 3)] * 3]}},
        422,
        "beyond what its encoder",
    ),
    ("beyond float32", {"windows": {"acoustic": [[[1e300]] * 16]}}, 422, "finite numbers"),
    (
        "nan",
        b'{"windows": {"acoustic": [%s]}}' % NAN,
        422,
        "NaN",
    ),
    ("other lengths", {"windows": WINDOWS, "valid": {"acoustic": [1, 0]}}, 422, "wrong dtype or shape"),
    ("flags", {"windows": WINDOWS, "valid": {"acoustic": [2]}}, 422, "0 or 1"),
    ("flags of another", {"windows": WINDOWS, "valid": {"current": [1]}}, 422, "belongs to no modality"),
    ("time", {"windows": WINDOWS, "time": ["now"]}, 422, "something else than numbers"),
    ("rate", {"windows": WINDOWS, "rate_hz": {"acoustic": -1}}, 422, "rate_hz"),
    ("unit", {"windows": WINDOWS, "units": {"acoustic": 3}}, 422, "unit"),
]
"""What JSON bodies are refused, each by a name, with status and a word of the answer."""


@pytest.mark.parametrize(("name", "body", "status", "word"), REFUSED)
def test_a_json_body_that_is_no_recording_is_refused(
    service: RunningService, name: str, body: object, status: int, word: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = service.client.post("/embed", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, name
    assert word in answer.text
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    ("path", "parameters", "status", "words"),
    [
        ("/embed", {"modality": "pressure"}, 422, ("has no windows of pressure", '"got": "acoustic"')),
        ("/embed", {"modalities": "acoustic"}, 400, ("unknown parameter 'modalities'", '"expected": "modality"')),
        ("/classify", {"label": ["helthy", "cavitation"]}, 400, ("never learned", "did you mean healthy?")),
        ("/classify", {"label": "healthy"}, 400, ("nothing to choose from",)),
        ("/retrieve", {"top": "0"}, 400, ("'top' is wrong", "from 1 to 1000")),
        ("/retrieve", {"row": ["0"] * 257}, 400, ("too many rows", "at most 256")),
        ("/retrieve", {"row": "-1"}, 400, ("'row' is wrong",)),
        ("/retrieve", {"row": "1"}, 400, ("row 1 cannot be a query", "from 0 to 0")),
        ("/retrieve", {"from": "current"}, 422, ("query of the request has no windows of current",)),
    ],
)
def test_a_parameter_that_is_wrong_is_refused(
    service: RunningService, path: str, parameters: dict[str, Any], status: int, words: tuple[str, ...]
) -> None:
    recording = {"windows": {"acoustic": WINDOW}}
    body = {"query": recording, "gallery": recording} if path == "/retrieve" else recording
    answer = service.client.post(path, json=body, params=parameters)
    assert answer.status_code == status
    for word in words:
        assert word in answer.text


def test_a_tensor_of_no_side_and_a_missing_side_are_refused(service: RunningService, machine: Machine) -> None:
    answer = service.ask("/retrieve", machine.test)
    assert (answer.status_code, "query. or gallery." in answer.text) == (422, True)
    answer = service.client.post("/retrieve", json={"query": {"windows": {"acoustic": WINDOW}}})
    assert (answer.status_code, "an object with query and gallery" in answer.text) == (422, True)


def test_kinds_that_are_not_spoken_here_are_refused(service: RunningService) -> None:
    for kind in ("text/plain", "multipart/form-data", ""):
        answer = service.client.post("/embed", content=b"{}", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["expected"]) == (415, f"application/json or {BINARY}")
    body = {"windows": {"acoustic": WINDOW}}
    answer = service.client.post("/embed", json=body, headers={"Accept": "text/html, image/*;q=0.5"})
    assert answer.status_code == 406
    for accept, kind in [
        ("*/*", "application/json"),
        ("application/*;q=0.1, application/octet-stream", BINARY),
        ("application/json;q=0.2, application/octet-stream;q=0.1", "application/json"),
    ]:
        answer = service.client.post("/embed", json=body, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    for path, method, status in (("/nothing", "GET", 404), ("/embed/", "POST", 404), ("/embed", "GET", 405)):
        answer = service.client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["allow"] == "POST"


def test_a_page_whose_name_was_pointed_here_is_not_answered(
    serve: Callable[..., RunningService], taught: Store
) -> None:
    running = serve("--store", taught.root, "--port", "0")
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80"):
        assert running.client.get("/healthz", headers={"Host": host}).status_code == 421
    for host in ("localhost", "localhost:80", "127.0.0.1:1", "[::1]:80", "[::1]"):
        assert running.client.get("/healthz", headers={"Host": host}).status_code == 200
