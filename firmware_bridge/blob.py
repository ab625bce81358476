"""Reading and writing the blob of a micro model; the format is BLOB.md, its arithmetic is in `micro`.

Readers are strict: what passes has the sizes, limits and ranges that the C library relies on.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.errors import FormatError, UsageError

MAGIC, VERSION = b"ECMM", 1
FLOAT32, INT8 = "float32", "int8"
PRECISIONS = (FLOAT32, INT8)

LENGTH = 7  # taps of a kernel along time
STATISTICS = 3  # features of a kernel: share of positive outputs, maximum, mean absolute output
WIDTH_UNIT = 12

MAX_BYTES = 1 << 24
MAX_CHANNELS = 1024
MIN_SAMPLES, MAX_SAMPLES = 16, 4096
MAX_WIDTH = 1020
MAX_DIMENSIONS = 1024
MAX_LABELS = 1024
MAX_NAME_BYTES = 1 << 20
MAX_WEIGHT_SUM = 32767
MAX_BIAS = 1 << 30
MAX_SHIFT = 47
INPUT_SHIFTS = (-16, 15)

_HEADER = struct.Struct("<4sHBBIHHHHIHhIff36s32s")
_DILATIONS = (1, 2, 4, 8)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HINT = "make the blob again with `edge-cmcl blob`"

Arrays = dict[str, Any]


@dataclass(frozen=True)
class MicroModel:
    """What a blob holds. K kernels with P taps in all, w = 3 K features, d dimensions, L labels; dtypes as in BLOB.md.

    Attributes:
        precision: "float32" or "int8".
        modality: name of the sensor.
        generation: 32 bytes, SHA-256 of the manifest that the model was made from.
        channels: C.
        samples: T.
        scale: the encoder sees value / scale.
        input_shift: s; 0 for float32.
        dilations: (K,) uint8.
        counts: (K,) uint16, channels that a kernel sees.
        taps: (P,) uint16, those channels, kernel by kernel.
        weights: (P, 7) float32 or int16.
        biases: (K,) float32 or int32.
        means: (w,) float32 or int32.
        factors: (w,) float32 or uint16.
        shifts: (w,) uint8; None for float32.
        head: (d, w) float32 or int8.
        row_factors: (d,) uint16; None for float32.
        label_step: see BLOB.md.
        label_names: L names.
        labels: (L, d) float32 or int8.
    """

    precision: str
    modality: str
    generation: bytes
    channels: int
    samples: int
    scale: float
    input_shift: int
    dilations: NDArray[np.uint8]
    counts: NDArray[np.uint16]
    taps: NDArray[np.uint16]
    weights: NDArray[Any]
    biases: NDArray[Any]
    means: NDArray[Any]
    factors: NDArray[Any]
    shifts: NDArray[np.uint8] | None
    head: NDArray[Any]
    row_factors: NDArray[np.uint16] | None
    label_step: float
    label_names: tuple[str, ...]
    labels: NDArray[Any]

    @property
    def width(self) -> int:
        """Number of features, w."""
        return int(self.head.shape[1])

    @property
    def dimensions(self) -> int:
        """Numbers of an embedding, d."""
        return int(self.head.shape[0])


@dataclass(frozen=True)
class _Counts:
    """The counts of a header, from which the place of every section follows."""

    precision: str
    channels: int
    samples: int
    width: int
    dimensions: int
    taps: int
    labels: int
    name_bytes: int

    def sections(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Return name, NumPy dtype and shape of every section, in the order of BLOB.md."""
        whole = self.precision == INT8
        d, w, k, p, n = self.dimensions, self.width, self.width // STATISTICS, self.taps, self.labels
        found = [
            ("kernels", "<u1", (k, 4)),
            ("taps", "<u2", (p,)),
            ("weights", "<i2" if whole else "<f4", (p, LENGTH)),
            ("biases", "<i4" if whole else "<f4", (k,)),
            ("means", "<i4" if whole else "<f4", (w,)),
            ("factors", "<u2" if whole else "<f4", (w,)),
            ("shifts", "<u1", (w,)) if whole else None,
            ("head", "<i1" if whole else "<f4", (d, w)),
            ("row_factors", "<u2", (d,)) if whole else None,
            ("labels", "<i1" if whole else "<f4", (n, d)),
            ("name_ends", "<u4", (n,)),
            ("names", "<u1", (self.name_bytes,)),
        ]
        return [section for section in found if section is not None]


