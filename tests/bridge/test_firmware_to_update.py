"""From firmware to an update and back: an emulated Cortex-M teaches a device its gyroscope, and gets a model of it.

The board streams UTD-MHAD's gyroscope windows, which are compiled into it, over its UART; a virtual board streams the
accelerometer's, from the same moment on. The device records both, aligns them, learns, and sends a micro model down.
Time runs 11 times as fast as when the windows were recorded.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_build import make, needs
from environments import EDGE_CMCL
from live_boards import samples_of
from numpy.typing import NDArray
from prepared_data import prepared

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.host.export import export
from edge_cmcl.host.train import train
from firmware_bridge import blob
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import Type
from firmware_bridge.hello import Hello
from firmware_bridge.links import KeptLink, Link, open_link
from firmware_bridge.micro import embed
from firmware_bridge.recorder import Recorded, Recorder, Settings
from firmware_bridge.sending import Sender, Sent
from firmware_bridge.virtual.board import Board, ModelSlots
from firmware_bridge.virtual.serve import SocketEndpoint
from firmware_bridge.virtual.signals import Signal

ASKED = os.environ.get("EDGE_CMCL_FIRMWARE") in ("reduced", "full")
pytestmark = pytest.mark.skipif(
    not ASKED, reason="takes minutes: EDGE_CMCL_FIRMWARE=reduced or `make firmware` runs it"
)

RATE_HZ, SAMPLES = 400.0, 128
WINDOW_S = SAMPLES / RATE_HZ
DRIFT_PPM = 80.0
EMBEDDING_S = 40.0

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Motions:
    """UTD-MHAD's accelerometer and gyroscope, as if recorded 11 times as fast."""

    train: Path
    test: Path

    def windows(self, part: Path, name: str) -> Values:
        with open_pairs(part) as pairs:
            return pairs.read(name)


@pytest.fixture(scope="module")
def motions(archive: Any, tmp_path_factory: pytest.TempPathFactory) -> Motions:
    source, folder = prepared("utd_mhad", archive("utd_mhad")), tmp_path_factory.mktemp("motions")
    for part in ("train", "test"):
        with open_pairs(source / f"{part}.safetensors") as pairs:
            names = ("acc", "gyro", "skeleton")
            write_pairs(
                folder / f"{part}.safetensors",
                {name: pairs.read(name) for name in names},
                groups=pairs.groups,
                rate_hz={name: pairs.shape(name)[0] / WINDOW_S for name in names},
                units={name: pairs.units[name] for name in names if name in pairs.units},
            )
    return Motions(folder / "train.safetensors", folder / "test.safetensors")


