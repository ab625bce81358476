from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import EDGE_CMCL
from machine_bundle import Machine
from running_service import RunningService, SlowClient, await_inside, start

from edge_cmcl.bundle import Store
from edge_cmcl.service.listening import is_loopback

Serve = Callable[..., RunningService]
Run = Callable[..., Any]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_what_it_has_and_says_what_it_did(
    serve: Serve, machine: Machine, taught: Store, tmp_path: Path, number: int
) -> None:
    running = serve("--store", taught.root, "--socket", tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    assert running.ask("/classify", machine.test).status_code == 200
    slow = SlowClient(tmp_path / "s")
    await_inside(running, 1)
    looks = running.client.get("/metrics").text.split('requests_total{path="/metrics",status="200"} ')[1].split("\n")[0]
    running.process.send_signal(number)
    running.await_told("stopping")
    with pytest.raises(OSError, match=r"refused|No such file"), socket.socket(socket.AF_UNIX) as late:
        late.connect(str(tmp_path / "s"))
    assert slow.finish().startswith(b"HTTP/1.1 200 ")
    code, result = running.stop(0)
    assert code == 0
    assert result["answered"] == int(looks) + 1 + 2
    assert (result["address"], result["remote"], result["counter"]) == (f"unix:{tmp_path / 's'}", False, 2)
    assert not (tmp_path / "s").exists()


def test_the_socket_of_a_killed_service_is_taken_over_and_that_of_a_living_one_is_not(
    serve: Serve, taught: Store, run_cli: Run, tmp_path: Path
) -> None:
    options = ("--store", taught.root, "--socket", tmp_path / "s")
    killed = serve(*options)
    killed.process.kill()
    killed.process.wait()
    assert (tmp_path / "s").is_socket()
    running = serve(*options)
    again = run_cli("serve", *options, "--json")
    assert (again.code, again.json["error"]["message"]) == (7, f"another service listens on {tmp_path / 's'}")
    assert running.client.get("/healthz").status_code == 200
    (tmp_path / "file").write_text("mine")
    other = run_cli("serve", "--store", taught.root, "--socket", tmp_path / "file", "--json")
    assert (other.code, other.json["error"]["type"]) == (2, "UsageError")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--host", "0.0.0.0", "--port", "0"], 5, "others could reach 0.0.0.0"),
        (["--host", "::", "--port", "0"], 5, "others could reach ::"),
        (["--host", "203.0.113.7", "--port", "0"], 2, "no address of this machine"),
        (["--host", "no such host"], 2, "no address of this machine"),
        (["--port", "65536"], 2, "65535"),
        (["--socket", "no/such/folder/s"], 7, "cannot write"),
        (["--socket", f"{'s' * 120}"], 2, "too long"),
    ],
)
def test_where_it_must_not_or_cannot_listen_it_says_so(
    taught: Store, run_cli: Run, options: list[str], code: int, word: str
) -> None:
    done = run_cli("serve", "--store", taught.root, *options, "--json")
    assert done.code == code, done.stdout + done.stderr
    assert word in done.json["error"]["message"]
    if code == 5:
        assert "--allow-remote" in done.json["error"]["to_do"]


def test_a_port_that_is_taken_is_told(taught: Store, run_cli: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_cli("serve", "--store", taught.root, "--port", str(port), "--json")
    assert (done.code, done.json["error"]["message"]) == (7, f"cannot listen on 127.0.0.1:{port}")


def test_to_be_reached_from_elsewhere_is_on_record(serve: Serve, taught: Store) -> None:
    running = serve("--store", taught.root, "--host", "0.0.0.0", "--port", "0", "--allow-remote")
    assert "it knows no passwords" in running.told()
    assert running.client.get("/healthz", headers={"Host": "device.local"}).status_code == 200
    code, result = running.stop()
    assert (code, result["remote"]) == (0, True)


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(taught: Store, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with start(tmp_path, "--store", taught.root, "--socket", tmp_path / "s", env=environment) as running:
            assert told.recv(100) == b"READY=1"
            assert running.client.get("/healthz").status_code == 200
            running.stop()
            assert told.recv(100) == b"STOPPING=1"


def test_a_socket_that_systemd_hands_in_and_others_could_reach_is_refused_too(taught: Store) -> None:
    with socket.create_server(("0.0.0.0", 0)) as handed_in:
        number = os.dup(handed_in.fileno())
    script = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --json --store {taught.root} 3<&{number}'
    try:
        done = subprocess.run(["bash", "-c", script, EDGE_CMCL], pass_fds=(number,), capture_output=True, check=False)
    finally:
        os.close(number)
    assert (done.returncode, b"others could reach 0.0.0.0" in done.stdout) == (5, True)


def test_a_socket_that_systemd_hands_in_is_used_and_stays(taught: Store, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as handed_in:
        handed_in.bind(str(tmp_path / "handed-in"))
        handed_in.listen()
        number = os.dup(handed_in.fileno())
        launcher = ("bash", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&{number} {number}<&-')
        try:
            with start(tmp_path, "--store", taught.root, launcher=launcher, pass_fds=(number,)) as running:
                assert running.client.get("/healthz").json()["counter"] == 2
                code, _ = running.stop()
        finally:
            os.close(number)
        assert code == 0
        assert (tmp_path / "handed-in").is_socket()


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("fe80::1%2", False)],
)
def test_what_loopback_is(address: str, loopback: bool) -> None:
    assert is_loopback(address) == loopback
