"""The micro model: a few of a sensor's universal kernels and a head for them, for a microcontroller (firmware_bridge).

Of each dilation it has the first width / 12 kernels, so its scores are a selection S of the full model's, under the
same statistics. The head H is the ridge regression of the full model's embeddings W x on S x. All that needs of the
data is the second moment C of the features x, and that is what the sketches of the sensor's origins hold:

    H = W C S^T (S C S^T + lambda I)^-1

C is B^T B, summed over origins, plus what the sketches do not hold of its trace, spread evenly. So no recording is
needed, and none is kept. Scores are not scaled to unit norm here: that changes the length of H x alone.

What else was measured, at width 252, mean of acc and gyro of UTD-MHAD, acc and emg of ISL and two seeds, R@10 / MRR
against the partner's full embeddings / accuracy by the nearest label, in % (the full model has 76.6 / 46.3 / 67.8):

    this                                                               74.8 / 41.2 / 65.0
    kernels chosen greedily for the least error, in the sketches        74.2 / 39.8 / 65.7

and at width 120 72.6 / 37.7 / 60.4 against 72.4 / 38.2 / 64.6. With the second moment of the training windows in the
place of the sketches R@10 is the same within 0.6 points at equal penalties, and at most 1 higher at the best of a grid
of penalties (one seed). So neither is worth what it takes: a search, or a recording. From 0.1 to 0.4 the penalty makes
less than a point of R@10. `tests/bench/micro.py` measures what ships.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.contents import read_golden
from edge_cmcl.continual.origin import Origins
from edge_cmcl.device.features import CLIP
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.text import TEXT
from edge_cmcl.device.universal import DILATIONS, STATISTICS, WIDTH_UNIT, make_kernels
from edge_cmcl.errors import UsageError

DEFAULT_WIDTH = 252
PENALTY = 0.2
"""lambda, in units of the mean eigenvalue of C."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class MicroFit:
    """A fitted micro model, in single precision; features kernel by kernel: share, maximum, mean absolute output.

    Attributes:
        modality: the sensor.
        samples: T of a window, as the generation's golden inputs have it.
        weights: (K, C, 7) float32.
        biases: (K,) float32.
        dilations: K of them.
        columns: (3 K,) int64, where the full model has each feature.
        mean: (3 K,) float32.
        std: (3 K,) float32.
        head: (d, 3 K) float32.
        largest: the largest value that the encoder normally sees, by the full model's statistics.
        label_names: what the generation has learned to name.
        labels: (L, d) float32 unit embeddings of them.
    """

    modality: str
    samples: int
    weights: Array
    biases: Array
    dilations: tuple[int, ...]
    columns: NDArray[np.int64]
    mean: Array
    std: Array
    head: Array
    largest: float
    label_names: tuple[str, ...]
    labels: Array


def fit_micro(model: Model, modality: str, width: int = DEFAULT_WIDTH) -> MicroFit:
    """Fit the micro model of one sensor, from what the generation holds alone.

    Args:
        model: the generation.
        modality: a sensor with the universal encoder.
        width: features, a multiple of 12, at most the full model's.

    Raises:
        ModelError: the generation does not know the sensor.
        UsageError: it has another encoder, records frames, or has not that many features.
    """
    samples = _check(model, modality, width)
    adapter = model.adapter(modality)
    statistics = statistics_of(adapter)
    full = adapter.weight.shape[1]
    columns = columns_of(width, full)
    kernels = make_kernels(modality, model.record(modality).channels or 0, width).for_length(samples)
    named = TEXT in model.modalities
    return MicroFit(
        modality=modality,
        samples=samples,
        weights=kernels.weights.reshape(-1, *kernels.weights.shape[2:]),
        biases=kernels.biases.reshape(-1),
        dilations=tuple(dilation for dilation in DILATIONS for _ in range(width // WIDTH_UNIT)),
        columns=columns,
        mean=statistics.mean[columns],
        std=statistics.std[columns],
        head=fitted_head(adapter.weight, model.origins(modality), columns),
        largest=float(_maxima(np.abs(statistics.mean) + CLIP * statistics.std).max()),
        label_names=model.labels.names if named else (),
        labels=model.embed_labels() if named else np.zeros((0, len(adapter.weight)), np.float32),
    )


def columns_of(width: int, full: int) -> NDArray[np.int64]:
    """Return where a universal encoder of `full` features has those (width,) of a narrower one, kernel by kernel."""
    count, all_of = width // WIDTH_UNIT, full // WIDTH_UNIT
    dilation, kernel, statistic = np.ogrid[: len(DILATIONS), :count, :STATISTICS]
    return np.asarray((dilation * STATISTICS + statistic) * all_of + kernel).reshape(-1)


def fitted_head(weight: Array, origins: Origins, columns: NDArray[np.int64]) -> Array:
    """Return the head (d, len(columns)) float32 that brings those features nearest to the embeddings of `weight`.

    Args:
        weight: (d, width) of the full adapter.
        origins: of the sensor; their sketches stand for all that it has learned.
        columns: the features that the head sees.
    """
    rows = np.concatenate([np.sqrt(origin.weight) * origin.sketch.rows.astype(np.float64) for origin in origins])
    trace = sum(origin.weight * origin.sketch.trace for origin in origins)
    full = weight.shape[1]
    unseen = max(0.0, trace - float(np.square(rows).sum())) / full
    seen = rows[:, columns]
    within = seen.T @ seen
    within[np.diag_indices_from(within)] += unseen + PENALTY * trace / full
    across = (weight @ rows.T) @ seen + unseen * weight[:, columns]
    return np.ascontiguousarray(np.linalg.solve(within, across.T).T, dtype=np.float32)


def _check(model: Model, modality: str, width: int) -> int:
    """Return the samples of a window, after checking that a micro model can be made."""
    record = model.record(modality)
    if record.encoder != "universal":
        others = [name for name in model.modalities if model.record(name).encoder == "universal"]
        raise UsageError(
            f"no micro model can be made of {modality}",
            expected="a sensor with the universal encoder, whose kernels it takes over",
            got=f"{modality} has the encoder {record.encoder!r}",
            hint=f"choose one of {', '.join(others)}" if others else 'train it with encoder = "universal"',
        )
    if record.frame is not None:
        raise UsageError(
            f"no micro model can be made of {modality}",
            expected="a series of samples",
            got="frames",
            hint="send frames to the device, and embed them there",
        )
    if width <= 0 or width % WIDTH_UNIT or width > record.width:
        expected = f"a multiple of {WIDTH_UNIT}, at most {record.width}, which {modality} has in full"
        raise UsageError("a micro model cannot be that wide", expected=expected, got=str(width), hint="--width 252")
    if not record.origins:
        raise UsageError(
            f"no micro model can be fitted for {modality}",
            expected="sketches of what it has learned",
            got="none",
            hint=f"`edge-cmcl update --modality {modality}` on a recording",
        )
    golden = read_golden(model.loaded, modality)
    if golden is not None:
        return int(golden.inputs["windows"].shape[1])
    if record.rate_hz is None or record.window_s is None:
        raise UsageError(
            f"how long windows of {modality} are is not known",
            expected="golden inputs, or a rate and a window length, in the generation",
            got="neither",
            hint=f"`edge-cmcl update --modality {modality}` on a recording with a rate",
        )
    return round(record.rate_hz * record.window_s)


def _maxima(features: Array) -> Array:
    """Return, of one number per full feature, those of the kernels' maxima."""
    return features.reshape(len(DILATIONS), STATISTICS, -1)[:, 1]
