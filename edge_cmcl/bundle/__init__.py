"""Bundles and stores: OCI image layouts that hold generations of a model (FORMAT.md in this folder)."""

from edge_cmcl.bundle.documents import State
from edge_cmcl.bundle.generation import CertificateRecord, Generation, ModalityRecord, PairRecord, timestamp
from edge_cmcl.bundle.layout import Layout, Loaded
from edge_cmcl.bundle.store import Store

__all__ = [
    "CertificateRecord",
    "Generation",
    "Layout",
    "Loaded",
    "ModalityRecord",
    "PairRecord",
    "State",
    "Store",
    "timestamp",
]
