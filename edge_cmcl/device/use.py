"""What a device does with its model every day: joint embeddings, classification, retrieval, with sensors missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl import tensors
from edge_cmcl.data import Pairs
from edge_cmcl.device.evaluate import Watch, embed_all, unwatched
from edge_cmcl.device.fits import check_holds, chosen_sensors, near
from edge_cmcl.device.model import Model, fuse
from edge_cmcl.errors import UsageError
from edge_cmcl.progress import Progress, silent

Array = NDArray[np.float32]

EMBEDDINGS_FORMAT = "edge-cmcl/embeddings"
"""What the metadata of a file of embeddings calls it."""


@dataclass(frozen=True)
class Joint:
    """Joint embeddings of the moments of a file.

    Attributes:
        modalities: sensors that were fused.
        embeddings: (n, d) unit rows; zero where no sensor was recorded.
        present: (n,) bool, rows with at least one sensor.
        sensors: (n,) number of sensors behind each row.
        time: (n,) float64, start of each window in s; None where the file does not say.
    """

    modalities: tuple[str, ...]
    embeddings: Array
    present: NDArray[np.bool_]
    sensors: NDArray[np.int64]
    time: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Classified:
    """Labels given to the moments of a file.

    Attributes:
        modalities: sensors that were fused.
        names: label names.
        labels: (n,) index into `names`, -1 where no sensor was recorded.
        similarity: (n,) cosine similarity of the chosen label.
        margin: (n,) by how much it beats the next label.
        true: (n,) the file's own label as an index into `names`, -1 where it has none or one that is not among them.
        time: (n,) float64, start of each window in s; None where the file does not say.
    """

    modalities: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    similarity: Array
    margin: Array
    true: NDArray[np.int64]
    time: NDArray[np.float64] | None = None

    @property
    def scored(self) -> int:
        """Rows that the accuracy is of: those with a sensor, and a label of their own among `names`."""
        return int(self._judged.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of the scored rows whose label is right, None where there are none."""
        judged = self._judged
        return float((self.labels[judged] == self.true[judged]).mean()) if judged.any() else None

    def per_label(self) -> list[dict[str, Any]]:
        """Return for each name how many rows were given it, how many of the scored ones have it, and found right."""
        judged = self._judged
        return [
            {
                "label": name,
                "rows": int((self.labels == index).sum()),
                "true": int((judged & (self.true == index)).sum()),
                "right": int((judged & (self.true == index) & (self.labels == index)).sum()),
            }
            for index, name in enumerate(self.names)
        ]

    def moments(self) -> list[dict[str, Any]]:
        """Return of each moment its row, its time where that is known, its label or None, similarity and margin."""
        columns = zip(self.labels.tolist(), self.similarity.tolist(), self.margin.tolist(), strict=True)
        return [
            {
                "row": row,
                **({} if self.time is None else {"time": float(self.time[row])}),
                "label": self.names[index] if index >= 0 else None,
                "similarity": similarity,
                "margin": margin,
            }
            for row, (index, similarity, margin) in enumerate(columns)
        ]

    @property
    def _judged(self) -> NDArray[np.bool_]:
        return np.asarray((self.true >= 0) & (self.labels >= 0))


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


def joint_embeddings(
    model: Model,
    pairs: Pairs,
    modalities: Sequence[str] = (),
    progress: Progress = silent,
    watch: Watch = unwatched,
) -> Joint:
    """Fuse the sensors of a file into one embedding per moment, whichever of them were recorded then.

    Args:
        model: the generation.
        pairs: the file.
        modalities: sensors to use; by default every one that the generation knows.
        progress: told each batch.
        watch: given the raw outputs of recorded windows (`evaluate.embed_all`).

    Raises:
        DataError: the file has none of them.
        ModelError: a named one is unknown.
    """
    chosen = chosen_sensors(pairs, modalities, model.modalities)
    for name in chosen:
        check_holds(pairs, name)
    valid = {name: pairs.valid(name) for name in chosen}
    embeddings = {name: embed_all(model, pairs, name, progress, watch) for name in chosen}
    fused, present = fuse(embeddings, valid)
    return Joint(chosen, fused, present, np.sum(list(valid.values()), axis=0), pairs.time)


def classify(
    model: Model,
    pairs: Pairs,
    modalities: Sequence[str] = (),
    labels: Sequence[str] = (),
    progress: Progress = silent,
    watch: Watch = unwatched,
) -> Classified:
    """Give each moment the label whose text embedding is nearest.

    Args:
        model: the generation; it has learned a step with labels.
        pairs: the file.
        modalities: sensors to use; by default all known ones.
        labels: names to choose from, among those learned; by default all of them.
        progress: told each batch.
        watch: given the raw outputs of recorded windows (`evaluate.embed_all`).

    Raises:
        ModelError: no labels have been learned.
        UsageError: fewer than two names to choose from, or one that was never learned.
        DataError: the file has no known sensor.
    """
    learned = model.labels.names
    names = tuple(dict.fromkeys(labels)) or learned
    for name in names:
        if name not in learned:
            expected = f"one of {', '.join(learned[:20])}" + (", ..." if len(learned) > 20 else "")
            hint = near(name, learned) or "`edge-cmcl update --with text` teaches labels"
            raise UsageError(f"the label {name!r} was never learned", expected=expected, got=name, hint=hint)
    if len(names) < 2:
        raise UsageError("there is nothing to choose from", expected="at least two labels", got=", ".join(names))
    texts = model.embed_labels(names if names != learned else None)  # whose features are stored
    joint = joint_embeddings(model, pairs, modalities, progress, watch)
    similarity = joint.embeddings @ texts.T
    order = np.argsort(-similarity, axis=1)
    best, second = (np.take_along_axis(similarity, order[:, [k]], axis=1)[:, 0] for k in (0, 1))
    found = np.where(joint.present, order[:, 0], -1)
    return Classified(joint.modalities, names, found, best, best - second, _true(pairs, names), joint.time)


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


def _true(pairs: Pairs, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the file's own labels (n,) as indices into `names`, -1 for none and for others."""
    if pairs.labels is None:
        return np.full(pairs.n, -1)
    place = {name: index for index, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in pairs.label_names] + [-1])[pairs.labels]


def write_joint(path: Path, joint: Joint, model: Model) -> None:
    """Write joint embeddings as safetensors; see `joint_tensors`.

    Raises:
        StorageError: the file system refused.
    """
    tensors.write(path, *joint_tensors(joint, model))


def joint_tensors(joint: Joint, model: Model) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors of joint embeddings, embeddings (n, d) float32 and present (n,) uint8, and their metadata.

    Where the moments' times are known they are there too, time (n,) float64 in s.
    """
    described = {
        "format": EMBEDDINGS_FORMAT,
        "version": "1",
        "modalities": json.dumps(list(joint.modalities)),
        "generation": model.loaded.digest,
    }
    columns: dict[str, NDArray[Any]] = {
        "embeddings": joint.embeddings,
        "present": joint.present.astype(np.uint8),
    }
    if joint.time is not None:
        columns["time"] = joint.time
    return columns, described
