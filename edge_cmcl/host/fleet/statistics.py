"""One modality of several devices under one mean and standard deviation (continual/merging.py, "Other statistics")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.merging import Move, common_statistics, moved_displacement, moved_sketch
from edge_cmcl.continual.origin import Origin
from edge_cmcl.device.clipping import clipped_of, clipped_outputs_of, inverse_energy_of
from edge_cmcl.device.features import CLIP, Statistics
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.errors import RefusedError
from edge_cmcl.host.fleet.parents import named

Source = tuple[Origin, Model]
"""An origin, and the device's model that it is taken from."""


def common(name: str, sources: Sequence[Source]) -> Statistics | None:
    """Return the statistics of `name` to which all `sources` are brought, None where theirs are equal already."""
    own = [statistics_of(model.adapter(name)) for _, model in sources]
    means, deviations = np.stack([each.mean for each in own]), np.stack([each.std for each in own])
    if (means == means[0]).all() and (deviations == deviations[0]).all():
        return None
    n = np.array([origin.sketch.n for origin, _ in sources], dtype=np.float64)
    return Statistics(*common_statistics(means, deviations, n / n.sum(), CLIP))


def move_of(name: str, source: Source, to: Statistics) -> Move:
    """Return how the features of an origin move to the statistics `to`.

    Raises:
        RefusedError: how long its scores were is not known, so that what the move does cannot be certified.
    """
    origin, model = source
    own = statistics_of(model.adapter(name))
    shift = (to.mean.astype(np.float64) - own.mean) / own.std
    inverse = inverse_energy_of(model.record(name), origin) if shift.any() else 0.0
    if inverse is None or clipped_of(model.record(name), origin) is None:
        raise RefusedError(
            f"{name} of {named(model.loaded)} cannot be brought to the statistics of the others",
            expected=f"figures of what {origin.id} was learned from, in the calibration of {name}",
            got="none: the recording was too short to hold anything out, or an older version learned it",
            hint="let that device learn it again, from a longer recording, or merge without it",
        )
    return Move(own.std / to.std.astype(np.float64), shift, inverse)


def moved(name: str, source: Source, to: Statistics, now: NDArray[np.float32], reference: str) -> Origin:
    """Return an origin under the statistics `to`, which carries what the merge may have displaced it by.

    Args:
        name: the modality.
        source: the origin, and the model it is taken from.
        to: the common statistics.
        now: (d, width), the merged adapter, under these.
        reference: digest of its blob.

    Raises:
        RefusedError: as `move_of`.
    """
    origin, model = source
    move = move_of(name, source, to)
    record, learned = model.record(name), model.reference(origin.reference)
    clipped, outputs = clipped_of(record, origin) or 0.0, clipped_outputs_of(record, origin)
    displaced = moved_displacement(learned, origin.sketch, now, move, clipped, outputs)
    return replace(
        origin,
        revision=origin.revision + 1,
        sketch=moved_sketch(origin.sketch, move),
        reference=reference,
        carried=float((np.sqrt(origin.carried) + np.sqrt(displaced)) ** 2),
    )


def check_finite(name: str, weight: NDArray[np.float32]) -> None:
    """Check a merged adapter (d, width).

    Raises:
        RefusedError: a number is NaN or infinite.
    """
    if not np.isfinite(weight).all():
        raise RefusedError(
            f"the merge was not committed: the merged adapter of {name} is not finite",
            expected="finite numbers",
            got="NaN or infinity",
            hint="one device's adapter is far larger than the others': merge without one after the other to find it",
        )
