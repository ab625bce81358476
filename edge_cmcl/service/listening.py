"""Where a service listens: a socket that systemd hands in, a unix socket of its own, or loopback."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_cmcl.durable import storage_errors
from edge_cmcl.errors import PlatformError, RefusedError, UsageError
from edge_cmcl.service.settings import Settings

MODE = 0o660
"""Of a unix socket: who may ask is a matter of its group."""
_HANDED_IN = 3
"""The first socket that systemd hands in (sd_listen_fds)."""


@contextmanager
def listening(settings: Settings) -> Iterator[tuple[socket.socket, str]]:
    """Yield the socket to listen on, and its address for people; a unix socket's path is removed at the end.

    Raises:
        RefusedError: others could reach it, and `settings` does not say that they may.
        UsageError: there is no such address, or something else is at the path.
        PlatformError: another service listens there.
        StorageError: the path cannot be written.
    """
    handed_in = _from_systemd()
    if handed_in is not None:
        with handed_in:
            _check_reach(handed_in, settings)
            yield handed_in, f"the socket from systemd ({handed_in.getsockname()})"
    elif settings.socket is not None:
        with _unix(settings.socket.absolute()) as made:
            yield made, f"unix:{settings.socket.absolute()}"
    else:
        with _tcp(settings) as made:
            host, port = made.getsockname()[:2]
            yield made, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _from_systemd() -> socket.socket | None:
    """Return the one socket that systemd has opened for this process, None where it has not (sd_listen_fds(3)).

    Raises:
        UsageError: there are several.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if count != "1":
        raise UsageError("systemd hands in another number of sockets", expected="one ListenStream=", got=count)
    return socket.socket(fileno=_HANDED_IN)


@contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    _clear(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with storage_errors(path):
            _bind(made, str(hidden))
            own = hidden.stat().st_ino
            hidden.chmod(MODE)
            made.listen()
            hidden.replace(path)  # now it is there, with its mode and answered
        try:
            yield made
        finally:
            with suppress(OSError):
                if path.stat().st_ino == own:  # and not that of a service which took its place
                    path.unlink()
    finally:
        with suppress(OSError):
            hidden.unlink()
        made.close()


def _bind(made: socket.socket, path: str) -> None:
    try:
        made.bind(path)
    except OSError as error:
        if error.errno is None or error.errno == errno.ENAMETOOLONG:  # Python's own check has no number
            expected = "a path of at most about 90 bytes: Linux takes no longer one"
            raise UsageError("the path of the socket is too long", expected=expected, got=path) from error
        raise


def _clear(path: Path) -> None:
    """Remove the socket that a killed service left at `path`.

    Raises:
        UsageError: something else is there.
        PlatformError: a service listens there.
    """
    with storage_errors(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} is not a socket", expected="a new path, or a socket that nobody listens on")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, storage_errors(path):
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise PlatformError(f"another service listens on {path}", hint="stop it first, or choose another --socket")


def _tcp(settings: Settings) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UsageError(f"{host} is no address of this machine", expected="an address", got=str(error)) from error
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        _check_reach(made, settings)  # bound, it does not listen yet
    except RefusedError:
        made.close()
        raise
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{host} is no address of this machine", got=str(error)) from error
        raise PlatformError(f"cannot listen on {host}:{port}", got=str(error), hint="choose another --port") from error
    return made


def _check_reach(made: socket.socket, settings: Settings) -> None:
    if not settings.allow_remote and not is_local(made):
        address = made.getsockname()[0]
        raise RefusedError(
            f"others could reach {address}, and the service knows no passwords",
            expected="a loopback address or --socket",
            got=str(address),
            hint="put a proxy with TLS and a login before it; --allow-remote listens all the same",
        )


def is_local(made: socket.socket) -> bool:
    """Return whether only this machine can reach a bound socket."""
    return made.family == socket.AF_UNIX or is_loopback(str(made.getsockname()[0]))


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach `address`."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def notify(state: str) -> None:
    """Tell systemd how the service is, "READY=1" or "STOPPING=1"; nothing where it does not ask (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        sender.sendall(state.encode())
