"""Bytes of a bundle's tensor blobs and what they mean: adapters, sketches, golden vectors, label features.

Each is one safetensors file (FORMAT.md, "Payloads"). Names, dtypes and shapes are checked in the header before any
tensor is read. Reading raises `FormatError`: a blob that is not what its media type says is damaged, not user input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from edge_cmcl import tensors
from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import canonical
from edge_cmcl.bundle.documents import DeviceId, Digest, ModalityName, OriginId, OwnModel, Timestamp, from_json
from edge_cmcl.bundle.tensor_header import Header, metadata, read_header
from edge_cmcl.continual.origin import Origin
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.errors import DataError, FormatError

Array = NDArray[Any]

_NotNegative = Annotated[float, Field(ge=0)]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=limits.MAX_LABEL_LENGTH)]


@dataclass(frozen=True)
class Adapter:
    """A linear adapter and the statistics of the features it takes.

    Attributes:
        weight: W, (d, width) float32.
        mean: (width,) float32, None for text.
        std: (width,) float32, above 0, None for text.
    """

    weight: NDArray[np.float32]
    mean: NDArray[np.float32] | None = None
    std: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Golden:
    """Inputs of an encoder's graph and the outputs they must give, by the graph's names; float32 or int64."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class LabelFeatures:
    """Label names, in the order of their indices, and their features (n, 1024) float32."""

    names: tuple[str, ...]
    features: NDArray[np.float32]


_Absorbed = tuple[OriginId, Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)]]


class _OriginFields(OwnModel):
    """An origin without its rows (FORMAT.md, "Sketch")."""

    id: OriginId
    revision: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)]
    device: DeviceId
    modality: ModalityName
    partners: Annotated[tuple[ModalityName, ...], Field(max_length=limits.MAX_MODALITIES)]
    created: Timestamp
    reference: Digest
    carried: _NotNegative
    weight: Annotated[float, Field(gt=0)]
    absorbed: Annotated[tuple[_Absorbed, ...], Field(max_length=limits.MAX_ORIGINS)]
    n: Annotated[int, Field(ge=1, le=limits.MAX_INTEGER)]
    trace: _NotNegative
    delta: _NotNegative


class _LabelNames(OwnModel):
    names: Annotated[tuple[_Label, ...], Field(min_length=1, max_length=limits.MAX_LABELS)]


def adapter_to_bytes(adapter: Adapter) -> bytes:
    """Serialise an adapter.

    Raises:
        FormatError: shapes disagree, a value is not finite, or a standard deviation is not above 0.
    """
    _check_adapter(adapter, "the adapter")
    parts = {"weight": adapter.weight, "mean": adapter.mean, "std": adapter.std}
    stored = {name: np.asarray(part, dtype=np.float32) for name, part in parts.items() if part is not None}
    return tensors.to_bytes(stored, metadata("adapter"))


def adapter_from_bytes(data: bytes, name: str = "adapter") -> Adapter:
    """Parse an adapter; `name` says in errors which one.

    Raises:
        FormatError: it breaks its format.
    """
    header = read_header(data, "adapter", name)
    wanted = {"weight": ("F32", 2)}
    if len(header.tensors) > 1:
        wanted |= {"mean": ("F32", 1), "std": ("F32", 1)}
    _check_fields(header, {}, name)
    found = _tensors(data, header, wanted, name)
    adapter = Adapter(found["weight"], found.get("mean"), found.get("std"))
    _check_adapter(adapter, name)
    return adapter


def sketch_to_bytes(origin: Origin) -> bytes:
    """Serialise an origin: the rows in float16, the rest as metadata.

    Raises:
        FormatError: a row is not exactly representable in float16, or a field is out of range.
    """
    rows = origin.sketch.rows
    with np.errstate(over="ignore"):
        stored = np.asarray(rows, dtype=np.float16)
    if not np.array_equal(stored, rows):
        raise FormatError("a sketch does not fit its format", expected="finite rows, exactly representable in float16")
    _check_shape(rows.shape, (limits.MAX_SKETCH_ROWS, limits.MAX_WIDTH), "the sketch's rows")
    fields = {
        "id": origin.id,
        "revision": origin.revision,
        "device": origin.device,
        "modality": origin.modality,
        "partners": list(origin.partners),
        "created": origin.created,
        "reference": origin.reference,
        "carried": float(origin.carried),
        "weight": float(origin.weight),
        "absorbed": [list(entry) for entry in origin.absorbed],
        "n": origin.sketch.n,
        "trace": float(origin.sketch.trace),
        "delta": float(origin.sketch.delta),
    }
    from_json(_OriginFields, canonical(fields), f"origin {origin.id[:80]}")
    return tensors.to_bytes({"rows": stored}, metadata("sketch", fields))


def sketch_from_bytes(data: bytes, name: str = "sketch") -> Origin:
    """Parse an origin; `name` says in errors which one.

    Raises:
        FormatError: it breaks its format.
    """
    header = read_header(data, "sketch", name)
    fields = from_json(_OriginFields, canonical(header.fields), f"the origin of {name}")
    rows = _tensors(data, header, {"rows": ("F16", 2)}, name)["rows"].astype(np.float32)
    _check_shape(rows.shape, (limits.MAX_SKETCH_ROWS, limits.MAX_WIDTH), f"the rows of {name}")
    named = fields.model_dump(exclude={"n", "trace", "delta"})
    sketch = Sketch(rows, fields.n, fields.trace, fields.delta)
    return Origin(**named, sketch=sketch)


