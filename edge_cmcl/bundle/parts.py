"""Large blobs in parts: what a link or a power cut takes back of a transfer is one part (FORMAT.md, "Parts").

A registry may forget an upload that was cut off, or have no room for the end of it; a part that arrived stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.media_types import PART_ANNOTATION

WHOLE_BYTES = 1 << 16
"""The largest blob that stays whole: to ask for a part costs a link about a kilobyte."""
MOST_PARTS = 12
_BLOCK_BYTES = 4096


def cut(data: bytes) -> list[bytes]:
    """Return `data` in one piece, or where it is large in up to `MOST_PARTS` of equal size, the last one smaller."""
    if len(data) <= WHOLE_BYTES:
        return [data]
    blocks = -(-len(data) // (MOST_PARTS * _BLOCK_BYTES))
    size = max(blocks * _BLOCK_BYTES, WHOLE_BYTES // 2)
    return [data[at : at + size] for at in range(0, len(data), size)]


def by_blob(layers: Iterable[Descriptor]) -> dict[str, tuple[Descriptor, ...]]:
    """Return what each blob of a manifest consists of, by the blob's digest: its one layer, or its parts in order."""
    found: dict[str, list[Descriptor]] = {}
    for layer in layers:
        found.setdefault(part_of(layer) or layer.digest, []).append(layer)
    return {digest: tuple(pieces) for digest, pieces in found.items()}


def part_of(layer: Descriptor) -> str:
    """Return the digest of the blob that a layer is a part of, "" for a layer that is a blob itself."""
    return (layer.annotations or {}).get(PART_ANNOTATION, "")


def part_type(media_type: str) -> str:
    """Return the media type of the parts of a blob of this type: of `KIND.v1+safetensors`, it is `KIND-part.v1`."""
    kind, _, version = media_type.partition("+")[0].rpartition(".")
    return f"{kind}-part.{version}"
