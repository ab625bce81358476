"""A virtual board that runs the C library itself: its posix port, built where there is a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge_cmcl.errors import PlatformError
from firmware_bridge.frames import CODES, DELIMITER
from firmware_bridge.virtual.signals import Signal

SOURCES = Path(__file__).parent.parent / "c"
_NAMES = {np.dtype(kind).str.replace("|", "<"): np.dtype(kind).name for kind in CODES}


def can_build() -> str:
    """Return why the posix port cannot be built here, or nothing."""
    if missing := [tool for tool in ("make", "cc") if shutil.which(tool) is None]:
        return f"no {' and no '.join(missing)}"
    return "" if (SOURCES / "Makefile").is_file() else "the C sources are not installed"


def build(folder: Path) -> Path:
    """Build the posix port below `folder` and return the program.

    Raises:
        PlatformError: it cannot be built.
    """
    command = ["make", "-s", "-C", str(SOURCES), f"BUILD={folder}", "CC=cc", "posix"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    program = folder / "ec_posix"
    if done.returncode or not program.is_file():
        raise PlatformError(
            "the posix port cannot be built", expected="make and a C99 compiler", got=done.stderr[-1000:]
        )
    return program


class NativeBoard:
    """One boot of a board in a process of its own; see `Board`, whose interface it has.

    Args:
        program: the posix port.
        signals: its sensors; they become streams 1, 2, ...
        boot: another number at each boot.
        drift_ppm: how much faster than true its clock runs, in millionths.
        speed: seconds of the board in one real one.
        flash: file of its micro model, which outlasts boots.
    """

    def __init__(
        self, program: Path, signals: Sequence[Signal], boot: int, *, drift_ppm: float, speed: float, flash: Path
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edge-cmcl-board-")
        command = [
            str(program), "--stdio", "--exit", "--boot", str(boot), "--drift", str(drift_ppm), "--speed", str(speed),
            "--payload", "4096", "--ring", "65536", "--flash", str(flash),
        ]  # fmt: skip
        for i, signal in enumerate(signals):
            data = Path(self._folder.name) / f"{i}.raw"
            data.write_bytes(np.ascontiguousarray(signal.raw).tobytes())
            command += ["--stream", _described(signal, data)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""

    @property
    def ended(self) -> bool:
        """Return whether all samples have been sent."""
        return self._process.poll() is not None and not self._read_more()

    def due(self, elapsed_s: float) -> Iterator[bytes]:
        """Yield the encoded frames that have been sent meanwhile; its process has a clock of its own."""
        self._read_more()
        *ended, self._rest = self._rest.split(DELIMITER)
        yield from (piece + DELIMITER for piece in ended if piece)

    def receive(self, data: bytes, elapsed_s: float) -> Iterator[bytes]:
        """Hand over bytes from the host; `due` yields what answers them."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(data)
            self._process.stdin.flush()
        return iter(())

    def close(self) -> None:
        """End it, as a power cut does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):  # what the board did not read
                pipe.close()
        self._folder.cleanup()

    def _read_more(self) -> bool:
        """Take what has come; return whether there was any."""
        assert self._process.stdout
        data = self._process.stdout.read(1 << 20)
        self._rest += data or b""
        return bool(data)


def _described(signal: Signal, data: Path) -> str:
    hello = signal.hello
    fields = {
        "name": hello.name, "unit": hello.unit, "scale": repr(hello.scale), "rate": repr(hello.rate_hz),
        "channels": hello.channels, "dtype": _NAMES[signal.raw.dtype.str.replace("|", "<")], "kind": hello.kind,
        "data": data,
    }  # fmt: skip
    if "," in hello.unit:
        raise PlatformError(
            f"the posix port takes no unit with a comma in it: {hello.unit!r}", hint="--board python does"
        )
    return ",".join(f"{key}={value}" for key, value in fields.items())
