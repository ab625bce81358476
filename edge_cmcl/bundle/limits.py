"""Limits that readers enforce before they allocate (FORMAT.md, "Limits"). A writer that passes one has a bug."""

from __future__ import annotations

from edge_cmcl.limits import (
    MAX_CHANNELS,
    MAX_FRAME_SIDE,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    MAX_MODALITIES,
    MAX_PAIRS,
    MAX_UNIT_LENGTH,
    MAX_WINDOW_VALUES,
)

__all__ = [  # those of `edge_cmcl.limits` that bundles have, too
    "MAX_CHANNELS",
    "MAX_FRAME_SIDE",
    "MAX_LABELS",
    "MAX_LABEL_LENGTH",
    "MAX_MODALITIES",
    "MAX_PAIRS",
    "MAX_UNIT_LENGTH",
]

MIB = 1 << 20

MAX_DOCUMENT_BYTES = 4 * MIB
"""Manifest, generation, index, state: what OCI registries accept for a manifest."""
MAX_LAYOUT_BYTES = 4096
"""The `oci-layout` file."""
MAX_BLOB_BYTES = 2 * 1024 * MIB - 1
"""One blob: an ONNX file cannot be larger (protobuf)."""
MAX_BUNDLE_BYTES = 16 * 1024 * MIB
"""All files of one imported layout."""
MAX_BUNDLE_FILES = 16384
MAX_TENSOR_HEADER_BYTES = MIB
MAX_DEPTH = 32
"""Nesting of a JSON document."""
MAX_VALUES = 1 << 17
"""Commas and opening brackets of a JSON document, so values, too: parsed, a value takes a hundred times its bytes."""
MAX_MEMBERS = 1 << 14
"""Members of one JSON array or object: each wrong one costs a kilobyte to report."""
MAX_INTEGER = 2**53 - 1
"""Largest integer in a JSON document: beyond it, readers in other languages lose digits."""
MAX_FREE_BYTES = 256 * 1024
"""One free JSON object (metrics, calibration) as canonical JSON."""

MAX_LAYERS = 12288
"""Of a manifest, parts counted one by one: what its 4 MiB have room for."""
MAX_INDEX_ENTRIES = 4096
MAX_ANNOTATIONS = 64
MAX_PARENTS = 128
MAX_ORIGINS = 256
"""Origins, and likewise references, of one modality."""
MAX_CERTIFICATES = MAX_MODALITIES * MAX_ORIGINS
MAX_DECLINED = 16
"""Promoted generations that a device did not take, the latest ones."""

MAX_EMBEDDING_DIM = 8192
MAX_WIDTH = 65536
MAX_SKETCH_ROWS = 1024
LABEL_WIDTH = 1024
MAX_GOLDEN_TENSORS = 64
MAX_GOLDEN_BYTES = 4 * 4 * MAX_WINDOW_VALUES + 4 * MIB
"""Tensors of one blob of golden vectors: four of the largest windows, and what they must give."""
MAX_RANK = 5
MAX_ATTACHMENTS = 16
"""Of one generation in a bundle: they are unsigned, and each takes an entry of the index."""
MAX_ATTACHMENT_BYTES = 4 * MIB
"""One blob of an attachment (a signature, a device's judgement)."""

MAX_SIGNATURE_BYTES = 64 * 1024
"""Each of the small documents of a signature: its manifest, the envelope, the keys."""
MAX_SIGNATURES = 8
"""Signatures, and likewise public keys, of one manifest."""
MAX_ROTATIONS = 32
"""Rotations that come with a signature: the latest ones of its keys."""
MAX_KEYS = 2048
"""Keys that one place knows, revoked ones included: a host knows those of its devices."""
MAX_JUDGED = 64
"""Pairs of modalities in one judgement: it must fit into a signed document."""
MAX_KEY_FILE_BYTES = 4096
