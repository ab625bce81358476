"""The installed service as a process of its own, and how tests ask it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from environments import EDGE_CMCL

BINARY = "application/octet-stream"
BODY = b'{"windows": {"acoustic": [%s]}}' % str([[0.0]] * 16).encode()
"""One window, as JSON."""


@dataclass
class RunningService:
    """One service.

    Attributes:
        process: its process; `stop` ends it.
        log: what it wrote to stderr.
        client: asks it, over connections that stay open.
    """

    process: subprocess.Popen[str]
    log: Path
    client: httpx.Client

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, dict[str, Any]]:
        """Ask it to stop; return its exit code and the JSON object that it printed."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(out) if out else {}

    def ask(self, path: str, recording: Path, *, binary: bool = False, **parameters: Any) -> httpx.Response:
        """Ask about a pairs file as it is."""
        headers = {"Content-Type": BINARY, "Accept": BINARY if binary else "application/json"}
        return self.client.post(path, content=recording.read_bytes(), headers=headers, params=parameters)

    def json(self, path: str, recording: Path, **parameters: Any) -> dict[str, Any]:
        """Return the JSON of an answer, which must be one."""
        answer = self.ask(path, recording, **parameters)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def told(self) -> str:
        """Return what it has written to stderr so far."""
        return self.log.read_text()

    def await_told(self, pattern: str) -> None:
        """Wait until its stderr has a line like `pattern`."""
        for _ in range(600):
            if re.search(pattern, self.told()):
                return
            time.sleep(0.05)
        raise AssertionError(self.told())


@contextmanager
def start(
    folder: Path,
    *options: str | Path,
    env: Mapping[str, str] | None = None,
    launcher: tuple[str, ...] = (),
    pass_fds: tuple[int, ...] = (),
) -> Iterator[RunningService]:
    """Start the installed service and yield it when it answers; stderr goes to a file in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_CMCL_", "XDG_"))}
    log = folder / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*launcher, EDGE_CMCL, "serve", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**kept, **(env or {})},
            cwd=folder,
            pass_fds=pass_fds,
        )
    running = RunningService(process, log, httpx.Client())
    try:
        address = _address(running)
        running.client.close()
        running.client = client_of(address)
        yield running
    finally:
        running.client.close()
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
        if process.stdout is not None:
            process.stdout.close()


def client_of(address: str) -> httpx.Client:
    """Return a client of the service at `address`, as it tells it."""
    if address.startswith("unix:"):
        transport = httpx.HTTPTransport(uds=address.removeprefix("unix:"))
        return httpx.Client(transport=transport, base_url="http://localhost", timeout=60)
    return httpx.Client(base_url=address, timeout=60)


def _address(running: RunningService) -> str:
    for _ in range(1200):
        found = re.search(
            r"answers on (\S+)$|answers on the socket from systemd \((\S+)\)", running.told(), re.MULTILINE
        )
        if found:
            return found[1] or f"unix:{found[2]}"
        assert running.process.poll() is None, running.told()
        time.sleep(0.05)
    raise AssertionError(running.told())


class SlowClient:
    """Sends a request but for its last byte, and so holds its place."""

    def __init__(self, path: Path, body: bytes = BODY, kind: str = "application/json") -> None:
        self._last = body[-1:]
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body[:-1])

    def finish(self) -> bytes:
        """Send the last byte, and return what is answered."""
        with self.socket:
            self.socket.sendall(self._last)
            return self.socket.recv(1 << 20)


def inside(running: RunningService) -> int:
    """Return how many requests the service holds."""
    (line,) = (
        line
        for line in running.client.get("/metrics").text.splitlines()
        if line.startswith("edge_cmcl_requests_inside")
    )
    return int(line.split()[1])


def await_inside(running: RunningService, count: int) -> None:
    """Wait until the service holds so many requests."""
    for _ in range(200):
        if inside(running) == count:
            return
    raise AssertionError(f"{inside(running)} requests are inside")