def write(model: MicroModel) -> bytes:
    """Return the blob of `model`.

    Raises:
        UsageError: the model is beyond a limit of the format.
    """
    names = [name.encode() + b"\0" for name in model.label_names]
    ends = np.cumsum([len(name) for name in names], dtype=np.uint32) if names else np.zeros(0, np.uint32)
    text = b"".join(names)
    taps = len(model.taps)
    counts = _Counts(
        model.precision, model.channels, model.samples, model.width, model.dimensions, taps, len(names), len(text)
    )
    try:
        _check_counts(counts)
    except FormatError as error:
        hint = "a micro model cannot be made of this sensor; a smaller --width may help"
        message = f"{model.modality} is too large for a micro model: {error.message}"
        raise UsageError(message, expected=error.expected, got=error.got, hint=hint) from error
    columns = (model.dilations, np.zeros_like(model.dilations), model.counts & 0xFF, model.counts >> 8)
    arrays: Arrays = {
        "kernels": np.stack(columns, axis=1),
        **{name: getattr(model, name) for name, _, _ in counts.sections() if hasattr(model, name)},
        "name_ends": ends,
        "names": np.frombuffer(text, np.uint8),
    }
    body = bytearray()
    for name, dtype, shape in counts.sections():
        body += np.ascontiguousarray(arrays[name], dtype=dtype).reshape(shape).tobytes()
        body += bytes(-len(body) % 4)
    header = _HEADER.pack(
        MAGIC, VERSION, PRECISIONS.index(model.precision), 0, _HEADER.size + len(body) + 4,
        model.channels, model.samples, model.width, model.dimensions, taps, len(names), model.input_shift, len(text),
        model.scale, model.label_step, model.modality.encode(), model.generation,
    )  # fmt: skip
    data = header + bytes(body)
    data += struct.pack("<I", zlib.crc32(data))
    read(data)  # what cannot be read must not be written
    return data


