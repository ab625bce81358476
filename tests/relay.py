"""A relay between a client and a server on this machine: counts bytes, slows them down, cuts the connection."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 2048
_ABRUPT = struct.pack("ii", 1, 0)


class Relay:
    """Listens on `port`, forwards to `target`.

    Attributes:
        up: bytes from clients.
        down: bytes to clients.
        connections: number of them so far.
    """

    def __init__(self, target: int, bytes_per_s: float | None = None) -> None:
        self.target = target
        self.up = self.down = self.connections = 0
        self._rate = bytes_per_s
        self._cuts: list[int] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def cut_at(self, *up: int) -> None:
        """Reset the connection when this many bytes came from clients in all, once for each number."""
        self._cuts = sorted(up)

    def cut(self) -> None:
        """Reset every connection now."""
        for pair in self._pairs:
            self._reset(pair)

    def await_up(self, count: int) -> None:
        """Wait until so many bytes came from clients."""
        for _ in range(3000):
            if self.up >= count:
                return
            time.sleep(0.01)
        raise AssertionError(f"only {self.up} bytes of {count} came")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            self._reset(pair)
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                client.close()
                continue
            self.connections += 1
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            self._pairs.append(pair)
            self._start(self._forward, pair, client, server, True)
            self._start(self._forward, pair, server, client, False)

    def _forward(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, target: socket.socket, up: bool
    ) -> None:
        free_at = time.monotonic()
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if self._rate is not None:
                    free_at = max(free_at, time.monotonic() - 0.01) + len(data) / self._rate
                    time.sleep(max(0.0, free_at - time.monotonic()))
                if up:
                    self.up += len(data)
                    if self._cuts and self.up >= self._cuts[0]:
                        self._cuts.pop(0)
                        break
                else:
                    self.down += len(data)
                target.sendall(data)
        self._reset(pair)

    def _reset(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def relaying(target: int, bytes_per_s: float | None = None) -> Iterator[Relay]:
    relay = Relay(target, bytes_per_s)
    try:
        yield relay
    finally:
        relay.close()