def golden_to_bytes(golden: Golden) -> bytes:
    """Serialise golden vectors.

    Raises:
        FormatError: too many tensors, a rank above 5, another dtype than float32 and int64, or values not finite.
    """
    stored = {f"input.{name}": array for name, array in golden.inputs.items()}
    stored |= {f"output.{name}": array for name, array in golden.outputs.items()}
    data = tensors.to_bytes(stored, metadata("golden"))
    golden_from_bytes(data, "the golden vectors")
    return data


def golden_from_bytes(data: bytes, name: str = "golden vectors") -> Golden:
    """Parse golden vectors; `name` says in errors which ones.

    Raises:
        FormatError: they break their format.
    """
    header = read_header(data, "golden", name)
    _check_fields(header, {}, name)
    if len(header.tensors) > limits.MAX_GOLDEN_TENSORS:
        expected = f"at most {limits.MAX_GOLDEN_TENSORS} tensors"
        raise FormatError(f"{name} have too many tensors", expected=expected, got=str(len(header.tensors)))
    wanted = {tensor: (dtype, min(len(shape), limits.MAX_RANK)) for tensor, (dtype, shape) in header.tensors.items()}
    odd = [tensor for tensor, (dtype, _) in wanted.items() if dtype not in ("F32", "I64")]
    odd += [tensor for tensor in wanted if not tensor.startswith(("input.", "output."))]
    if odd:
        expected = "tensors input.NAME and output.NAME of F32 or I64"
        raise FormatError(f"{name} have other tensors", expected=expected, got=", ".join(odd)[:200])
    found = _tensors(data, header, wanted, name)
    return Golden(_with_prefix(found, "input."), _with_prefix(found, "output."))


def labels_to_bytes(labels: LabelFeatures) -> bytes:
    """Serialise label names and features.

    Raises:
        FormatError: names repeat or are too long, shapes disagree, or a value is not finite.
    """
    fields = {"names": list(labels.names)}
    _check_labels(labels, "the label features")
    from_json(_LabelNames, canonical(fields), "the label names")
    return tensors.to_bytes({"features": np.asarray(labels.features, np.float32)}, metadata("labels", fields))


def labels_from_bytes(data: bytes, name: str = "label features") -> LabelFeatures:
    """Parse label names and features; `name` says in errors which ones.

    Raises:
        FormatError: they break their format.
    """
    header = read_header(data, "labels", name)
    names = from_json(_LabelNames, canonical(header.fields), f"the names of {name}").names
    labels = LabelFeatures(names, _tensors(data, header, {"features": ("F32", 2)}, name)["features"])
    _check_labels(labels, name)
    return labels


def _tensors(data: bytes, header: Header, wanted: dict[str, tuple[str, int]], name: str) -> dict[str, Array]:
    """Return the tensors of `data`: exactly the `wanted` ones, (dtype, rank) by name, and finite."""
    found = {tensor: (dtype, len(shape)) for tensor, (dtype, shape) in header.tensors.items()}
    if found != wanted:
        raise FormatError(f"{name} holds other tensors", expected=str(wanted)[:300], got=str(found)[:300])
    try:
        arrays = tensors.from_bytes(data, name)
    except DataError as error:
        raise FormatError(error.message, expected=error.expected, got=error.got, hint=error.hint) from error
    for tensor, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FormatError(
                f"{name}: tensor {tensor!r} is not finite", expected="finite numbers", got="NaN or infinity"
            )
    return arrays


def _with_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _check_fields(header: Header, wanted: dict[str, Any], name: str) -> None:
    if header.fields != wanted:
        raise FormatError(f"{name} has other fields", expected=str(wanted), got=str(header.fields)[:200])


def _check_adapter(adapter: Adapter, name: str) -> None:
    weight, mean, std = adapter.weight, adapter.mean, adapter.std
    _check_shape(weight.shape, (limits.MAX_EMBEDDING_DIM, limits.MAX_WIDTH), f"the weight of {name}")
    if (mean is None) != (std is None):
        raise FormatError(f"{name} has one statistic only", expected="mean and std, or neither")
    for part in (mean, std):
        if part is not None and part.shape != weight.shape[1:]:
            raise FormatError(
                f"{name} has statistics of another width", expected=str(weight.shape[1:]), got=str(part.shape)
            )
    values = [part for part in (weight, mean, std) if part is not None]
    if not all(np.isfinite(part).all() for part in values):
        raise FormatError(f"{name} is not finite", expected="finite numbers", got="NaN or infinity")
    if std is not None and not (std > 0).all():
        raise FormatError(
            f"{name} has a standard deviation that is not above 0", expected="above 0", got=str(std.min())
        )


def _check_labels(labels: LabelFeatures, name: str) -> None:
    wanted = (len(labels.names), limits.LABEL_WIDTH)
    if labels.features.shape != wanted:
        raise FormatError(f"{name} have another shape", expected=str(wanted), got=str(labels.features.shape))
    if len(set(labels.names)) != len(labels.names):
        raise FormatError(f"{name} repeat a name", expected="each name once", got=f"{len(labels.names)} names")
    if not np.isfinite(labels.features).all():
        raise FormatError(f"{name} are not finite", expected="finite numbers", got="NaN or infinity")


def _check_shape(shape: tuple[int, ...], most: tuple[int, ...], name: str) -> None:
    fits = len(shape) == len(most) and all(n <= limit for n, limit in zip(shape, most, strict=True)) and shape[-1] > 0
    if not fits:
        raise FormatError(f"{name} have an impossible shape", expected=f"at most {most}", got=str(shape))
