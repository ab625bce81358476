"""Statistics that no longer fit a sensor: how an update notices, and how it renews them without forgetting.

Mean and standard deviation m, s of raw outputs r are frozen when a sensor is learned. On another machine, or years
later, scores z = (r - m) / s may be large and lean one way; then a few outputs decide every feature.

Renewing takes s'^2 = the mean of s^2 and of (r - m)^2 over the new recording, where that is larger, and keeps m. So
scores become D z with D = s / s' <= 1, and an adapter W D^-1 gives each old window the embedding that it had, up to
its length, which normalisation removes anyway. A mean that moved, too, would need a bias, which adapters do not have.

Everything that is kept of the past moves along: each origin's sketch becomes that of D C D, and the adapter that it
refers to W_o D^-1. Displacement is (W D^-1 - W_o D^-1) D x = (W - W_o) x, as before: of old windows with the length
that they had. What remains is clipping: a score that was clipped at 8 is less so afterwards. Its share of energy is
known from when it was learned (`clipped_share`), and what that may move an embedding is carried in the certificate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.payloads import Adapter, adapter_to_bytes
from edge_cmcl.continual.drift import outside
from edge_cmcl.continual.origin import Origins
from edge_cmcl.continual.sketch import rescale
from edge_cmcl.device.calibration import read_calibration
from edge_cmcl.device.clipping import clipped_of
from edge_cmcl.device.encode import CHUNK, EncodedModality
from edge_cmcl.device.features import Statistics, standard_scores
from edge_cmcl.device.model import Array, Model, statistics_of
from edge_cmcl.device.text import TEXT


@dataclass(frozen=True)
class StatisticsFit:
    """Whether the statistics of a known sensor fit a recording.

    Attributes:
        modality: the sensor.
        energy: mean energy of its scores there, 1 where the statistics are of it.
        normal_energy: lowest and highest that is normal; None where it was not calibrated.
        shift: energy of the mean score, 0 where the statistics are of it.
        normal_shift: highest that is normal; None where it was not calibrated.
        renewable: whether what is needed to renew them is known of everything learned.
    """

    modality: str
    energy: float
    normal_energy: tuple[float, float] | None
    shift: float
    normal_shift: float | None
    renewable: bool

    @property
    def stale(self) -> bool:
        """Whether they no longer fit: the scores are larger, or lean further to one side, than is normal."""
        if self.normal_energy is None or self.normal_shift is None:
            return False
        return self.energy > self.normal_energy[1] or self.shift > self.normal_shift

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {**vars(self), "stale": self.stale}


class Renewed(Model):
    """A model some of whose sensors have renewed statistics; everything else is the model's own.

    Args:
        model: the generation as it is.
        statistics: new ones for some of its sensors, each std at least as large as the old one, the means the same.
    """

    def __init__(self, model: Model, statistics: Mapping[str, Statistics]) -> None:
        self.__dict__.update(model.__dict__)
        self._model = model  # as long as it exists, its generation is not collected
        self.made = {}
        self._adapters = dict(self._adapters)
        self._origins = {name: self._renew(name, new) for name, new in statistics.items()}
        self.renewed = tuple(self._origins)

    def origins(self, modality: str) -> Origins:
        """Return the origins of `modality`, of renewed ones under their new statistics."""
        return self._origins.get(modality) or super().origins(modality)

    def reference(self, digest: str) -> Array:
        """Return the weight of the older adapter `digest`, which an origin refers to."""
        return self.made[digest][0] if digest in self.made else super().reference(digest)

    def _renew(self, name: str, new: Statistics) -> Origins:
        before = self._model.adapter(name)
        factors = (statistics_of(before).std / new.std).astype(np.float32)
        self._adapters[name] = Adapter(before.weight / factors, before.mean, new.std)
        largest = float(np.linalg.norm(before.weight, 2))
        found = []
        for origin in self._model.origins(name):
            older = Adapter(self._model.reference(origin.reference) / factors, before.mean, new.std)
            data = adapter_to_bytes(older)
            self.made[digest_of(data)] = (older.weight, data)
            clipped = clipped_of(self.record(name), origin) or 0.0
            # Twice, so that it still holds of an adapter that has moved by as much as it was large.
            carried = (np.sqrt(origin.carried) + 2.0 * largest * np.sqrt(clipped)) ** 2
            found.append(
                replace(
                    origin,
                    revision=origin.revision + 1,
                    sketch=rescale(origin.sketch, factors),
                    reference=digest_of(data),
                    carried=float(carried),
                )
            )
        return tuple(found)


def fits(model: Model, encoded: Mapping[str, EncodedModality]) -> list[StatisticsFit]:
    """Return how the statistics of each known sensor fit what an update is about to learn."""
    return [_fit(model, name, each) for name, each in encoded.items() if name in model.modalities and name != TEXT]


def renewed(model: Model, found: Sequence[StatisticsFit], encoded: Mapping[str, EncodedModality]) -> Model:
    """Return `model` with renewed statistics of the sensors that an update has `found` stale, by what it will learn."""
    statistics = {
        fit.modality: _wider(statistics_of(model.adapter(fit.modality)), encoded[fit.modality])
        for fit in found
        if fit.stale and fit.renewable
    }
    return Renewed(model, statistics) if statistics else model


def _wider(old: Statistics, encoded: EncodedModality) -> Statistics:
    second = sum(np.square(scores).sum(axis=0) for scores in _scores(encoded, old, clipped=False))
    wider = np.sqrt(np.maximum(1.0, (1.0 + second / encoded.learned.sum()) / 2.0))
    return Statistics(old.mean, (old.std * wider).astype(np.float32))


def _fit(model: Model, name: str, encoded: EncodedModality) -> StatisticsFit:
    statistics, n = statistics_of(model.adapter(name)), int(encoded.learned.sum())
    sums, energy = np.zeros(len(statistics.mean)), 0.0
    for scores in _scores(encoded, statistics, clipped=True):
        sums += scores.sum(axis=0)
        energy += float(np.square(scores).sum())
    normal = read_calibration(model.record(name))
    return StatisticsFit(
        modality=name,
        energy=energy / (n * len(sums)),
        normal_energy=normal.energy if normal else None,
        shift=outside(sums / n),
        normal_shift=normal.shift if normal else None,
        renewable=all(clipped_of(model.record(name), origin) is not None for origin in model.origins(name)),
    )


def _scores(encoded: EncodedModality, statistics: Statistics, *, clipped: bool) -> Iterator[NDArray[np.float64]]:
    """Yield the scores (rows, width) of what an update learns, chunk by chunk."""
    learned = np.flatnonzero(encoded.learned)
    for start in range(0, len(learned), CHUNK):
        raw = np.asarray(encoded.raw[learned[start : start + CHUNK]])
        scores = standard_scores(raw, statistics) if clipped else (raw - statistics.mean) / statistics.std
        yield scores.astype(np.float64)
