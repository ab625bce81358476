"""The local service under load: clients that never pause while an update commits, and its memory over many requests.

    python tests/bench/service_load.py --seconds 60 --clients 32 --requests 100000 [--check]

A machine of the simulator, as large as by default, is installed; the installed `edge-cmcl serve` listens on a unix
socket. Clients ask for embeddings of single windows, one sensor or two, over connections that stay open, each as soon
as its last answer is there. Meanwhile `edge-cmcl update` teaches a sensor and the labels, and `rollback` takes it
back. Every answer is compared, byte for byte, with what the generation that it names answers in this process. Then
requests of many shapes follow, as many as asked for, and the service's resident memory is read on the way.

Prints one JSON object. `--check` exits with 1 where an answer was wrong, a connection dropped, or memory grew.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from environments import EDGE_CMCL
from machine_bundle import PROJECT, Machine, _make

from edge_cmcl import tensors
from edge_cmcl.data import open_pairs
from edge_cmcl.data.pairs_format import FORMAT, VERSION
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import install, open_store
from edge_cmcl.service.bodies import BINARY
from edge_cmcl.service.questions import QUESTIONS, Asked
from edge_cmcl.service.recent import Recent

PROCESSES = 2
FLAT = 1.05
"""Memory may be this many times that of the first tenth of the requests."""
SENSORS = (("vibration",), ("current",), ("vibration", "current"))
ROWS = 40


@dataclass
class Seen:
    """What clients met.

    Attributes:
        answers: times each (request, generation, body of the answer) came.
        statuses: times each status came.
        dropped: what went wrong with connections.
        waits: of each request when it began, a `time.monotonic()`, and how many seconds it took.
    """

    answers: Counter[tuple[int, str, bytes]] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        self.answers.update(other.answers)
        self.statuses.update(other.statuses)
        self.dropped += other.dropped
        self.waits += other.waits


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def single_windows(recording: Path) -> list[bytes]:
    """Return bodies of one window each."""
    with open_pairs(recording) as pairs:
        return [
            _body({name: pairs.read(name, row, row + 1) for name in names}) for names in SENSORS for row in range(ROWS)
        ]


def many_shapes(recording: Path) -> list[bytes]:
    """Return bodies of 1 to 8 windows of many lengths: what a library keeps for each shape would show."""
    found = []
    with open_pairs(recording) as pairs:
        for length in range(100, 200):
            n = 1 + length % 8
            found.append(_body({"vibration": pairs.read("vibration", 0, n)[:, :length]}))
    return found


def _body(windows: dict[str, np.ndarray[Any, np.dtype[np.float32]]]) -> bytes:
    return tensors.to_bytes(windows, {"format": FORMAT, "version": VERSION})


def _client(path: Path, bodies: list[bytes], first: int, until: float, most: int, seen: Seen) -> None:
    connection = UnixConnection(path)
    headers = {"Content-Type": BINARY, "Accept": BINARY}
    for asked in range(most):
        began = time.monotonic()
        if began >= until:
            return
        place = (first + asked) % len(bodies)
        try:
            connection.request("POST", "/embed", bodies[place], headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            seen.dropped.append(repr(error))
            connection.close()
            continue
        seen.statuses[answer.status] += 1
        seen.waits.append((began, time.monotonic() - began))
        seen.answers[place, answer.headers["Edge-Cmcl-Generation"] or "", content] += 1


def _clients(path: Path, bodies: list[bytes], count: int, seed: int, until: float, most: int, out: Any) -> None:
    seen = [Seen() for _ in range(count)]
    threads = [
        threading.Thread(target=_client, args=(path, bodies, 7 * (seed + i), until, most, seen[i]))
        for i in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Seen()
    for each in seen:
        total.add(each)
    out.put(total)


def ask(path: Path, bodies: list[bytes], clients: int, *, seconds: float = 3600.0, requests: int = 1 << 60) -> Seen:
    """Ask from `clients` connections for `seconds`, or `requests` times in all."""
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    until, share = time.monotonic() + seconds, -(-requests // clients)
    processes = [
        context.Process(target=_clients, args=(path, bodies, clients // PROCESSES, 100 * i, until, share, out))
        for i in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    total = Seen()
    for _ in processes:
        total.add(out.get())
    for process in processes:
        process.join()
    return total


@contextmanager
def service(store: Path, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the installed service until the block ends; it must end well."""
    arguments = [EDGE_CMCL, "serve", "--socket", path, "--store", store, "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        while not path.exists():
            assert process.poll() is None, "the service ended"
            time.sleep(0.05)
        UnixConnection(path).request("GET", "/healthz")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def resident_mib(process: subprocess.Popen[str]) -> float:
    """Return the resident memory of a process in MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def changes(machine: Machine, store: Path, seconds: float, times: list[tuple[str, float]]) -> None:
    """Teach a sensor and the labels, and take that back, within `seconds`."""
    environment = {**os.environ, "EDGE_CMCL_STORE": str(store)}
    update = ["update", "--modality", "acoustic", "--with", "vibration", "--with", "text", "--data", machine.new]
    for after, arguments in ((0.1, update), (0.8, ["rollback"])):
        time.sleep(max(0.0, seconds * after - (times[-1][1] - times[0][1] if times else 0.0)))
        done = subprocess.run([EDGE_CMCL, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        times.append((str(arguments[0]), time.monotonic()))


def wrong(seen: Seen, bodies: list[bytes], store: Path) -> int:
    """Return how many answers are not, byte for byte, what the generation they name answers here."""
    found, expected, models = 0, {}, {}
    for (place, digest, content), times in seen.answers.items():
        if digest not in models:
            models[digest] = Model(open_store(store).load_manifest(digest), threads=1)
        if (place, digest) not in expected:
            asked = Asked(BINARY, bodies[place], {}, binary=True)
            expected[place, digest] = QUESTIONS["/embed"].answer(models[digest], asked, Recent())
        found += times * (content != expected[place, digest])
    return found


def latencies(waits: list[float]) -> dict[str, float]:
    """Return percentiles of seconds in ms."""
    return {f"p{q:g}_ms": round(float(np.percentile(waits, q)) * 1e3, 2) for q in (50, 95, 99, 99.9, 100)}


def measure(seconds: float, clients: int, requests: int) -> dict[str, Any]:
    """Return what the module's documentation says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "machine").mkdir()
        _make(folder / "machine", PROJECT)
        machine, store, path = Machine(folder / "machine"), folder / "store", folder / "service.sock"
        install(machine.bundle, store, trust=machine.public_key)
        bodies, shapes = single_windows(machine.test), many_shapes(machine.test)
        times: list[tuple[str, float]] = []
        with service(store, path) as process:
            idle = resident_mib(process)
            lone = ask(path, bodies, PROCESSES, requests=400)
            changing = threading.Thread(target=changes, args=(machine, store, seconds, times))
            changing.start()
            loaded = ask(path, bodies, clients, seconds=seconds)
            changing.join()
            saturated = _described(loaded, bodies, store, seconds)
            memory = _memory(process, path, shapes, clients, requests)
        served = json.loads(process.stdout.read() if process.stdout else "{}")
    generations = {digest for _, digest, _ in loaded.answers}
    return {
        "two_clients": latencies([wait for _, wait in lone.waits]),
        "saturated": {**saturated, "clients": clients, "generations": len(generations)},
        "memory_mib": {"idle": round(idle, 1), **memory},
        "exit_code": process.returncode,
        "answered": served["answered"],
        "generation_changes": served["generation_changes"],
    }


def _described(seen: Seen, bodies: list[bytes], store: Path, seconds: float) -> dict[str, Any]:
    answered = sum(seen.statuses.values())
    return {
        "answered": answered,
        "per_second": round(answered / seconds),
        **latencies([wait for _, wait in seen.waits]),
        "statuses": dict(seen.statuses),
        "dropped": len(seen.dropped),
        "wrong": wrong(seen, bodies, store),
    }


def _memory(
    process: subprocess.Popen[str], path: Path, shapes: list[bytes], clients: int, requests: int
) -> dict[str, float]:
    """Ask `requests` times; return resident memory in MiB after a tenth, half and all of them."""
    found: dict[str, float] = {}
    begun = 0
    for share in (0.1, 0.5, 1.0):
        seen = ask(path, shapes, clients, requests=round(requests * share) - begun)
        assert not seen.dropped, seen.dropped[:3]
        assert set(seen.statuses) == {200}, seen.statuses
        begun = round(requests * share)
        found[f"after_{begun}"] = round(resident_mib(process), 1)
    return found


def main() -> int:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.seconds, arguments.clients, arguments.requests)
    print(json.dumps(found, indent=2))
    saturated, memory = found["saturated"], list(found["memory_mib"].values())
    good = (
        saturated["wrong"] == saturated["dropped"] == found["exit_code"] == 0
        and set(saturated["statuses"]) == {200}
        and saturated["generations"] >= 2
        and memory[-1] <= FLAT * memory[-3]
    )
    return int(arguments.check and not good)


if __name__ == "__main__":
    sys.exit(main())