@dataclass(frozen=True)
class Device:
    """A device that knows skeleton and acc."""

    bundle: Path
    folder: Path

    def command(self, *arguments: str | Path) -> dict[str, Any]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "EDGE_CMCL_STORE": str(self.folder / "store")}
        done = subprocess.run(
            [EDGE_CMCL, *arguments, "--json"], env=environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def taught(self, recording: Path, test: Path) -> float:
        """Install the base anew, learn gyro from `recording`, and return R@10 of acc - gyro on the test subjects."""
        self.command("install", self.bundle, "--allow-unsigned")
        self.command("update", "--modality", "gyro", "--with", "acc", "--data", recording)
        found = self.command("evaluate", self.folder / "store", "--data", test)["pairs"]
        (pair,) = (each for each in found if each["modalities"] == ["acc", "gyro"])
        return 100 * float(pair["metrics"]["recall_at_10"])


@pytest.fixture(scope="module")
def bundle(motions: Motions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tables = [
        f"[modality.{name}]\nchannels = {channels}\nrate_hz = {samples / WINDOW_S!r}\nwindow_s = {WINDOW_S!r}\n{unit}\n"
        for name, channels, samples, unit in (("acc", 3, SAMPLES, 'unit = "g"'), ("skeleton", 60, 64, ""))
    ]
    pair = f'[[pair]]\nmodalities = ["skeleton", "acc"]\ntrain = ["{motions.train}"]\n'
    (folder / "edge-cmcl.toml").write_text("\n".join(['name = "utd"\n', *tables, pair]))
    export(train(folder / "edge-cmcl.toml", folder / "run"), folder / "base.tar")
    return folder / "base.tar"


def firmware(folder: Path, windows: Values) -> tuple[Path, float]:
    """Build firmware for a Cortex-M4 that plays `windows` in int16; return it and the scale of a step."""
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    scale = float(np.abs(windows).max()) / 32000
    raw = np.round(windows / scale).astype(int)
    numbers = ",\n".join(",".join(map(str, row)) for row in raw.reshape(len(raw), -1).tolist())
    told = {
        "NAME": '"gyro"', "UNIT": '"rad/s"', "SCALE": repr(scale), "RATE": RATE_HZ, "CHANNELS": raw.shape[2],
        "DTYPE": "EC_DTYPE_INT16", "SAMPLES": raw.shape[1], "WINDOWS": len(raw),
    }  # fmt: skip
    defines = "".join(f"#define DATA_{name} {value}\n" for name, value in told.items())
    (folder / "data.h").write_text(f"{defines}static const int16_t data[] = {{\n{numbers}}};\n")
    return make(
        "mps2", "gcc", "-O2", "MACHINE=an386", "MICRO=1", f"DATA={folder / 'data.h'}"
    ) / "ec_mps2_an386.elf", scale


class Emulated:
    """The firmware on an emulated board, stopped; its UART is a unix socket.

    It runs in real time, and misses samples where it is kept waiting: where it may, it goes before other processes.
    """

    def __init__(self, folder: Path, elf: Path) -> None:
        self.address = f"unix://{folder / 'uart'}"
        monitor = folder / "monitor"
        self.process = subprocess.Popen([
            "qemu-system-arm", "-M", "mps2-an386", "-kernel", elf, "-display", "none", "-S",
            "-serial", f"unix:{folder / 'uart'},server=on,wait=off", "-monitor", f"unix:{monitor},server=on,wait=off",
        ])  # fmt: skip
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -10)
        deadline = time.monotonic() + 10
        while not monitor.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._monitor = socket.socket(socket.AF_UNIX)
        self._monitor.connect(str(monitor))
        self._monitor.recv(4096)

    def tell(self, command: str) -> None:
        """Give QEMU's monitor a command."""
        self._monitor.sendall(command.encode() + b"\n")

    def end(self) -> None:
        """Pull the plug."""
        self._monitor.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def emulated(folder: Path, elf: Path) -> Iterator[Emulated]:
    folder.mkdir()
    board = Emulated(folder, elf)
    try:
        yield board
    finally:
        board.end()


class Watched:
    """A link that tells when the first sample that comes over it was measured, by the clock of this process."""

    def __init__(self, link: Link) -> None:
        self.address = link.address
        self.first_s: float | None = None
        self._link = link
        self._decoder = StreamDecoder()

    def read(self, timeout_s: float) -> bytes:
        data = self._link.read(timeout_s)
        if self.first_s is None:
            for frame in self._decoder.feed(data):
                if frame.type == Type.DATA and self.first_s is None:
                    # Its last sample has just been measured, or the one before.
                    self.first_s = time.monotonic() - (frame.samples - 0.5) / RATE_HZ
        return data

    def write(self, data: bytes) -> None:
        self._link.write(data)

    def close(self) -> None:
        self._link.close()


@contextmanager
def accelerometer(folder: Path, windows: Values, gyroscope: Watched) -> Iterator[str]:
    """A virtual board beside the gyroscope, from its first sample on; its clock is 80 ppm too fast, and was never 0."""
    scale = float(np.abs(windows).max()) / 32000
    world = windows.reshape(-1, 3)
    seen = np.arange(len(world)) / (1 + 1e-6 * DRIFT_PPM)  # a fast clock takes more samples of the same motion
    values = np.stack([np.interp(seen, np.arange(len(world)), channel) for channel in world.T], axis=1)
    signal = Signal(Hello("acc", "g", scale, RATE_HZ, 3, 3), np.round(values / scale).astype(np.int16))
    endpoint, over = SocketEndpoint.unix(folder / "acc"), threading.Event()

    def run() -> None:
        board: Board | None = None
        began_s = time.monotonic() - 1000.0
        while not over.is_set():
            now_s = time.monotonic() - began_s
            if board is None and gyroscope.first_s is not None:
                started_us = int((gyroscope.first_s - began_s) * (1e6 + DRIFT_PPM))
                board = Board([signal], 77, ModelSlots(), drift_ppm=DRIFT_PPM, started_us=started_us)
            got = endpoint.exchange(b"".join(board.due(now_s)) if board else b"", 0.002)
            if got and board:
                endpoint.exchange(b"".join(board.receive(got, time.monotonic() - began_s)), 0.0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield endpoint.address
    finally:
        over.set()
        thread.join()
        endpoint.close()


def recorded_beside_each_other(folder: Path, elf: Path, acc: Values) -> Recorded:
    """Record the emulated gyroscope and the accelerometer until all has been played."""
    with emulated(folder / "m4", elf) as board:
        gyroscope = Watched(open_link(board.address))
        with accelerometer(folder, acc, gyroscope) as address:
            links = [(link, lambda at=link.address: open_link(at)) for link in (gyroscope, open_link(address))]
            settings = Settings(seconds=len(acc) * WINDOW_S + 4, min_free_bytes=0)
            recorder = Recorder(folder / "r", links, settings)
            board.tell("cont")
            return recorder.record()


def likeness(some: Values, others: Values) -> float:
    """Return the correlation of two sets of windows."""
    return round(float(np.corrcoef(some.ravel(), others.ravel())[0, 1]), 4)


def recall_at_10(gyro: Values, acc: Values) -> float:
    """Return R@10 in percent, both ways, of unit embeddings whose row i is the same moment."""
    similarity = (gyro / np.linalg.norm(gyro, axis=1, keepdims=True)) @ acc.T
    found = [((side > np.diag(side)[:, None]).sum(axis=1) < 10).mean() for side in (similarity, similarity.T)]
    return 100 * float(np.mean(found))


def test_firmware_teaches_a_device_its_sensor_and_gets_a_model_of_it(
    motions: Motions, bundle: Path, tmp_path: Path
) -> None:
    device, gyro = Device(bundle, tmp_path), motions.windows(motions.train, "gyro")
    elf, _ = firmware(tmp_path, gyro)
    recorded = recorded_beside_each_other(tmp_path, elf, motions.windows(motions.train, "acc"))
    paired = device.command("pair", tmp_path / "r", "--out", tmp_path / "pairs.safetensors", "--window", str(WINDOW_S))
    with open_pairs(tmp_path / "pairs.safetensors") as pairs:
        assert pairs.time is not None
        rows = np.round((pairs.time - pairs.time[0]) / WINDOW_S).astype(int)
        both = pairs.valid("gyro") & pairs.valid("acc") & (rows < len(gyro))
        alike = {
            name: likeness(pairs.read(name)[both], motions.windows(motions.train, name)[rows[both]])
            for name in ("gyro", "acc")
        }
    original = device.taught(motions.train, motions.test)
    (tmp_path / "store").rename(tmp_path / "store-original")
    from_recording = device.taught(tmp_path / "r", motions.test)
    print(json.dumps({
        "windows": len(gyro), "paired": paired["drops"], "clocks": paired["clocks"],
        "alike": alike,
        "recall_at_10": {"original": round(original, 2), "recorded": round(from_recording, 2)},
        "counts": {link: counts["streams"] for link, counts in recorded.counts.items()},
    }))  # fmt: skip
    assert paired["drops"]["kept"] >= 0.8 * len(gyro)
    assert min(alike.values()) > 0.9
    assert from_recording >= original - 2
    assert not (tmp_path / "r").exists()


def test_a_model_of_the_sensor_goes_down_through_a_reset_and_the_board_embeds_as_numpy_does(
    motions: Motions, bundle: Path, tmp_path: Path
) -> None:
    device, folder, gyro = Device(bundle, tmp_path), tmp_path, motions.windows(motions.test, "gyro")
    device.taught(motions.train, motions.test)
    elf, scale = firmware(folder, gyro)
    played = (np.round(gyro / scale) * np.float32(scale)).astype(np.float32)
    device.command("embed", motions.test, "--modality", "acc", "--out", folder / "acc.safetensors")
    device.command("embed", motions.test, "--modality", "gyro", "--out", folder / "gyro.safetensors")
    full = {name: embeddings_in(folder / f"{name}.safetensors") for name in ("acc", "gyro")}
    told = {"full": round(recall_at_10(full["gyro"], full["acc"]), 2)}
    for precision in ("float32", "int8"):
        file = folder / f"{precision}.ecmm"
        made = device.command(
            "blob",
            "--modality",
            "gyro",
            "--precision",
            precision,
            "--out",
            file,
            "--data",
            motions.test,
            "--max-loss",
            "8",
        )
        with emulated(folder / precision, elf) as board:
            board.tell("cont")
            link = open_link(board.address)
            sent = interrupted_send(board, link, file.read_bytes())
            # On the same line: the board embeds from the moment at which it has the model.
            settings = Settings(seconds=EMBEDDING_S, min_free_bytes=0)
            Recorder(folder / f"r-{precision}", [(link, lambda: open_link(board.address))], settings).record()
        found = samples_of(folder / f"r-{precision}", "gyro_embedding")
        model = blob.read(file.read_bytes())
        expected = embed(model, played).astype(np.float32) / (32767 if precision == "int8" else 1)
        first = int(np.argmin(np.abs(expected - found[0]).max(axis=1)))  # the recorder came while it was at it
        away = np.abs(found[: len(expected) - first] - expected[first : first + len(found)])
        told[precision] = {
            "embeddings": len(found), "difference": float(away.max()), "bytes": len(file.read_bytes()),
            "recall_at_10": round(recall_at_10(expected, full["acc"]), 2), "sent_bytes": sent.sent_bytes,
            "loss": made.get("loss"),
        }  # fmt: skip
        assert len(found) > 50
        assert away.max() <= (1e-5 if precision == "float32" else 0.0)
    print(json.dumps(told, default=str))


def interrupted_send(board: Emulated, link: Link, model: bytes) -> Sent:
    """Send `model` to the board, which is reset when it has half of it; the link stays open."""
    reset = []

    def progress(stage: str, done: int, total: int) -> None:
        if done > total // 2 and not reset:
            reset.append(done)
            board.tell("system_reset")

    sent = Sender(KeptLink(link, lambda: open_link(board.address)), model, progress).send()
    assert reset
    return sent


def embeddings_in(path: Path) -> Values:
    from edge_cmcl.tensors import from_bytes

    (found,) = (array for name, array in from_bytes(path.read_bytes()).items() if array.ndim == 2)
    return np.asarray(found, np.float32)
