"""Where the files of a data set come from, what is refused, and what is left behind."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import published
import pytest

from edge_cmcl.data.pairs import open_pairs
from edge_cmcl.data.prepare import prepare
from edge_cmcl.errors import DataError, StorageError, UsageError


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    published.hydraulic_rig(tmp_path / "download" / "some" / "where")
    return tmp_path / "download"


def _tar(folder: Path, archive: Path, mode: str) -> Path:
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, arcname="anything")
    return archive


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_an_archive_gives_the_same_files_as_its_folder(rig: Path, tmp_path: Path, ending: str, mode: str) -> None:
    prepare("hydraulic", rig, tmp_path / "a")
    prepare("hydraulic", _tar(rig, tmp_path / f"rig.{ending}", mode), tmp_path / "b")
    for name in ("train.safetensors", "test.safetensors"):
        with open_pairs(tmp_path / "a" / name) as a, open_pairs(tmp_path / "b" / name) as b:
            assert (a.n, a.modalities, a.source) == (b.n, b.modalities, b.source)
            for modality in a.modalities:
                np.testing.assert_array_equal(a.read(modality), b.read(modality))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["test.safetensors", "train.safetensors"]


@pytest.mark.parametrize("name", ["../TS1.txt", "/tmp/TS1.txt", "a/../../TS1.txt"])
def test_an_archive_with_a_path_outside_itself_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"1\t2"))
    with pytest.raises(DataError, match="not safe"):
        prepare("hydraulic", tmp_path / "evil.tar", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar"]


def test_links_in_an_archive_are_not_followed(rig: Path, tmp_path: Path) -> None:
    (rig / "some" / "where" / "VS1.txt").unlink()
    (rig / "some" / "where" / "VS1.txt").symlink_to("TS1.txt")
    with pytest.raises(DataError) as caught:
        prepare("hydraulic", _tar(rig, tmp_path / "rig.tar", "w"), tmp_path / "out")
    assert "VS1.txt" in caught.value.got


def test_a_member_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("TS1.txt")
    member.size = 1 << 40
    (tmp_path / "huge.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="not safe"):
        prepare("hydraulic", tmp_path / "huge.tar", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_refused(rig: Path, tmp_path: Path, mode: str, share: float) -> None:
    archive = _tar(rig, tmp_path / "rig.archive", mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole.rstrip(b"\0")))])
    with pytest.raises(DataError):
        prepare("hydraulic", archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_missing_empty_or_of_another_kind_is_named(rig: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.zip").write_bytes(b"PK\x03\x04")
    for source in ("nowhere", "empty", "note.zip", "download"):
        with pytest.raises(DataError, match=source) as caught:
            prepare("utd_mhad", tmp_path / source, tmp_path / "out")
        assert caught.value.expected
    assert "aA_sS_tT_inertial.mat" in caught.value.expected
    assert not (tmp_path / "out").exists()


def test_a_trial_that_is_there_twice_is_refused(rig: Path, tmp_path: Path) -> None:
    published.hydraulic_rig(rig / "copy")
    with pytest.raises(DataError, match="twice"):
        prepare("hydraulic", rig, tmp_path / "out")


def test_a_download_without_the_test_part_is_refused(tmp_path: Path) -> None:
    published.sisfall_trial(tmp_path / "sis")
    with pytest.raises(DataError, match="no test window"):
        prepare("sisfall", tmp_path / "sis", tmp_path / "out")


def test_an_error_leaves_what_was_prepared_before(rig: Path, tmp_path: Path) -> None:
    prepare("hydraulic", rig, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (rig / "some" / "where" / "SE.txt").write_text("1\t2\n")
    with pytest.raises(DataError, match=r"SE\.txt"):
        prepare("hydraulic", rig, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prepare("utd", tmp_path, tmp_path / "out")
    assert "utd_mhad" in caught.value.expected


def test_an_output_that_is_a_file_is_a_storage_error(rig: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StorageError):
        prepare("hydraulic", rig, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_progress_reaches_its_total(rig: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    prepare("hydraulic", rig, tmp_path / "out", lambda *call: calls.append(call))
    assert calls == [("prepare", done, 12) for done in range(1, 13)]
