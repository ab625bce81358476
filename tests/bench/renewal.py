"""What renewing statistics costs what was learned before, against keeping them (device/renewal.py).

    python tests/bench/renewal.py --data FOLDER_OF_PREPARED [--seeds 3] [--json]

A base of acc and gyro of UTD-MHAD is taught SisFall's, then those of sp_sw_har's watch: other machines, in the same
units. R@10 in % of all three on their test subjects after both updates, and the largest displacement of the base's
embeddings that was measured on its training windows, as a share of what its certificate allows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from drift_rates import SENSORS, base

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.features import standard_scores
from edge_cmcl.device.fits import FitWarning
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.host.export import export
from edge_cmcl.host.run import load_run

FIRST = "utd_mhad/train.safetensors"
UPDATES = {"sisfall": "sisfall/train.safetensors", "watch": "sp_sw_har/watch_train.safetensors"}
TESTS = {
    "utd_mhad": "utd_mhad/test.safetensors",
    "sisfall": "sisfall/test.safetensors",
    "watch": "sp_sw_har/watch_test.safetensors",
}


def recalls(model: Model, data: Path) -> dict[str, float]:
    """Return R@10 in % of acc-gyro on the test part of each data set."""
    found = {}
    for name, file in TESTS.items():
        with open_pairs(data / file) as pairs:
            (each,) = (each for each in evaluate(model, pairs) if set(each.modalities) == set(SENSORS))
            found[name] = 100 * each.metrics["recall_at_10"]
    return found


def used_bound(store: Store, data: Path) -> float:
    """Return the base's measured displacement as a share of its bound, the larger one of both sensors.

    Old windows are taken with the length that they had when they were learned, as the certificate does.
    """
    now, then = Model(store.load(CURRENT)), Model(list(store.lineage([store.tags()[CURRENT]]))[-1])
    shares = []
    with open_pairs(data / FIRST) as pairs:
        for name in SENSORS:
            raw = now.encoder(name)(pairs.read(name))
            old, new = then.adapter(name), now.adapter(name)
            scores = standard_scores(raw.copy(), statistics_of(old))
            lengths = np.linalg.norm(scores, axis=1, keepdims=True)
            moved = (standard_scores(raw, statistics_of(new)) @ new.weight.T - scores @ old.weight.T) / lengths
            bounds = {c.origin: c.bound for c in now.generation.certificate if c.modality == name}
            (origin,) = (origin for origin in now.origins(name) if origin.device == "")
            shares.append(float(np.square(moved, dtype=np.float64).sum(axis=1).mean()) / bounds[origin.id])
    return max(shares)


def measure(bundle: Path, data: Path, seed: int, *, renew: bool) -> dict[str, Any]:
    """Return the figures of one device that renews stale statistics, or keeps them."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-renewal-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # that rates differ between machines is the point
        install(bundle, Path(folder) / "store", allow_unsigned=True)
        store, renewed = open_store(Path(folder) / "store"), []
        for task, file in UPDATES.items():
            with open_pairs(data / file) as pairs:
                report = update(store, pairs, "acc", partners=["gyro"], task=task, renew_stale=renew, seed=seed)
            renewed += [f"{task} {name}" for name in report.renewed]
        model = Model(store.load(CURRENT))
        return {"recall_at_10": recalls(model, data), "renewed": renewed, "bound used": used_bound(store, data)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data sets (`make data`)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, Any]]] = {"kept": [], "renewed": []}
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-renewal-") as folder:
        export(load_run(base(Path(folder), options.data / FIRST)), Path(folder) / "base.tar")
        for seed in range(options.seeds):
            for arm, figures in found.items():
                figures.append(measure(Path(folder) / "base.tar", options.data, seed, renew=arm == "renewed"))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"| statistics | {' | '.join(TESTS)} | bound used |\n| --- |{' --- |' * (len(TESTS) + 1)}")
    for arm, figures in found.items():
        cells = [spread([each["recall_at_10"][name] for each in figures]) for name in TESTS]
        print(f"| {arm} | {' | '.join(cells)} | {100 * max(each['bound used'] for each in figures):.0f} % |")


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
