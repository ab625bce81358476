"""Virtual boards, of the C library and in Python: they play what they are given, and go wrong as they are asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live_boards import board, board_process, ramp, samples_of

from edge_cmcl.data import write_pairs
from edge_cmcl.errors import DataError, ModelError, UsageError
from edge_cmcl.tensors import from_bytes
from firmware_bridge.links import KeptLink, open_link
from firmware_bridge.recorder import Recorded, Recorder, Settings
from firmware_bridge.sending import Sender
from firmware_bridge.virtual import Faults, native_board, python_board, replayed
from firmware_bridge.virtual.native import build, can_build
from firmware_bridge.virtual.serve import MakeBoard, PtyEndpoint, SocketEndpoint

MODEL = Path(__file__).parent.parent / "vectors" / "micro.safetensors"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := can_build():
        pytest.skip(f"the C library cannot be built: {why}")
    return build(tmp_path_factory.mktemp("posix"))


@pytest.fixture(params=["c", "python"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "c":
        request.getfixturevalue("program")
    return str(request.param)


def booting(kind: str, request: pytest.FixtureRequest, flash: Path, faults: Faults, speed: float) -> MakeBoard:
    if kind == "python":
        return python_board(faults)
    return native_board(faults, request.getfixturevalue("program"), speed, flash)


def record(folder: Path, address: str, seconds: float, speed: float) -> Recorded:
    links = [(open_link(address), lambda: open_link(address))]
    return Recorder(folder, links, Settings(min_free_bytes=0, seconds=seconds, speed=speed)).record()


def test_a_board_plays_its_signals_whole(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    faults, signals = Faults(), [ramp(seconds=10), ramp("acc", 10, 40.0, 2)]
    boot = booting(kind, request, tmp_path / "flash", faults, 10)
    with board(SocketEndpoint.tcp("127.0.0.1", 0), signals, faults, 10, boot=boot) as address:
        done = record(tmp_path / "r", address, 12, 10)
    np.testing.assert_array_equal(samples_of(tmp_path / "r")[:, 2], np.arange(1000) * 0.5)
    np.testing.assert_array_equal(samples_of(tmp_path / "r", "acc")[:, 1], np.arange(400) * 0.5)
    counts = done.counts[address]
    assert (counts["streams"]["gyro"]["lost"], counts["faults"]) == (0, {})


def test_a_board_that_restarts_goes_on_with_its_signals(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    faults = Faults(reboot_every_s=12.0, stall_every_s=7.0, stall_s=2.0)
    boot = booting(kind, request, tmp_path / "flash", faults, 10)
    with board(PtyEndpoint(), [ramp(seconds=30)], faults, 10, boot=boot) as address:
        done = record(tmp_path / "r", address, 32, 10)
    values = samples_of(tmp_path / "r")[:, 0] * 2
    assert done.counts[address]["streams"]["gyro"]["reboots"] == 2
    assert (np.diff(values) > 0).all()
    assert len(values) > 2600


def test_a_model_outlasts_the_resets_of_a_board_and_another_thing_is_refused(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = from_bytes(MODEL.read_bytes())["int8.blob"].tobytes()
    faults = Faults(reboot_every_s=0.2)
    boot = booting(kind, request, tmp_path / "flash", faults, 1.0)
    with board(SocketEndpoint.tcp("127.0.0.1", 0), [ramp(seconds=60)], faults, boot=boot) as address:
        link = KeptLink(open_link(address), lambda: open_link(address))
        assert Sender(link, model, patience_s=10).send().already is False
        assert Sender(link, model, patience_s=10).send().already is True
        with pytest.raises(ModelError):
            Sender(link, b"ECMM" + bytes(500), patience_s=10).send()
        assert Sender(link, model, patience_s=10).send().already is True
        link.close()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.safetensors"
    values = np.random.default_rng(0).normal(size=(5, 32, 2)).astype(np.float32)
    write_pairs(path, {"gyro": values, "acc": values[:, :16]}, rate_hz={"gyro": 16.0}, units={"gyro": "rad/s"})
    return path


def test_a_pairs_file_is_played_window_after_window(pairs: Path, tmp_path: Path) -> None:
    options = (
        "--replay",
        str(pairs),
        "--sensors",
        "gyro",
        "--tcp",
        "127.0.0.1:0",
        "--speed",
        "20",
        "--board",
        "python",
    )
    with board_process(*options) as address:
        record(tmp_path / "r", address, 12, 20)
    (signal,) = replayed(pairs, ["gyro"])
    np.testing.assert_allclose(samples_of(tmp_path / "r"), signal.raw * signal.hello.scale, rtol=1e-6)
    assert (signal.hello.unit, len(signal.raw)) == ("rad/s", 160)


def test_what_cannot_be_played_is_told(pairs: Path) -> None:
    with pytest.raises(DataError, match="replayed"):
        replayed(pairs)
    with pytest.raises(UsageError, match="emg"):
        replayed(pairs, ["emg"])
    with pytest.raises(UsageError, match="loss"):
        Faults(loss=1.5)
    with pytest.raises(UsageError, match="jitter"):
        Faults(jitter_s=-1.0)
