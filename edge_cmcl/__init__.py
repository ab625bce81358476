"""edge-cmcl: a deployed edge device learns a new sensor by itself, without forgetting what it knew.

    import edge_cmcl

    model = edge_cmcl.open_model("store")                        # the generation in use
    with edge_cmcl.open_pairs("recording.safetensors") as pairs:
        vectors = model.embed("acc", pairs.read("acc"))          # (n, d) unit embeddings
        found = edge_cmcl.classify(model, pairs, ["acc", "gyro"])
        advice = edge_cmcl.assess(edge_cmcl.open_store("store"), pairs, "gyro")
        report = edge_cmcl.update(edge_cmcl.open_store("store"), pairs, "gyro")

These names are the public Python API, and what the command line itself uses. They are loaded when first asked for, so
that `import edge_cmcl` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_cmcl.data import Pairs, open_pairs, write_pairs
    from edge_cmcl.device.assess import Assessment, assess
    from edge_cmcl.device.drift import drift
    from edge_cmcl.device.evaluate import evaluate
    from edge_cmcl.device.forgetting import forget
    from edge_cmcl.device.generations import rollback
    from edge_cmcl.device.learner import update
    from edge_cmcl.device.model import Model
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.store import install, open_store
    from edge_cmcl.device.update_report import UpdateReport
    from edge_cmcl.device.use import classify, joint_embeddings, retrieve
    from edge_cmcl.errors import EdgeCmclError

_HOMES = {
    "Assessment": "device.assess",
    "EdgeCmclError": "errors",
    "Model": "device.model",
    "Pairs": "data",
    "UpdateReport": "device.update_report",
    "assess": "device.assess",
    "classify": "device.use",
    "drift": "device.drift",
    "evaluate": "device.evaluate",
    "forget": "device.forgetting",
    "install": "device.store",
    "joint_embeddings": "device.use",
    "open_model": "device.opening",
    "open_pairs": "data",
    "open_store": "device.store",
    "retrieve": "device.use",
    "rollback": "device.generations",
    "update": "device.learner",
    "write_pairs": "data",
}

__all__ = [
    "Assessment",
    "EdgeCmclError",
    "Model",
    "Pairs",
    "UpdateReport",
    "assess",
    "classify",
    "drift",
    "evaluate",
    "forget",
    "install",
    "joint_embeddings",
    "open_model",
    "open_pairs",
    "open_store",
    "retrieve",
    "rollback",
    "update",
    "write_pairs",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edge_cmcl.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edge_cmcl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
