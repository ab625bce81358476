"""The library as a process, from the host's side: what the tests of the node and of the boards share."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from c_build import make
from numpy.typing import NDArray

from firmware_bridge import messages
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import Frame, Type, encode
from firmware_bridge.messages import State

Wanted = Callable[[Frame], bool]


class Host:
    """A host on a unix socket.

    Attributes:
        frames: all that came, in order.
        decoder: that found them.
    """

    def __init__(self, path: Path, timeout_s: float = 20.0) -> None:
        self.frames: list[Frame] = []
        self.decoder = StreamDecoder()
        self.socket = socket.socket(socket.AF_UNIX)
        self._timeout_s = timeout_s
        self._sequence = 0
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.socket.connect(str(path))
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def send(self, kind: Type, payload: bytes = b"", stream: int = 0) -> None:
        self.socket.sendall(encode(Frame(kind, stream, 0, self._sequence, 0, payload)))
        self._sequence += 1

    def read(self, until: Wanted, timeout_s: float | None = None) -> Frame:
        """Return the first frame from now on for which `until` holds."""
        deadline = time.monotonic() + (timeout_s or self._timeout_s)
        self.socket.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            assert data, "the other side closed"
            new = list(self.decoder.feed(data))
            self.frames += new
            for frame in new:
                if until(frame):
                    return frame
        raise AssertionError(f"nothing of that kind among {len(self.frames)} frames")

    def read_all(self) -> list[Frame]:
        """Read until the other side closes; return all frames that ever came."""
        self.socket.settimeout(self._timeout_s)
        while data := self.socket.recv(65536):
            self.frames += self.decoder.feed(data)
        return self.frames

    def ask(self, kind: Type, payload: bytes) -> bytes:
        """Send a request and return the payload of the next frame of its type."""
        self.send(kind, payload)
        return self.read(lambda frame: frame.type == kind).payload


def transfer(host: Host, data: bytes, id_: bytes, stop_at: int | None = None) -> messages.Answer:
    """Send a micro model, or its beginning up to `stop_at`; return the last answer."""
    answer = messages.parse_answer(host.ask(Type.ADAPTER, messages.begin(id_, len(data), zlib.crc32(data))))
    while answer.state == State.RECEIVING and answer.next < (len(data) if stop_at is None else stop_at):
        part = messages.chunk(id_, answer.next, data[answer.next : answer.next + 1000])
        answer = messages.parse_answer(host.ask(Type.ADAPTER, part))
    if answer.state == State.RECEIVING and stop_at is None:
        answer = messages.parse_answer(host.ask(Type.ADAPTER, messages.commit(id_)))
    return answer


class Posix:
    """The process `ec_posix` on a unix socket in `folder`; ends with the block."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.path = folder / "board"
        binary = make("posix") / "ec_posix"
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        self.process = subprocess.Popen(
            [binary, "--unix", str(self.path), *arguments], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self._hosts: list[Host] = []

    def host(self) -> Host:
        """Return a new connection; it ends with the block, too."""
        self._hosts.append(Host(self.path))
        return self._hosts[-1]

    def __enter__(self) -> Posix:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts:
            host.socket.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def data_header(name: str, unit: str, rate_hz: float, windows: NDArray[np.float32]) -> str:
    """Return what ports/mps2 plays: windows (n, T, C) of one sensor, in the recorded unit."""
    count, samples, channels = windows.shape
    numbers = ", ".join(f"{value:.9g}f" if value % 1 else f"{value:.1f}f" for value in windows.ravel().tolist())
    return f"""\
#define DATA_NAME "{name}"
#define DATA_UNIT "{unit}"
#define DATA_SCALE 1.0
#define DATA_RATE {rate_hz}
#define DATA_CHANNELS {channels}
#define DATA_DTYPE EC_DTYPE_FLOAT32
#define DATA_SAMPLES {samples}
#define DATA_WINDOWS {count}
static const float data[] = {{{numbers}}};
"""


CPUS = {"an385": "Cortex-M3", "an386": "Cortex-M4", "an500": "Cortex-M7"}


class Qemu:
    """An MPS2 board in QEMU, its UART a unix socket in `folder`; ends with the block.

    Args:
        fast: an instruction takes 1024 ns of device time, which so runs tens of times as fast as ours. For firmware
            built with SPIN=1.
    """

    def __init__(self, folder: Path, machine: str, elf: Path, *, fast: bool = True, boot: int = 0) -> None:
        self.path, self._monitor = folder / "uart", folder / "monitor"
        self.process = subprocess.Popen(
            [
                "qemu-system-arm", "-M", f"mps2-{machine}", "-kernel", elf, "-display", "none",
                "-serial", f"unix:{self.path},server=on", "-monitor", f"unix:{self._monitor},server=on,wait=off",
                *(["-icount", "shift=10,sleep=off"] if fast else []),
                *(["-device", f"loader,addr=0x203FFFF0,data={boot},data-len=4"] if boot else []),
            ]
        )  # fmt: skip
        self.host = Host(self.path)

    def reset(self) -> None:
        """Reset the board; its flash stays."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._monitor))
            monitor.recv(4096)
            monitor.sendall(b"system_reset\n")
            time.sleep(0.2)

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.host.socket.close()
        self.process.kill()
        self.process.wait()
