"""Virtual boards in processes and threads of their own, for tests of what is at the other end of a link."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.hello import Hello
from firmware_bridge.recording import Event, RecordingFile, Samples, files_of
from firmware_bridge.virtual import Faults, Signal, serve
from firmware_bridge.virtual.serve import Endpoint

ROOT = Path(__file__).parent.parent.parent


def ramp(name: str = "gyro", seconds: float = 2.0, rate_hz: float = 100.0, channels: int = 3) -> Signal:
    """Return a signal whose sample i is i in every channel."""
    raw = np.repeat(np.arange(int(seconds * rate_hz), dtype=np.int16)[:, None], channels, axis=1)
    return Signal(Hello(name, "rad/s", 0.5, rate_hz, channels, 3, "test 1.0"), raw)


@contextmanager
def board(
    endpoint: Endpoint, signals: Sequence[Signal], faults: Faults | None = None, speed: float = 1.0, **more: Any
) -> Iterator[str]:
    """Run a virtual board in a thread; yield its address."""
    over = threading.Event()
    work: Callable[[], object] = lambda: serve(  # noqa: E731
        signals, endpoint, faults or Faults(), speed=speed, is_over=over.is_set, **more
    )
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield endpoint.address
    finally:
        over.set()
        thread.join()
        endpoint.close()


@contextmanager
def board_process(*options: str) -> Iterator[str]:
    """Run `python -m firmware_bridge.virtual` with `options`; yield its address."""
    command = [sys.executable, "-m", "firmware_bridge.virtual", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def events_of(recording: Path) -> list[Event]:
    """Return all that was recorded."""
    return [event for path in files_of(recording) for event in RecordingFile(path).events()]


def samples_of(recording: Path, name: str = "gyro") -> np.ndarray:
    """Return the samples of one stream, (t, channels)."""
    parts = [e.values for e in events_of(recording) if isinstance(e, Samples) and e.stream.hello.name == name]
    return np.concatenate(parts)
