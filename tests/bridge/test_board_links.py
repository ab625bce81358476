"""Links to real ends: sockets, pseudo-terminals, files, and a broker."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_cmcl.errors import DataError, RemoteError, UsageError
from firmware_bridge.links import KeptLink, LinkEnd, open_link
from firmware_bridge.virtual.serve import PtyEndpoint, SocketEndpoint


def read(link: KeptLink, wanted: int, timeout_s: float = 5.0) -> bytes:
    """Return `wanted` bytes."""
    got, until = b"", time.monotonic() + timeout_s
    while len(got) < wanted and time.monotonic() < until:
        got += link.read(0.05)
    return got


def kept(address: str) -> KeptLink:
    return KeptLink(open_link(address), lambda: open_link(address))


@pytest.fixture(params=["tcp", "unix", "pty"])
def echo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of something that sends back what it gets, and what breaks the connection."""
    makers = {
        "tcp": lambda: SocketEndpoint.tcp("127.0.0.1", 0),
        "unix": lambda: SocketEndpoint.unix(tmp_path / "board"),
        "pty": PtyEndpoint,
    }
    endpoint, over, broken = makers[request.param](), threading.Event(), threading.Event()

    def run() -> None:
        got = b""
        while not over.is_set():
            if broken.is_set() and isinstance(endpoint, SocketEndpoint) and endpoint._host is not None:
                endpoint._host.close()
                endpoint._host = None
                broken.clear()
            got = endpoint.exchange(got, 0.02)

    thread = threading.Thread(target=run)
    thread.start()
    yield endpoint.address, broken.set
    over.set()
    thread.join()
    endpoint.close()


def test_bytes_go_both_ways_all_values_of_them(echo: tuple[str, Callable[[], None]]) -> None:
    link = kept(echo[0])
    assert link.write(bytes(range(256)) * 8)
    assert read(link, 2048) == bytes(range(256)) * 8
    assert link.read(0.01) == b""
    link.close()


def test_a_connection_that_breaks_comes_back(echo: tuple[str, Callable[[], None]]) -> None:
    if "/pts/" in echo[0]:
        pytest.skip("a pseudo-terminal does not break")
    link = kept(echo[0])
    assert link.write(b"one")
    assert read(link, 3) == b"one"
    echo[1]()
    until = time.monotonic() + 5
    while not link.reconnects and time.monotonic() < until:
        assert link.read(0.05) == b""
    assert (link.reconnects, link.away) == (1, "")
    assert link.write(b"two")
    assert read(link, 3) == b"two"
    link.close()


def test_while_the_other_side_is_away_nothing_comes_and_why_is_known(tmp_path: Path) -> None:
    endpoint = SocketEndpoint.unix(tmp_path / "board")
    link = kept(endpoint.address)
    endpoint.exchange(b"", 0.1)
    endpoint.close()
    began = time.monotonic()
    while time.monotonic() < began + 0.5:
        assert link.read(0.05) == b""
    assert link.away == "No such file or directory"
    assert link.write(b"x") is False
    link.close()


def test_only_one_program_may_have_a_serial_line_open() -> None:
    endpoint = PtyEndpoint()
    first = open_link(endpoint.address)
    with pytest.raises(RemoteError, match="cannot be opened"):
        open_link(f"serial://{endpoint.address}?baud=115200")
    first.close()
    open_link(f"serial://{endpoint.address}?baud=115200").close()
    endpoint.close()


def test_a_file_is_played_to_its_end(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "line.bin").write_bytes(data)
    link = open_link(f"file://{tmp_path}/line.bin")
    link.write(b"nobody is there")
    got = link.read(1) + link.read(1)
    assert got == data
    with pytest.raises(LinkEnd):
        link.read(1)
    link.close()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("", UsageError),
        ("nonsense", UsageError),
        ("tcp://host", UsageError),
        ("tcp://:1", UsageError),
        ("tcp://h:99999", UsageError),
        ("serial:", UsageError),
        ("serial:///dev/null?baud=fast", UsageError),
        ("mqtt://host", UsageError),
        ("mqtt://user:secret@host/topic", UsageError),
        ("mqtt://user:secret@host", UsageError),
        ("/dev/null", RemoteError),
        ("/dev/nothing-of-the-kind", RemoteError),
        ("unix:///nothing/of/the/kind", RemoteError),
        ("tcp://127.0.0.1:1", RemoteError),
        ("mqtt://127.0.0.1:1/topic", RemoteError),
        ("file:///nothing/of/the/kind", DataError),
    ],
)
def test_an_address_that_cannot_be_opened_is_told_and_a_password_is_not(address: str, error: type[Exception]) -> None:
    with pytest.raises(error) as told:
        open_link(address)
    assert "secret" not in str(told.value)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The port of a real mosquitto that asks for a password."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(program).exists():
        pytest.skip("mosquitto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "machine", "secret"], check=True, capture_output=True)
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n")
    with subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
        process.terminate()


def test_a_topic_of_a_broker_is_a_link_for_who_has_the_password(broker: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        open_link(f"mqtt://machine@127.0.0.1:{broker}/line/7")
    monkeypatch.setenv("EDGE_CMCL_MQTT_PASSWORD", "secret")
    link = kept(f"mqtt://machine@127.0.0.1:{broker}/line/7")
    assert link.address == f"mqtt://127.0.0.1:{broker}/line/7"
    board = paho.Client(CallbackAPIVersion.VERSION2)
    board.username_pw_set("machine", "secret")
    board.on_message = lambda client, _data, message: client.publish("line/7/up", message.payload)
    board.connect("127.0.0.1", broker)
    subscribed = threading.Event()
    board.on_subscribe = lambda *_: subscribed.set()
    board.subscribe("line/7/down")
    board.loop_start()
    assert subscribed.wait(5)
    assert link.write(bytes(range(256)))
    assert read(link, 256) == bytes(range(256))
    board.disconnect()
    board.loop_stop()
    link.close()
