from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from machine_bundle import Machine
from running_service import BINARY, BODY, RunningService, SlowClient, await_inside

from edge_cmcl import tensors
from edge_cmcl.bundle import Store
from edge_cmcl.data.pairs_format import FORMAT, VERSION

Serve = Callable[..., RunningService]


def test_beyond_its_queue_the_service_says_when_to_come_again_and_keeps_what_it_has(
    serve: Serve, taught: Store, tmp_path: Path
) -> None:
    running = serve("--store", taught.root, "--socket", tmp_path / "s", "--workers", "1", "--queue", "1")
    slow = [SlowClient(tmp_path / "s") for _ in range(2)]
    await_inside(running, 2)
    answer = running.client.post("/embed", content=BODY, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "the service is busy"
    assert "2 requests" in answer.json()["got"]
    assert running.client.get("/healthz").status_code == 200
    assert all(client.finish().startswith(b"HTTP/1.1 200 ") for client in slow)
    await_inside(running, 0)
    assert running.client.post("/embed", content=BODY, headers={"Content-Type": "application/json"}).status_code == 200
    assert "edge_cmcl_requests_refused_total 1" in running.client.get("/metrics").text
    code, result = running.stop()
    assert (code, result["refused"]) == (0, 1)


def test_many_at_once_are_answered_rightly_or_turned_away_and_none_is_dropped(
    serve: Serve, machine: Machine, taught: Store, tmp_path: Path
) -> None:
    running = serve("--store", taught.root, "--socket", tmp_path / "s", "--workers", "1", "--queue", "3")
    expected = running.ask("/embed", machine.test, binary=True).content

    def ask(_: int) -> httpx.Response:
        return running.ask("/embed", machine.test, binary=True)

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(ask, range(64)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert all(answer.content == expected for answer in good)
    assert {answer.status_code for answer in answers} == {200, 503}
    assert len(good) >= 4


def test_bodies_are_bounded_before_they_are_read(serve: Serve, taught: Store, tmp_path: Path) -> None:
    running = serve("--store", taught.root, "--socket", tmp_path / "s", "--max-body", "1")
    binary = {"Content-Type": BINARY}
    large = bytes(2 << 20)
    for content in (large, iter([large[: 1 << 20], b"more"])):  # with its length declared, and in chunks without
        answer = running.client.post("/embed", content=content, headers=binary)
        assert (answer.status_code, answer.json()["expected"]) == (413, "at most 1048576 bytes")
    spaces = {"Content-Type": "application/json"}  # as JSON a quarter, since it takes many times that when it is read
    assert running.client.post("/embed", content=BODY + bytes(1 << 18), headers=spaces).status_code == 413
    slow = [SlowClient(tmp_path / "s", bytes(1 << 20), BINARY) for _ in range(4)]  # all that may be in memory at once
    await_inside(running, 4)
    assert running.client.post("/embed", content=BODY, headers=binary).status_code == 503
    for client in slow:
        client.socket.close()  # and a client that goes away gives its place back
    await_inside(running, 0)
    assert running.client.post("/embed", content=BODY, headers=binary).status_code == 422


@pytest.mark.parametrize(
    ("shape", "word"),
    [((4097, 16, 3), "too many moments"), ((64, 2049, 3), "vibration is too long"), ((1, 131073, 3), "is too long")],
)
def test_what_would_take_too_much_to_compute_is_refused(
    service: RunningService, shape: tuple[int, ...], word: str
) -> None:
    metadata = {"format": FORMAT, "version": VERSION}
    body = tensors.to_bytes({"vibration": np.zeros(shape, np.float32)}, metadata)
    answer = service.client.post("/embed", content=body, headers={"Content-Type": BINARY})
    assert (answer.status_code, word in answer.text) == (413, True)
    smaller = tensors.to_bytes({"vibration": np.zeros((1, 2048, 3), np.float32)}, metadata)
    assert service.client.post("/embed", content=smaller, headers={"Content-Type": BINARY}).status_code == 200


@pytest.mark.parametrize(
    "request_line", [b"\x00\xff", b"GET  / HTTP/1.1\r\n", b"POST /embed HTTP/1.1\r\nContent-Length: -1\r\n"]
)
def test_what_is_no_http_ends_its_connection_alone(service: RunningService, request_line: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(service.log.parent / "s"))
        client.sendall(request_line + b"\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    assert service.client.get("/healthz").status_code == 200
