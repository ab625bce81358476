"""Opens a link by its address."""

from __future__ import annotations

import os
import socket
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from edge_cmcl.errors import MissingExtraError, RemoteError, UsageError
from firmware_bridge.links.link import Link, SocketLink
from firmware_bridge.links.replay import ReplayLink
from firmware_bridge.links.serial_link import DEFAULT_BAUD, SerialLink

CONNECT_TIMEOUT_S = 5.0
PASSWORD_VARIABLE = "EDGE_CMCL_MQTT_PASSWORD"
FORMS = (
    "/dev/ttyACM0, serial:///dev/ttyUSB0?baud=921600, tcp://HOST:PORT, unix:///PATH, mqtt://HOST/TOPIC, file:///PATH"
)


def open_link(address: str) -> Link:
    """Return the link at `address`, one of `FORMS`.

    Raises:
        UsageError: it is no address.
        RemoteError: the other side is away.
        DataError: a file that cannot be read.
        MissingExtraError: an MQTT address, and paho-mqtt is not installed.
    """
    if address.startswith("/dev/"):
        return SerialLink(address)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise _no_address(address) from None
    if parts.password is not None:
        raise UsageError(
            "a password must not stand in an address, which is recorded", hint=f"set {PASSWORD_VARIABLE} instead"
        )
    path = unquote(parts.path)
    if parts.scheme == "serial" and path:
        return SerialLink(path, _baud(address, parts))
    if parts.scheme == "file" and path:
        return ReplayLink(path)
    if parts.scheme == "unix" and path:
        return SocketLink(address, _connect(address, path))
    if parts.scheme == "tcp" and parts.hostname and port:
        return SocketLink(address, _connect(address, (parts.hostname, port)))
    if parts.scheme in ("mqtt", "mqtts") and parts.hostname and path.strip("/"):
        return _mqtt(parts, path.strip("/"))
    raise _no_address(address)


def _connect(address: str, target: str | tuple[str, int]) -> socket.socket:
    try:
        if isinstance(target, tuple):
            connected = socket.create_connection(target, CONNECT_TIMEOUT_S)
            return _watched(connected)
        return _connect_unix(target)
    except OSError as error:
        raise RemoteError(
            f"{address} cannot be reached", expected="something that listens there", got=error.strerror or str(error)
        ) from None


def _connect_unix(path: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(path)
    except OSError:
        connected.close()
        raise
    return connected


def _watched(connected: socket.socket) -> socket.socket:
    """Let the system find out within half a minute that a board behind it has lost its power."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, 10),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 4),
    ):
        connected.setsockopt(socket.IPPROTO_TCP, option, value)
    return connected


def _mqtt(parts: SplitResult, topic: str) -> Link:
    try:
        from firmware_bridge.links.mqtt import MqttLink
    except ImportError:
        raise MissingExtraError("links over MQTT need paho-mqtt", hint="pip install 'edge-cmcl[mqtt]'") from None
    tls = parts.scheme == "mqtts"
    assert parts.hostname  # by `open_link`
    port = parts.port or (8883 if tls else 1883)
    return MqttLink(parts.hostname, port, topic, parts.username, os.environ.get(PASSWORD_VARIABLE), tls=tls)


def _baud(address: str, parts: SplitResult) -> int:
    asked = parse_qs(parts.query).get("baud", [str(DEFAULT_BAUD)])[-1]
    if not asked.isdecimal() or not 0 < int(asked) <= 100_000_000:
        raise UsageError(f"{address} has no such speed", expected="?baud=BITS_PER_SECOND", got=asked)
    return int(asked)


def _no_address(address: str) -> UsageError:
    return UsageError(f"{address!r} is no address of a link", expected=FORMS, got=address)
