"""What noise in the sketches costs: the effect of `update --sketch-noise` on what is remembered.

    python tests/bench/sketch_noise.py            # after `make data`

The product learns the 11-step stream over six data sets with noise of several epsilon in the sketches of every update;
the base, of the host's own data, has none. Prints a table: final mean R@10 and BWT over all pairs, and how many rows a
sketch of an update keeps.
"""

from __future__ import annotations

import argparse
import functools
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from edge_cmcl.bundle import Store
from edge_cmcl.continual.metrics import backward_transfer, final_average, retrieval
from edge_cmcl.device.features import unit
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import CURRENT
from edge_cmcl.host.compare.features import StreamData, load_data
from edge_cmcl.host.compare.stream import load_stream
from edge_cmcl.host.strategies import STRATEGIES, Settings
from edge_cmcl.host.strategies.ours import Ours

EPSILONS = (None, 300.0, 100.0, 30.0, 10.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", type=Path, default=Path(__file__).parent / "streams" / "retrieval.toml")
    parser.add_argument("--out", type=Path, default=Path(".bench/retrieval"), help="features are cached there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(load_stream(options.stream), options.out / "cache")
    print("| epsilon | final R@10 | BWT | rows of a sketch |\n|---|---|---|---|")
    for epsilon in EPSILONS:
        matrix, rows = learned(data, epsilon)
        name = "no noise" if epsilon is None else f"{epsilon:g}"
        scores = 100.0 * matrix
        print(f"| {name} | {final_average(scores):.1f} | {backward_transfer(scores):.1f} | {rows:.0f} |", flush=True)


def learned(data: StreamData, epsilon: float | None) -> tuple[np.ndarray, float]:
    """Return R@10 (steps, pairs) as a share after each step, and the mean number of rows of a device's sketches."""
    with (
        closing(STRATEGIES["ours"](Settings())) as strategy,
        patch("edge_cmcl.host.strategies.ours.update", functools.partial(update, sketch_noise=epsilon)),
    ):
        assert isinstance(strategy, Ours)
        matrix = np.full((len(data.steps), len(data.steps)), np.nan)
        for done in strategy.learn_stream(data.steps):
            for pair, (step, test) in enumerate(zip(data.steps[:done], data.tests[:done], strict=True)):
                weights = strategy.weights(step)
                assert weights is not None
                sides = (unit(x @ w.detach().numpy().T) for x, w in zip((test.a, test.b), weights, strict=True))
                matrix[done - 1, pair] = retrieval(*sides)["recall_at_10"]
        store = strategy._store
        assert isinstance(store, Store)
        return matrix, _rows(Model(store.load(CURRENT)))


def _rows(model: Model) -> float:
    origins = [origin for name in model.modalities for origin in model.origins(name) if origin.device]
    return float(np.mean([len(origin.sketch.rows) for origin in origins]))


if __name__ == "__main__":
    main()
