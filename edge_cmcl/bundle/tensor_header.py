"""The header of a safetensors blob, read before its tensors (FORMAT.md, "Payloads").

All metadata stand in one string, canonical JSON under the key "edge-cmcl": safetensors writes several keys in an
order that changes from run to run, and equal payloads must have equal digests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle.canonical import canonical, parse
from edge_cmcl.bundle.limits import MAX_TENSOR_HEADER_BYTES
from edge_cmcl.errors import FormatError

KEY = "edge-cmcl"
VERSION = 1


@dataclass(frozen=True)
class Header:
    """What a payload says about itself.

    Attributes:
        fields: the payload's own fields, without kind and version.
        tensors: (dtype, shape) of each tensor; dtype as safetensors names it, for instance "F32".
    """

    fields: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def metadata(kind: str, fields: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the safetensors metadata of a payload of this kind."""
    return {KEY: canonical({"kind": kind, "version": VERSION, **(fields or {})}).decode()}


def read_header(data: bytes, kind: str, name: str) -> Header:
    """Parse the header of a payload that must be of this kind; `name` says in errors which one it is.

    Raises:
        FormatError: it is not a safetensors file, of another kind or version, or its header is too large.
    """
    header = _parse(data, name)
    fields = _own_fields(header.pop("__metadata__", None), name)
    found = (fields.pop("kind", None), fields.pop("version", None))
    if found != (kind, VERSION) or type(found[1]) is not int:  # 1.0 and true are equal to 1
        raise FormatError(
            f"{name} is of another kind or version",
            expected=f"{kind}, version {VERSION}",
            got=f"{str(found[0])[:40]}, version {str(found[1])[:40]}",
            hint="update edge-cmcl, or export the bundle with this version",
        )
    return Header(fields, {tensor: _entry(tensor, entry, name) for tensor, entry in header.items()})


def _parse(data: bytes, name: str) -> dict[str, Any]:
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(len(data) - 8, MAX_TENSOR_HEADER_BYTES):
        expected = f"a safetensors file with a header of at most {MAX_TENSOR_HEADER_BYTES} bytes"
        raise FormatError(
            f"{name} has no readable header", expected=expected, got=f"{len(data)} bytes, header {length}"
        )
    header = parse(data[8 : 8 + length], f"the header of {name}", MAX_TENSOR_HEADER_BYTES)
    if not isinstance(header, dict):
        raise FormatError(f"the header of {name} is not an object", expected="a JSON object", got=type(header).__name__)
    return header


def _own_fields(found: Any, name: str) -> dict[str, Any]:
    text = found.get(KEY) if isinstance(found, dict) and len(found) == 1 else None
    if not isinstance(text, str):
        expected = f"metadata {KEY!r} and no other"
        raise FormatError(f"{name} does not say what it is", expected=expected, got=str(found)[:80])
    fields = parse(text.encode("utf-8", "replace"), f"the metadata of {name}", MAX_TENSOR_HEADER_BYTES)
    if not isinstance(fields, dict):
        raise FormatError(f"the metadata of {name} are not an object", expected="a JSON object", got=text[:80])
    return fields


def _entry(tensor: str, entry: Any, name: str) -> tuple[str, tuple[int, ...]]:
    dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise FormatError(f"{name}: tensor {tensor[:80]!r} has no readable dtype and shape", got=str(entry)[:80])
    return dtype, tuple(shape)
