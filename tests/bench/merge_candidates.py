"""Ways to make one adapter out of several devices', measured against each other by tests/bench/merging.py.

Each takes the devices' models and the name of a modality, and returns an adapter with its statistics. The product has
one of them (`continual.merging`); its variants are that with one thing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.payloads import Adapter
from edge_cmcl.continual.merging import RIDGE, Lesson, groups_of, merged_adapter
from edge_cmcl.continual.origin import Origin, mean_eigenvalue, moment_rows, union
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.continual.update_space import ALPHA, soft
from edge_cmcl.device.features import Statistics
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.host.fleet.statistics import Source, common, move_of

Floats = NDArray[np.float64]
Candidate = Callable[[Sequence[Model], str, Model], Adapter]
"""Called as `candidate(models, name, base)`; each of `models` knows `name`, `base` may not."""


def plain_sum(models: Sequence[Model], name: str, base: Model) -> Adapter:
    """W0 + sum of changes; of a sensor without a base the average, which a sum equals but for its length."""
    return _added(models, name, base, [1.0] * len(models))


def average(models: Sequence[Model], name: str, base: Model) -> Adapter:
    """The mean of the adapters."""
    return _added(models, name, base, [1.0 / len(models)] * len(models))


def sequential(models: Sequence[Model], name: str, base: Model) -> Adapter:
    """Device by device, each change held back where what was folded before has features, as in an update."""
    weights, statistics = _common(models, name)
    known = name in base.modalities
    start = base.adapter(name).weight.astype(np.float64) if known else weights[0]
    folded, learned = start, [] if known else list(models[0].origins(name))
    for weight, model in list(zip(weights, models, strict=True))[0 if known else 1 :]:
        held = soft(moment_rows(learned, start.shape[1]), ALPHA * mean_eigenvalue(learned, start.shape[1]))
        folded = folded + held(weight - (start if known else folded))
        learned += [origin for origin in model.origins(name) if origin.device]
    return _adapter(folded, statistics)


def held_back(models: Sequence[Model], name: str, base: Model) -> Adapter:
    """All changes added, each held back where any other device's origins have features: no order."""
    if name not in base.modalities:
        return average(models, name, base)
    start = base.adapter(name).weight.astype(np.float64)
    origins = union(*(model.origins(name) for model in models))
    total = start
    for model in models:
        own = {origin.id for origin in model.origins(name)}
        others = [origin for origin in origins if origin.id not in own]
        held = soft(moment_rows(others, start.shape[1]), ALPHA * mean_eigenvalue(others, start.shape[1]))
        total = total + held(model.adapter(name).weight - start)
    return _adapter(total, _statistics(models[0], name))


def least_squares(
    *, ridge: float = RIDGE, once: bool = True, by_number: bool = False, own_target: bool = False, even: bool = True
) -> Candidate:
    """Return the product's way with something changed.

    Args:
        ridge: its ridge.
        once: it counts once for all that was learned together; otherwise for every origin.
        by_number: origins count by their number of features.
        own_target: an origin's target is the mean of what its holders have now, and not what it was learned with.
        even: what a sketch does not hold of the trace counts evenly in all directions.
    """

    def candidate(models: Sequence[Model], name: str, base: Model) -> Adapter:
        sources = _sources(models, name)
        to = common(name, sources)
        groups = groups_of([model.origins(name) for model in models], tuple(origin for origin, _ in sources))
        lessons = []
        for (origin, model), group in zip(sources, groups, strict=True):
            weight = origin.weight * (origin.sketch.n / 400 if by_number else 1.0)
            sketch = origin.sketch if even else _without_rest(origin.sketch)
            move = move_of(name, (origin, model), to) if to is not None else None
            share = 1.0 / groups.count(group) if once else 1.0
            lessons.append(Lesson(weight, sketch, _target(models, origin, model, name, own_target), share, move))
        weight = merged_adapter(lessons, max(groups) + 1 if once else 1, max(ridge, 1e-6))
        return Adapter(weight, to.mean, to.std) if to is not None else _adapter(weight, _statistics(models[0], name))

    return candidate


def from_features(features: Sequence[Floats], targets: Sequence[Floats], statistics: Statistics) -> Adapter:
    """The ridge fit that origins would allow if they carried cross-moments with partner embeddings beside a sketch."""
    width = features[0].shape[1]
    moments = [x.T @ x / len(x) for x in features]
    ridged = np.sum(moments, axis=0) + RIDGE * np.trace(np.mean(moments, axis=0)) / width * np.eye(width)
    cross = np.sum([y.T @ x / len(x) for x, y in zip(features, targets, strict=True)], axis=0)
    return _adapter(np.linalg.solve(ridged, cross.T).T, statistics)


CANDIDATES: dict[str, Candidate] = {
    "plain sum": plain_sum,
    "average": average,
    "sequential folding": sequential,
    "each held back by all others": held_back,
    "least squares, no ridge": least_squares(ridge=0.0),
    "least squares, ridge 0.3": least_squares(ridge=0.3),
    "**least squares, ridge 1**": least_squares(),
    "least squares, ridge 3": least_squares(ridge=3.0),
    "least squares, ridge 10": least_squares(ridge=10.0),
    "the same, a ridge for every origin": least_squares(once=False),
    "the same, by number of features": least_squares(by_number=True),
    "the same, towards what devices hold now": least_squares(own_target=True),
    "the same, sketches alone": least_squares(even=False),
}


def _added(models: Sequence[Model], name: str, base: Model, shares: Sequence[float]) -> Adapter:
    weights, statistics = _common(models, name)
    start = base.adapter(name).weight.astype(np.float64) if name in base.modalities else 0.0 * weights[0]
    total = sum(share * (weight - start) for share, weight in zip(shares, weights, strict=True))
    return _adapter(start + total, statistics)


def _common(models: Sequence[Model], name: str) -> tuple[list[Floats], Statistics]:
    """Return all adapters under common statistics, without what the means add, and these."""
    to = common(name, _sources(models, name)) or _statistics(models[0], name)
    own = [_statistics(model, name).std.astype(np.float64) for model in models]
    weights = [model.adapter(name).weight.astype(np.float64) for model in models]
    return [weight * to.std / std for weight, std in zip(weights, own, strict=True)], to


def _sources(models: Sequence[Model], name: str) -> list[Source]:
    sets = [model.origins(name) for model in models]
    holders = {id(origin): model for model, found in zip(models, sets, strict=True) for origin in found}
    return [(origin, holders[id(origin)]) for origin in union(*sets)]


def _target(models: Sequence[Model], origin: Origin, model: Model, name: str, own: bool) -> Floats:
    if not own:
        return model.reference(origin.reference).astype(np.float64)
    holders = [each for each in models if origin.id in {known.id for known in each.origins(name)}]
    return np.asarray(np.mean([each.adapter(name).weight.astype(np.float64) for each in holders], axis=0))


def _without_rest(sketch: Sketch) -> Sketch:
    return Sketch(sketch.rows, sketch.n, float(np.square(sketch.rows, dtype=np.float64).sum()), sketch.delta)


def _statistics(model: Model, name: str) -> Statistics:
    return statistics_of(model.adapter(name))


def _adapter(weight: NDArray[np.floating], statistics: Statistics) -> Adapter:
    return Adapter(np.ascontiguousarray(weight, dtype=np.float32), statistics.mean, statistics.std)
