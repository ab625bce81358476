"""Runs a board at a pseudo-terminal, a TCP port or a unix socket, in real or accelerated time."""

from __future__ import annotations

import os
import select
import socket
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from edge_cmcl.errors import RemoteError
from firmware_bridge.virtual.board import Board, ModelSlots
from firmware_bridge.virtual.faults import Faults, FaultyLine
from firmware_bridge.virtual.native import NativeBoard
from firmware_bridge.virtual.signals import Signal

TICK_S = 0.005
_READ_BYTES = 1 << 16


class Endpoint(Protocol):
    """Where a host finds the board.

    Attributes:
        address: as `edge-cmcl record` takes it.
    """

    address: str

    def exchange(self, data: bytes, timeout_s: float) -> bytes:
        """Send `data` and return what has come, within `timeout_s`. Where no host is there, `data` is lost."""

    @property
    def there(self) -> bool:
        """Return whether a host is there."""

    def close(self) -> None:
        """Let go of it."""


class PtyEndpoint:
    """A pseudo-terminal, which looks like a serial device."""

    def __init__(self) -> None:
        self._board_end, self._host_end = os.openpty()  # the host's end stays open, so that hosts may come and go
        tty.setraw(self._host_end)
        os.set_blocking(self._board_end, False)
        self.address = os.ttyname(self._host_end)
        self.there = True

    def exchange(self, data: bytes, timeout_s: float) -> bytes:
        """See `Endpoint.exchange`; a full buffer, which nobody reads, drops what comes."""
        try:
            while data:
                data = data[os.write(self._board_end, data) :]
        except BlockingIOError:
            pass
        ready, _, _ = select.select([self._board_end], [], [], timeout_s)
        return os.read(self._board_end, _READ_BYTES) if ready else b""

    def close(self) -> None:
        """See `Endpoint.close`."""
        os.close(self._board_end)
        os.close(self._host_end)


class SocketEndpoint:
    """A listening TCP or unix socket; one host at a time."""

    def __init__(self, listening: socket.socket, address: str, unlink: Path | None = None) -> None:
        self.address = address
        self._listening = listening
        self._host: socket.socket | None = None
        self._unlink = unlink

    @classmethod
    def tcp(cls, host: str, port: int) -> SocketEndpoint:
        """Listen at `host`:`port`, 0 for any free port."""
        listening = _listen(lambda: socket.create_server((host, port)), f"{host}:{port}")
        return cls(listening, f"tcp://{host}:{listening.getsockname()[1]}")

    @classmethod
    def unix(cls, path: Path) -> SocketEndpoint:
        """Listen at the socket `path`, which is made."""

        def listen() -> socket.socket:
            made = socket.socket(socket.AF_UNIX)
            made.bind(str(path))
            made.listen()
            return made

        return cls(_listen(listen, str(path)), f"unix://{path}", unlink=path)

    @property
    def there(self) -> bool:
        """See `Endpoint.there`."""
        return self._host is not None

    def exchange(self, data: bytes, timeout_s: float) -> bytes:
        """See `Endpoint.exchange`."""
        if self._host is None:
            ready, _, _ = select.select([self._listening], [], [], timeout_s)
            if ready:
                self._host, _ = self._listening.accept()
                self._host.settimeout(5.0)
            return b""
        try:
            self._host.sendall(data)
            ready, _, _ = select.select([self._host], [], [], timeout_s)
            if not ready:
                return b""
            got = self._host.recv(_READ_BYTES)
        except OSError:
            got = b""
        if not got:
            self._host.close()
            self._host = None
        return got

    def close(self) -> None:
        """See `Endpoint.close`."""
        if self._host is not None:
            self._host.close()
        self._listening.close()
        if self._unlink is not None:
            self._unlink.unlink(missing_ok=True)


class AnyBoard(Protocol):
    """One boot of a board: `Board` or `NativeBoard`."""

    @property
    def ended(self) -> bool:
        """Return whether all samples have been sent."""

    def due(self, elapsed_s: float) -> Iterator[bytes]:
        """Yield the encoded frames that are to be sent until `elapsed_s` true seconds after the boot."""

    def receive(self, data: bytes, elapsed_s: float) -> Iterator[bytes]:
        """Take bytes from the host and yield the encoded frames that answer them."""

    def close(self) -> None:
        """End it."""


MakeBoard = Callable[[Sequence[Signal], int], AnyBoard]
"""Boots a board that plays the signals from their start, with a boot id."""


def serve(
    signals: Sequence[Signal],
    endpoint: Endpoint,
    faults: Faults,
    *,
    speed: float = 1.0,
    boot: MakeBoard | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Run a board that plays `signals`, until all has been sent or `is_over`.

    Time begins when a host is there. A board that restarts goes on with its signals where it was.

    Args:
        signals: of the sensors.
        endpoint: where the host is.
        faults: what goes wrong, in the board's time.
        speed: seconds of the board in one real one.
        boot: boots a board; one in Python by default.
        is_over: asked all the time.

    Returns:
        What the line did to the frames, by name.
    """
    boot = boot or python_board(faults)
    line = FaultyLine(faults)
    while not endpoint.there and not is_over():
        endpoint.exchange(b"", TICK_S)
    began_s, boots, booted_s = time.monotonic(), 1 + faults.seed % 1_000_000, 0.0
    board = boot(signals, boots)
    try:
        while not is_over() and not (board.ended and line.empty):
            now_s = (time.monotonic() - began_s) * speed
            if faults.reboot_every_s and now_s - booted_s >= faults.reboot_every_s:
                board.close()
                boots, booted_s = boots + 1, now_s
                board = boot(_rest(signals, now_s), boots)
            for frame in board.due(now_s - booted_s):
                line.send(frame, now_s)
            got = endpoint.exchange(line.take(now_s), TICK_S)
            for frame in board.receive(got, (time.monotonic() - began_s) * speed - booted_s) if got else ():
                line.send(frame, now_s)
        endpoint.exchange(line.take(float("inf")), TICK_S)
    finally:
        board.close()
    return dict(line.done)


def python_board(faults: Faults, slots: ModelSlots | None = None) -> MakeBoard:
    """Return what boots boards in Python, which share `slots` for their micro model."""
    slots = slots or ModelSlots()
    return lambda signals, boot: Board(signals, boot, slots, drift_ppm=faults.drift_ppm)


def native_board(faults: Faults, program: Path, speed: float, flash: Path) -> MakeBoard:
    """Return what boots boards of the C library (`native.build`), whose micro model lies in the file `flash`."""
    return lambda signals, boot: NativeBoard(
        program, signals, boot, drift_ppm=faults.drift_ppm, speed=speed, flash=flash
    )


def _rest(signals: Sequence[Signal], now_s: float) -> list[Signal]:
    """Return what the sensors measure from `now_s` on."""
    return [Signal(signal.hello, signal.raw[int(now_s * signal.hello.rate_hz) :]) for signal in signals]


def _listen(make: Callable[[], socket.socket], where: str) -> socket.socket:
    try:
        return make()
    except OSError as error:
        raise RemoteError(f"cannot listen at {where}", got=error.strerror or str(error)) from None
