"""What a device does with its model every day: joint embeddings, classification, retrieval, with sensors missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl import tensors
from edge_cmcl.data import Pairs
from edge_cmcl.device.evaluate import embed_all
from edge_cmcl.device.model import Model, fuse
from edge_cmcl.errors import DataError, UsageError
from edge_cmcl.progress import Progress, silent

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Joint:
    """Joint embeddings of the moments of a file.

    Attributes:
        modalities: sensors that were fused.
        embeddings: (n, d) unit rows; zero where no sensor was recorded.
        present: (n,) bool, rows with at least one sensor.
        sensors: (n,) number of sensors behind each row.
    """

    modalities: tuple[str, ...]
    embeddings: Array
    present: NDArray[np.bool_]
    sensors: NDArray[np.int64]


@dataclass(frozen=True)
class Classified:
    """Labels given to the moments of a file.

    Attributes:
        modalities: sensors that were fused.
        names: label names.
        labels: (n,) index into `names`, -1 where no sensor was recorded.
        similarity: (n,) cosine similarity of the chosen label.
        margin: (n,) by how much it beats the next label.
        accuracy: against the file's labels where it has known ones, else None.
    """

    modalities: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    similarity: Array
    margin: Array
    accuracy: float | None


@dataclass(frozen=True)
class Hits:
    """Moments of a gallery most similar to one query.

    Attributes:
        query: row of the query file.
        rows: gallery rows, the most similar first.
        similarity: their cosine similarities.
    """

    query: int
    rows: tuple[int, ...]
    similarity: tuple[float, ...]


def joint_embeddings(model: Model, pairs: Pairs, modalities: Sequence[str] = (), progress: Progress = silent) -> Joint:
    """Fuse the sensors of a file into one embedding per moment, whichever of them were recorded then.

    Args:
        model: the generation.
        pairs: the file.
        modalities: sensors to use; by default every one that the generation knows.
        progress: told each batch.

    Raises:
        DataError: the file has none of them.
        ModelError: a named one is unknown.
    """
    chosen = tuple(dict.fromkeys(modalities)) or tuple(name for name in pairs.modalities if name in model.modalities)
    absent = [name for name in chosen if name not in pairs.modalities]
    if absent or not chosen:
        raise DataError(
            f"{pairs.path} has no windows of {', '.join(absent) or 'a known modality'}",
            expected=f"one of {', '.join(model.modalities)}",
            got=", ".join(pairs.modalities),
        )
    valid = {name: pairs.valid(name) for name in chosen}
    embeddings = {name: embed_all(model, pairs, name, progress) for name in chosen}
    fused, present = fuse(embeddings, valid)
    return Joint(chosen, fused, present, np.sum(list(valid.values()), axis=0))


def classify(
    model: Model,
    pairs: Pairs,
    modalities: Sequence[str] = (),
    labels: Sequence[str] = (),
    progress: Progress = silent,
) -> Classified:
    """Give each moment the label whose text embedding is nearest.

    Args:
        model: the generation; it has learned a step with labels.
        pairs: the file.
        modalities: sensors to use; by default all known ones.
        labels: names to choose from; by default every label learned. Names never seen are allowed.
        progress: told each batch.

    Raises:
        ModelError: no labels have been learned.
        UsageError: fewer than two names to choose from.
        DataError: the file has no known sensor.
    """
    names = tuple(labels) or model.labels.names
    if len(names) < 2:
        raise UsageError("there is nothing to choose from", expected="at least two labels", got=", ".join(names))
    texts = model.embed_labels(names)
    joint = joint_embeddings(model, pairs, modalities, progress)
    similarity = joint.embeddings @ texts.T
    order = np.argsort(-similarity, axis=1)
    best, second = (np.take_along_axis(similarity, order[:, [k]], axis=1)[:, 0] for k in (0, 1))
    found = np.where(joint.present, order[:, 0], -1)
    return Classified(joint.modalities, names, found, best, best - second, _accuracy(pairs, names, found))


def retrieve(query: Joint, gallery: Joint, rows: Sequence[int], top: int) -> list[Hits]:
    """Return for each of `rows` of `query` the `top` most similar moments of `gallery`.

    Raises:
        UsageError: a row is out of range or has no recorded sensor.
    """
    usable = np.flatnonzero(gallery.present)
    found = []
    for row in rows:
        if not 0 <= row < len(query.present) or not query.present[row]:
            raise UsageError(
                f"row {row} cannot be a query",
                expected=f"a row from 0 to {len(query.present) - 1} with a recorded sensor",
                got=str(row),
            )
        similarity = gallery.embeddings[usable] @ query.embeddings[row]
        best = np.argsort(-similarity, kind="stable")[:top]
        found.append(Hits(row, tuple(usable[best].tolist()), tuple(float(s) for s in similarity[best])))
    return found


def _accuracy(pairs: Pairs, names: Sequence[str], found: NDArray[np.int64]) -> float | None:
    if pairs.labels is None:
        return None
    place = {name: index for index, name in enumerate(names)}
    true = np.array([place.get(name, -1) for name in pairs.label_names] + [-1])[pairs.labels]
    judged = (true >= 0) & (found >= 0)
    return float((found[judged] == true[judged]).mean()) if judged.any() else None


def write_joint(path: Path, joint: Joint, model: Model) -> None:
    """Write joint embeddings as safetensors: embeddings (n, d) float32, present (n,) uint8, and what made them.

    Raises:
        StorageError: the file system refused.
    """
    described = {
        "format": "edge-cmcl/embeddings",
        "version": "1",
        "modalities": json.dumps(list(joint.modalities)),
        "generation": model.loaded.digest,
    }
    present = joint.present.astype(np.uint8)
    tensors.write(path, {"embeddings": joint.embeddings, "present": present}, described)
