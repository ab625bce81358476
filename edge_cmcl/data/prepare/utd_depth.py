"""The .mat files of UTD-MHAD, and its depth videos in either of two forms.

Published: `d_depth` (240, 320, T) uint16 millimetres, 0 where the camera saw nothing or the background was removed.
Derived, small: one .npz with an array (T / 2, 60, 80) uint16 per trial, made by `block_means` and rounded to 8 mm.
Both become frames of 30 x 40 cells by plain 2 x 2 means: the universal encoder's own pooling to 10 x 10 cells gives
the same numbers from those as from 60 x 80, and a file of all trials stays below 150 MB.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged
from edge_cmcl.errors import DataError, MissingExtraError

HEIGHT, WIDTH = 240, 320
BLOCK = 4
MIN_READINGS = 8
MM_PER_M = 1000.0

Key = tuple[int, int, int]
"""Subject, action, trial."""


class DepthFiles:
    """The depth videos of all trials, each from its .mat file or, where there is none, from the small .npz.

    False when there is neither. A context manager.

    Raises:
        DataError: the .npz is damaged.
    """

    def __init__(self, videos: Mapping[Key, Found], small: Found | None) -> None:
        self._videos = videos
        self._small = None if small is None else (small, _open_npz(small))

    def __bool__(self) -> bool:
        return bool(self._videos) or self._small is not None

    def __contains__(self, key: Key) -> bool:
        return key in self._videos or (self._small is not None and _npz_name(key) in self._small[1].files)

    def read(self, key: Key) -> NDArray[np.float32]:
        """Return the frames of one trial, float32 (T / 2, 30, 40) in metres.

        Raises:
            DataError: the trial's frames are damaged or of another shape.
        """
        if key in self._videos or self._small is None:
            frames = _from_mat(self._videos[key])
        else:
            frames = _from_npz(*self._small, key)
        t, height, width = frames.shape
        cells = frames.reshape(t, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
        metres: NDArray[np.float32] = cells / np.float32(MM_PER_M)
        return metres

    def __enter__(self) -> DepthFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._small is not None:
            self._small[1].close()


def block_means(depth: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return every second frame as 4 x 4 block means over the readings that are not 0; 0 where fewer than 8 are.

    Args:
        depth: (240, 320, T) millimetres.

    Returns:
        float32 (T / 2 rounded up, 60, 80) millimetres.
    """
    frames = np.moveaxis(depth[:, :, ::2], 2, 0)
    blocks = frames.reshape(len(frames), HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK)
    readings = np.count_nonzero(blocks, axis=(2, 4))
    totals = blocks.sum(axis=(2, 4), dtype=np.float32)
    return np.where(readings >= MIN_READINGS, totals / np.maximum(readings, 1), 0.0).astype(np.float32)


def load_mat(file: Found, variable: str) -> NDArray[Any]:
    """Return one variable of a MATLAB file.

    Raises:
        DataError: the file is not a MATLAB file, or has no such numeric variable.
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        hint = "pip install '.[host]' in a checkout of edge-cmcl"
        raise MissingExtraError("reading .mat files needs scipy", expected="scipy", got="none", hint=hint) from error
    try:
        content = loadmat(str(file.path), variable_names=[variable])
    except Exception as error:  # scipy raises whatever its parser trips over in a damaged file
        raise damaged(file, "a MATLAB 5 file", f"{type(error).__name__}: {error}") from error
    value = content.get(variable)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise damaged(file, f"a numeric variable {variable}", "none")
    return value


def _from_mat(file: Found) -> NDArray[np.float32]:
    depth = load_mat(file, "d_depth")
    if depth.ndim != 3 or depth.shape[:2] != (HEIGHT, WIDTH) or depth.shape[2] < 3:
        raise damaged(file, f"d_depth of shape ({HEIGHT}, {WIDTH}, T)", str(depth.shape))
    return block_means(depth)


def _open_npz(file: Found) -> NpzFile:
    expected = "an .npz file with an array aA_sS_tT per trial"
    try:
        # Given a path, numpy leaves a damaged file open.
        npz = np.load(io.BytesIO(file.path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(file, expected, str(error)) from error
    if not isinstance(npz, NpzFile):
        raise damaged(file, expected, "a single array")
    return npz


def _from_npz(file: Found, npz: NpzFile, key: Key) -> NDArray[np.float32]:
    name = _npz_name(key)
    shape = (HEIGHT // BLOCK, WIDTH // BLOCK)
    try:
        frames = np.asarray(npz[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _bad_array(file, name, str(error)) from error
    if frames.ndim != 3 or frames.shape[1:] != shape or len(frames) < 2 or frames.dtype.kind not in "fiu":
        raise _bad_array(file, name, f"{frames.dtype} {frames.shape}")
    return frames.astype(np.float32)


def _bad_array(file: Found, name: str, got: str) -> DataError:
    return damaged(file, f"array {name} of shape (T, {HEIGHT // BLOCK}, {WIDTH // BLOCK})", got)


def _npz_name(key: Key) -> str:
    subject, action, trial = key
    return f"a{action}_s{subject}_t{trial}"
