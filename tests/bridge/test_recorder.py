"""Recording: what comes is on the disk, whatever happens to the board, the link, the process and the disk."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_boards import board, events_of, ramp, samples_of

from edge_cmcl.errors import RemoteError, StorageError, UsageError
from firmware_bridge import segments
from firmware_bridge.links import open_link
from firmware_bridge.recorder import Recorded, Recorder, Settings
from firmware_bridge.recording import Exchange, Label, RecordingFile, files_of
from firmware_bridge.virtual import Faults
from firmware_bridge.virtual.serve import SocketEndpoint


def record(folder: Path, *addresses: str, **settings: Any) -> Recorded:
    links = [(open_link(address), lambda address=address: open_link(address)) for address in addresses]
    return Recorder(folder, links, Settings(**{"min_free_bytes": 0, **settings})).record()


def tcp() -> SocketEndpoint:
    return SocketEndpoint.tcp("127.0.0.1", 0)


def test_every_sample_is_recorded_in_its_unit_with_clock_and_labels(tmp_path: Path) -> None:
    with board(tcp(), [ramp(seconds=1.5), ramp("acc", 1.5, 50.0)]) as address:
        done = record(tmp_path / "r", address, seconds=2.2, label="idle", script=[(1.5, "late"), (0.8, "busy")])
    np.testing.assert_array_equal(samples_of(tmp_path / "r")[:, 0], np.arange(150) * 0.5)
    assert len(samples_of(tmp_path / "r", "acc")) == 75
    events = events_of(tmp_path / "r")
    assert [event.label for event in events if isinstance(event, Label)] == ["idle", "busy", "late"]
    assert sum(isinstance(event, Exchange) for event in events) >= 3
    counts = done.counts[address]["streams"]["gyro"]
    assert (counts["samples"], counts["lost"], done.stopped) == (150, 0, "seconds")


def test_loss_repetition_noise_and_reboots_are_counted_and_what_came_is_right(tmp_path: Path) -> None:
    faults = Faults(loss=0.1, bit_errors=0.1, duplicates=0.1, reboot_every_s=25.0, seed=3)
    with board(tcp(), [ramp(seconds=60.0)], faults, speed=20.0) as address:
        done = record(tmp_path / "r", address, seconds=70.0, speed=20.0)
    counts = done.counts[address]
    stream = counts["streams"]["gyro"]
    assert stream["reboots"] == 2
    assert 0.05 < stream["lost"] / (stream["lost"] + stream["taken"]) < 0.3
    assert stream["duplicates"] > 50
    assert counts["faults"]["bad_crc"] + counts["faults"].get("bad_cobs", 0) > 50
    values = samples_of(tmp_path / "r")[:, 0] / 0.5
    assert len(values) == stream["samples"]
    assert (np.diff(values) > 0).all()  # none twice, none wrong, none out of order
    assert values.max() < 6000


def test_two_boards_with_a_sensor_of_the_same_name_are_not_mixed(tmp_path: Path) -> None:
    with board(tcp(), [ramp()]) as one, board(tcp(), [ramp(), ramp("acc")]) as other:
        done = record(tmp_path / "r", one, other, seconds=1.0)
    faults = [done.counts[address]["faults"].get("name_taken", 0) for address in (one, other)]
    assert (faults[0] == 0) != (faults[1] == 0)
    assert (np.diff(samples_of(tmp_path / "r")[:, 0]) > 0).all()
    assert len(samples_of(tmp_path / "r", "acc"))


def test_files_follow_each_other_and_each_stands_for_itself(tmp_path: Path) -> None:
    with board(tcp(), [ramp(seconds=60, rate_hz=200.0)], speed=40) as address:
        done = record(tmp_path / "r", address, seconds=70, speed=40, rotate_bytes=20_000, fsync_s=0.1)
    files = files_of(tmp_path / "r")
    assert done.files == len(files) >= 3
    assert done.bytes == sum(path.stat().st_size for path in files)
    for path in files:
        read = RecordingFile(path)
        assert list(read.events())
        assert (read.cut, bool(read.counts)) == ("", True)
    np.testing.assert_array_equal(samples_of(tmp_path / "r")[:, 0], np.arange(12_000) * 0.5)


def test_a_board_that_goes_and_comes_back_is_recorded_on(tmp_path: Path) -> None:
    place = tmp_path / "board"
    links = []
    with board(SocketEndpoint.unix(place), [ramp(seconds=60)]) as address:
        links = [(open_link(address), lambda: open_link(address))]
        recorder = Recorder(tmp_path / "r", links, Settings(min_free_bytes=0, seconds=20.0))
        found: list[Recorded] = []
        thread = threading.Thread(target=lambda: found.append(recorder.record()))
        thread.start()
        time.sleep(1.0)
    with board(SocketEndpoint.unix(place), [ramp(seconds=60)], Faults(seed=9)) as address:
        time.sleep(1.5)
        recorder.stop()
        thread.join()
    counts = found[0].counts[address]
    assert (counts["reconnects"], counts["streams"]["gyro"]["reboots"], found[0].stopped) == (1, 1, "asked")
    assert len({event.boot for event in events_of(tmp_path / "r") if isinstance(event, Exchange)}) == 2


@pytest.mark.parametrize("sends", [b"", b"noise" * 100 + b"\0" * 3])
def test_where_no_sample_comes_it_is_told_and_nothing_is_left(tmp_path: Path, sends: bytes) -> None:
    (tmp_path / "line.bin").write_bytes(sends)
    with pytest.raises(RemoteError, match="no sample"):
        record(tmp_path / "r", f"file://{tmp_path}/line.bin")
    assert not (tmp_path / "r").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    (tmp_path / "line.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="not empty"):
        record(tmp_path, f"file://{tmp_path}/line.bin")


def test_before_the_disk_is_full_the_recording_ends_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()

    class Usage:
        free = property(lambda self: 10**9 if time.monotonic() < began + 1.5 else 10)

    monkeypatch.setattr(segments.shutil, "disk_usage", lambda path: Usage())
    with board(tcp(), [ramp(seconds=30)]) as address, pytest.raises(StorageError, match="nearly full"):
        record(tmp_path / "r", address, min_free_bytes=1000, fsync_s=0.2)
    (path,) = files_of(tmp_path / "r")
    read = RecordingFile(path)
    assert len(list(read.events())) > 5
    assert (read.cut, bool(read.counts)) == ("", True)


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, began = os.fsync, time.monotonic()

    def fsync(descriptor: int) -> None:
        if time.monotonic() > began + 1.2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with board(tcp(), [ramp(seconds=30)]) as address, pytest.raises(StorageError, match="cannot write"):
        record(tmp_path / "r", address, fsync_s=0.2)
    assert len(samples_of(tmp_path / "r")) > 50