def read(data: bytes) -> MicroModel:
    """Return the micro model in `data`, its arrays views of it.

    Raises:
        FormatError: `data` is no blob of this version, or is damaged.
    """
    if len(data) < _HEADER.size + 4 or data[:4] != MAGIC:
        raise FormatError("this is no micro model", expected=f"{MAGIC!r} and a header", got=repr(data[:4]), hint=_HINT)
    (
        _, version, precision, reserved, size, channels, samples, width, dimensions,
        taps, labels, input_shift, name_bytes, scale, label_step, modality, generation,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    _check("version", version == VERSION, VERSION, version)
    _check("size", size == len(data) <= MAX_BYTES, f"{len(data)}, at most {MAX_BYTES}", size)
    crc = struct.unpack_from("<I", data, len(data) - 4)[0]
    _check("CRC-32", crc == zlib.crc32(data[:-4]), hex(zlib.crc32(data[:-4])), hex(crc))
    _check("precision", precision < len(PRECISIONS) and reserved == 0, "0 or 1, then 0", (precision, reserved))
    counts = _Counts(PRECISIONS[precision], channels, samples, width, dimensions, taps, labels, name_bytes)
    _check_counts(counts)
    arrays = _sections(data, counts)
    kernels = arrays.pop("kernels")
    _check("kernels' second byte", not kernels[:, 1].any(), 0, "another")
    model = MicroModel(
        precision=counts.precision,
        modality=_modality(modality),
        generation=generation,
        channels=channels,
        samples=samples,
        scale=scale,
        input_shift=input_shift,
        dilations=kernels[:, 0],
        counts=kernels[:, 2:].copy().view("<u2")[:, 0],
        label_names=_label_names(arrays.pop("name_ends"), arrays.pop("names").tobytes()),
        label_step=label_step,
        **{"shifts": None, "row_factors": None, **arrays},
    )
    _check_values(model)
    return model


def _sections(data: bytes, counts: _Counts) -> Arrays:
    arrays, at = {}, _HEADER.size
    for name, dtype, shape in counts.sections():
        items = int(np.prod(shape, dtype=np.int64))
        end = at + items * np.dtype(dtype).itemsize
        _check("size", end + -end % 4 + 4 <= len(data), f"at least {end + 4}", len(data))
        arrays[name] = np.frombuffer(data, dtype, items, at).reshape(shape)
        _check("padding", not any(data[end : end + -end % 4]), "zeros", "others")
        at = end + -end % 4
    _check("size", at + 4 == len(data), at + 4, len(data))
    return arrays


def _check_counts(counts: _Counts) -> None:
    kernels = counts.width // STATISTICS
    for what, value, low, high in (
        ("channels", counts.channels, 1, MAX_CHANNELS),
        ("samples of a window", counts.samples, MIN_SAMPLES, MAX_SAMPLES),
        ("width", counts.width, WIDTH_UNIT, MAX_WIDTH),
        ("dimensions", counts.dimensions, 1, MAX_DIMENSIONS),
        ("taps", counts.taps, kernels, kernels * counts.channels),
        ("labels", counts.labels, 0, MAX_LABELS),
        ("bytes of label names", counts.name_bytes, 0, MAX_NAME_BYTES),
    ):
        _check(what, low <= value <= high, f"{low} to {high}", value)
    _check("width", counts.width % WIDTH_UNIT == 0, f"a multiple of {WIDTH_UNIT}", counts.width)


def _check_values(model: MicroModel) -> None:
    _check("scale", bool(0 < model.scale < np.inf), "a finite number above 0", model.scale)
    step = model.label_step
    _check("label step", bool(0 <= step < np.inf) and (bool(model.label_names) or step == 0), "finite, >= 0", step)
    _check("dilations", bool(np.isin(model.dilations, _DILATIONS).all()), str(_DILATIONS), "another")
    seen = model.counts.astype(np.int64)
    _check("channels of kernels", bool(((seen >= 1) & (seen <= model.channels)).all()), f"1 to {model.channels}", seen)
    _check("taps", int(seen.sum()) == len(model.taps), len(model.taps), int(seen.sum()))
    _check("channel", bool((model.taps < model.channels).all()), f"below {model.channels}", int(model.taps.max()))
    if model.precision == FLOAT32:
        _check("input shift", model.input_shift == 0, 0, model.input_shift)
        for name in ("weights", "biases", "means", "factors", "head", "labels"):
            _check(name, bool(np.isfinite(getattr(model, name)).all()), "finite numbers", "NaN or infinity")
        return
    low, high = INPUT_SHIFTS
    _check("input shift", low <= model.input_shift <= high, f"{low} to {high}", model.input_shift)
    sums = np.add.reduceat(np.abs(model.weights.astype(np.int64)).sum(axis=1), np.cumsum(seen) - seen)
    _check("weights of a kernel", bool((sums <= MAX_WEIGHT_SUM).all()), f"at most {MAX_WEIGHT_SUM}", int(sums.max()))
    largest = int(np.abs(model.biases.astype(np.int64)).max())
    _check("bias", largest <= MAX_BIAS, f"within {MAX_BIAS}", largest)
    shifts = np.asarray(model.shifts)
    _check("shift", int(shifts.max()) <= MAX_SHIFT, f"at most {MAX_SHIFT}", int(shifts.max()))


def _modality(field: bytes) -> str:
    name = field.rstrip(b"\0")
    ok = len(name) <= 32 and _NAME.fullmatch(name.decode("latin-1")) is not None
    _check("modality", ok, _NAME.pattern, name)
    return name.decode()


def _label_names(ends: NDArray[np.uint32], text: bytes) -> tuple[str, ...]:
    names, start = [], 0
    for end in ends.tolist():
        _check("end of a label name", start < end <= len(text), f"{start + 1} to {len(text)}", end)
        name = text[start:end]
        _check("label name", name.find(b"\0") == len(name) - 1, "one zero, at the end", name[:40])
        try:
            names.append(name[:-1].decode())
        except UnicodeDecodeError as error:
            raise FormatError("a label name is not UTF-8", expected="UTF-8", got=repr(name[:40]), hint=_HINT) from error
        start = end
    _check("end of the last label name", start == len(text), len(text), start)
    return tuple(names)


def _check(what: str, right: bool, expected: object, got: object) -> None:
    if not right:
        message = f"{what} of a micro model is wrong"
        raise FormatError(message, expected=str(expected), got=str(got), hint=_HINT)
