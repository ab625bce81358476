from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge_cmcl.data.recordings import Wanted, read_table
from edge_cmcl.errors import DataError

WANTED = Wanted(times={("t", "s")}, numbers={"x"})


def archive(save: object = np.savez_compressed) -> bytes:
    data = io.BytesIO()
    assert callable(save)
    save(data, t=np.arange(50.0), x=np.linspace(0, 1, 50))
    return data.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_to_a_numpy_archive_is_a_bug_of_ours(tmp_path: Path, save: object) -> None:
    good, chance, refused = archive(save), random.Random(1), 0
    path = tmp_path / "run.npz"
    for _ in range(400):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        try:
            read_table(path, WANTED)
        except DataError:
            refused += 1
    assert refused > 100


def test_an_encrypted_or_oddly_compressed_numpy_archive_is_bad_data(tmp_path: Path) -> None:
    good = archive()
    local, central = good.index(b"PK\x03\x04"), good.index(b"PK\x01\x02")
    for offset, value in ((6, 1), (8, 99)):  # flag "encrypted"; a compression method that nobody has
        bad = bytearray(good)
        bad[local + offset] = bad[central + offset + 2] = value
        path = tmp_path / f"{value}.npz"
        path.write_bytes(bad)
        with zipfile.ZipFile(path) as opened, pytest.raises((RuntimeError, NotImplementedError)):
            opened.read("t.npy")
        with pytest.raises(DataError, match="not a readable NumPy file") as caught:
            read_table(path, WANTED)
        assert caught.value.got


def test_a_single_array_that_is_called_an_archive_is_bad_data(tmp_path: Path) -> None:
    np.save(tmp_path / "run.npy", np.zeros((20, 2)))
    (tmp_path / "run.npy").rename(tmp_path / "run.npz")
    with pytest.raises(DataError, match="not a readable NumPy file"):
        read_table(tmp_path / "run.npz", WANTED)
