from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from boards import Board, chirp, write
from mcap.writer import Writer

from firmware_bridge.recording import is_ours
from firmware_bridge.retention import FileRead, delete


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    board = Board()
    samples = board.samples(board.stream("acc"), chirp, 0, 1)
    return [write(tmp_path / "rec" / f"00000{i}.mcap", samples) for i in range(3)]


def read(files: list[Path]) -> list[FileRead]:
    return [FileRead.of(path) for path in files]


def test_a_recording_goes_with_its_folder(files: list[Path]) -> None:
    done = delete(files[0].parent, read(files))
    assert (done.deleted, done.kept) == ([str(path) for path in files], {})
    assert not files[0].parent.exists()


def test_the_folder_of_a_single_file_stays(files: list[Path]) -> None:
    for path in files[1:]:
        path.unlink()
    delete(files[0], read(files[:1]))
    assert list(files[0].parent.iterdir()) == []


def test_files_that_were_written_to_since_stay_with_the_folder(files: list[Path]) -> None:
    seen = read(files)
    with files[1].open("ab") as file:
        file.write(b"more")
    done = delete(files[0].parent, seen)
    assert done.kept == {str(files[1]): "it was written to after it was read"}
    assert list(files[0].parent.iterdir()) == [files[1]]


def test_files_that_came_since_stay(files: list[Path]) -> None:
    delete(files[0].parent, read(files[:2]))
    assert list(files[0].parent.iterdir()) == [files[2]]


def test_a_file_that_a_recorder_holds_stays(files: list[Path]) -> None:
    with files[2].open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = delete(files[0].parent, read(files))
    assert done.kept == {str(files[2]): "it is being written"}


def test_links_and_foreign_files_stay(files: list[Path], tmp_path: Path) -> None:
    target = files[0].rename(tmp_path / "elsewhere.mcap")
    files[0].symlink_to(target)
    with files[1].open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2", library="other")
        writer.finish()
    files[2].write_bytes(b"noise")
    done = delete(files[0].parent, read(files))
    assert done.deleted == []
    assert done.kept == {
        str(files[0]): "it is a link, or no file",
        str(files[1]): "it is no recording of edge-cmcl",
        str(files[2]): "it is no recording of edge-cmcl",
    }
    assert target.exists()


def test_what_is_gone_already_is_told(files: list[Path]) -> None:
    seen = read(files)
    files[0].unlink()
    assert list(delete(files[0].parent, seen).kept) == [str(files[0])]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may delete everything")
def test_what_may_not_be_deleted_is_told(files: list[Path]) -> None:
    files[0].parent.chmod(0o500)
    done = delete(files[0].parent, read(files))
    files[0].parent.chmod(0o700)
    assert len(done.kept) == 3


def test_a_recording_is_known_by_its_header(files: list[Path], tmp_path: Path) -> None:
    assert is_ours(files[0])
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(files[0].read_bytes()[:200])
    assert is_ours(cut)
    cut.write_bytes(b"")
    assert not is_ours(cut)
    assert not is_ours(tmp_path)
