"""Media types, annotations and roles of a bundle (FORMAT.md, "Manifest" and "Layers")."""

from __future__ import annotations

from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"

BUNDLE = "application/vnd.edge-cmcl.bundle.v1"
GENERATION = "application/vnd.edge-cmcl.generation.v1+json"

OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"

SIGNATURE = "application/vnd.edge-cmcl.signature.v1"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
KEYS = "application/vnd.edge-cmcl.keys.v1+json"
STATEMENT = "application/vnd.edge-cmcl.statement.v1+json"
ROTATION = "application/vnd.edge-cmcl.rotation.v1+json"

JUDGEMENT = "application/vnd.edge-cmcl.judgement.v1"
JUDGEMENT_DOCUMENT = "application/vnd.edge-cmcl.judgement.v1+json"
REPORT = "application/vnd.edge-cmcl.report.v1"
REPORT_DOCUMENT = "application/vnd.edge-cmcl.report.v1+json"
HELD_OUT = "application/vnd.edge-cmcl.held-out.v1"
HELD_OUT_DOCUMENT = "application/vnd.edge-cmcl.held-out.v1+json"
HELD_OUT_PAIRS = "application/vnd.edge-cmcl.held-out.v1+safetensors"
PROMOTION = "application/vnd.edge-cmcl.promotion.v1"
PROMOTION_DOCUMENT = "application/vnd.edge-cmcl.promotion.v1+json"

ENCODER = "application/vnd.edge-cmcl.encoder.v1+onnx"
STEP = "application/vnd.edge-cmcl.step.v1+onnx"
ADAPTER = "application/vnd.edge-cmcl.adapter.v1+safetensors"
SKETCH = "application/vnd.edge-cmcl.sketch.v1+safetensors"
GOLDEN = "application/vnd.edge-cmcl.golden.v1+safetensors"
LABELS = "application/vnd.edge-cmcl.labels.v1+safetensors"

ROLES = {
    "universal": ENCODER,
    "step": STEP,
    "encoder": ENCODER,
    "adapter": ADAPTER,
    "reference": ADAPTER,
    "sketch": SKETCH,
    "golden": GOLDEN,
    "labels": LABELS,
}
"""What a layer is for, and the media type that this takes."""

TAG_ANNOTATION = "org.opencontainers.image.ref.name"
ROLE_ANNOTATION = "vnd.edge-cmcl.role"
MODALITY_ANNOTATION = "vnd.edge-cmcl.modality"
PART_ANNOTATION = "vnd.edge-cmcl.part-of"
"""Of a layer that is a part of a blob: the digest of that blob."""
CHECK_ANNOTATION = "vnd.edge-cmcl.check"
"""Of a store's index: the digest of the canonical index without this annotation."""
