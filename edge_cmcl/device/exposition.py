"""What a device tells Prometheus: a file in its text format, for the textfile collector of a node exporter.

Format: Prometheus exposition formats, text version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Store
from edge_cmcl.device.drift import Drift
from edge_cmcl.durable import write_bytes
from edge_cmcl.version import SOFTWARE

Sample = tuple[Mapping[str, str], float]


def write_exposition(path: Path, store: Store, status: Mapping[str, Any], drift: Iterable[Drift] = ()) -> None:
    """Write what `status` says, and what the drift watch found, to `path`, replaced atomically.

    Args:
        path: the file; a collector wants it to end in .prom.
        store: the device store.
        status: of that store (`status.status`).
        drift: what the drift watch found of recent windows, none where it did not look.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(path, told(store, status, drift).encode())


def told(store: Store, status: Mapping[str, Any], drift: Iterable[Drift] = ()) -> str:
    """Return what `write_exposition` writes; its arguments are the same."""
    return exposition(_metrics(store, status, list(drift)))


def exposition(metrics: Iterable[tuple[str, str, list[Sample]]], kind: str = "gauge") -> str:
    """Return metrics of one kind in Prometheus' text format.

    Args:
        metrics: of each its name, without `edge_cmcl_`, what it is, and its samples; one without samples is left out.
        kind: "gauge" or "counter".
    """
    lines: list[str] = []
    for name, text, samples in metrics:
        if samples:
            lines += [f"# HELP edge_cmcl_{name} {text}", f"# TYPE edge_cmcl_{name} {kind}"]
            lines += [f"edge_cmcl_{name}{_labels(labels)} {value!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _metrics(store: Store, status: Mapping[str, Any], drift: list[Drift]) -> Iterator[tuple[str, str, list[Sample]]]:
    info = {
        "name": status["name"],
        "device": status["device_id"],
        "generation": status["generation"][7:19],
        "action": status["action"],
        "software": SOFTWARE,
    }
    yield "info", "What is in use.", [(info, 1)]
    yield "generation", "Counter of the generation in use.", [({}, status["counter"])]
    yield "created_seconds", "When that generation was made.", [({}, _seconds(status["created"]))]
    yield "on_trial", "Whether it is on trial.", [({}, int(status["trial"] is not None))]
    yield "reverted", "Whether the last trial failed.", [({}, int(status["reverted"] is not None))]
    yield "store_bytes", "Bytes of the store's blobs.", [({}, status["store_bytes"])]
    pairs: list[Sample] = [
        ({"pair": "-".join(pair["modalities"])}, pair["metrics"]["mrr"])
        for pair in _latest(status["pairs"])
        if isinstance(pair["metrics"].get("mrr"), float)
    ]
    yield "pair_mrr", "MRR of a pair on held-out pairs when it was learned last.", pairs
    bounds: list[Sample] = [
        ({"modality": each["modality"]}, max((o["relative_displacement_bound"] for o in each["origins"]), default=0.0))
        for each in status["modalities"]
    ]
    yield "displacement_bound", "How far what a modality learned may have moved, 1 is its own energy.", bounds
    yield "update_seconds", "What the update that made this generation took.", _update_seconds(store, status)
    sync = status["sync"]
    if sync is not None:
        yield "unsent_generations", "Generations that the remote has not got.", [({}, sync["unsent"])]
        yield "declined_generations", "Promoted generations that were not taken.", [({}, len(sync["declined"]))]
        if sync["reported"] is not None:
            yield "reported_seconds", "When this device reported last.", [({}, _seconds(sync["reported"]))]
    yield (
        "drift_outside",
        "Share of recent energy outside all that was learned.",
        [({"modality": each.modality}, each.outside) for each in drift if each.outside is not None],
    )
    yield (
        "drift_threshold",
        "Largest normal share of energy outside.",
        [({"modality": each.modality}, each.threshold) for each in drift if each.threshold is not None],
    )


def _update_seconds(store: Store, status: Mapping[str, Any]) -> list[Sample]:
    update = store.load_manifest(status["generation"]).generation.metrics.get("update")
    seconds = update.get("seconds") if isinstance(update, dict) else None
    return [({}, float(seconds))] if isinstance(seconds, (int, float)) else []


def _latest(pairs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return each pair of modalities once: a label set may have one value only."""
    return list({tuple(sorted(pair["modalities"])): pair for pair in pairs}.values())


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
