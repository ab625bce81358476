"""How well generations of several devices merge, on real sensors: every candidate, and the product's own merge.

    python tests/bench/merging.py --data FOLDER_OF_PREPARED [--work FOLDER] [--seeds 0 1 2] [--json]
    python tests/bench/merging.py --devices 10 25 50 100 --data FOLDER_OF_PREPARED

Devices are those of fleets.py. "Different": three devices taught different sensors; R@10 in % of every pair on test
subjects (UTD-MHAD, 430 candidates) or the test session (ISL, 78), and the largest relative certificate. "Same": two
devices taught gyro, or depth, on different subjects. Their held-out repetitions are ranked by R@1 (54 candidates, of
which R@10 finds nearly all), those of subjects that no device has met by R@10 (430). With --check it ends with 1 where
the product misses a mark, with --devices it measures time and memory of a merge of so many. Results: merging.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from fleets import fleet
from merge_candidates import CANDIDATES, from_features
from merge_cost import cost
from numpy.typing import NDArray

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.payloads import Adapter
from edge_cmcl.continual.certificate import certify
from edge_cmcl.continual.metrics import retrieval
from edge_cmcl.continual.origin import union
from edge_cmcl.data import open_pairs
from edge_cmcl.device.features import standardise, unit
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.store import CURRENT
from edge_cmcl.host.fleet import merge

DIFFERENT = ("gyro", "depth", "emg")
SAME = {"gyro": ("a", "b"), "depth": ("depth a", "depth b")}
PARTNERS = {"gyro": "acc", "depth": "skeleton"}
UTD, ISL = "utd_mhad/test.safetensors", "isl_myo/test.safetensors"
PAIRS = {
    "acc-skeleton": ("acc", "skeleton", UTD),
    "acc-gyro": ("acc", "gyro", UTD),
    "depth-skeleton": ("depth", "skeleton", UTD),
    "acc-emg": ("acc", "emg", ISL),
}
OWN = {"acc-skeleton": "base", "acc-gyro": "gyro", "depth-skeleton": "depth", "acc-emg": "emg"}
REFERENCES = {"gyro": ("a then b", "both at once"), "depth": ("depth both",)}

OWN_ROW, PRODUCT = "each device's own", "edge-cmcl's merge"
"""Rows of every table."""

Adapters = Mapping[str, Adapter]
Figures = dict[str, float]


class Bench:
    """Devices of one seed, and embeddings of test windows under any adapters.

    Args:
        data: prepared data sets.
        work: where devices and encoder outputs are kept.
        seed: of the base and of the updates.
    """

    def __init__(self, data: Path, work: Path, seed: int) -> None:
        self.data = data
        self.work = work
        self.stores = fleet(data, work, seed)
        self.models = {name: Model(store.load(CURRENT)) for name, store in self.stores.items()}
        self.base = self.models["base"]

    def adapters(self, device: str) -> dict[str, Adapter]:
        """Return the adapters of a device's generation."""
        return adapters_of(self.models[device])

    def recall(self, adapters: Adapters, a: str, b: str, file: str, k: int = 10) -> float:
        """Return R@k in % of the pair (a, b) in `file`."""
        embedded = [self.embed(adapters[name], name, file) for name in (a, b)]
        return 100 * retrieval(*embedded)[f"recall_at_{k}"]

    def embed(self, adapter: Adapter, name: str, file: str) -> NDArray[np.float32]:
        """Return unit embeddings of one sensor of `file`."""
        return unit(standardise(self.raw(name, file), statistics_of(adapter)) @ adapter.weight.T)

    def raw(self, name: str, file: str) -> NDArray[np.float32]:
        """Return a copy of the encoder's outputs, which are kept: the universal encoder is the same for all seeds."""
        path = self.work / "raw" / f"{name}-{file.replace('/', '-')}.npy"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            model = next(model for model in self.models.values() if name in model.modalities)
            with open_pairs((self.work if file.startswith("halves") else self.data) / file) as pairs:
                np.save(path, model.encoder(name)(pairs.read(name)))
        return np.asarray(np.load(path), dtype=np.float32)

    def drift(self, adapters: Adapters, name: str, devices: Sequence[str]) -> float:
        """Return the largest relative certificate of a sensor whose statistics are the same everywhere."""
        models = [self.models[device] for device in devices]
        found = []
        for origin in union(*(model.origins(name) for model in models)):
            holder = next(m for m in models if origin.reference in {o.reference for o in m.origins(name)})
            learned = holder.reference(origin.reference)
            found.append(certify(name, origin.id, origin.sketch, adapters[name].weight, learned, origin.carried))
        return max(each.relative for each in found)


def adapters_of(model: Model) -> dict[str, Adapter]:
    return {name: model.adapter(name) for name in model.modalities}


def merged_by(bench: Bench, devices: Sequence[str]) -> dict[str, Adapter]:
    """Return the adapters of the product's merge of `devices`."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-merging-") as folder:
        host = Store.create(Path(folder) / "host")
        merged = merge(host, [bench.stores[device].load(CURRENT) for device in devices])
        return adapters_of(Model(host.load(merged.digest)))


def candidates(bench: Bench, devices: Sequence[str], shared: Sequence[str]) -> dict[str, Adapters]:
    """Return the adapters that each candidate makes of `shared` sensors, all others as their only device has them."""
    models = [bench.models[device] for device in devices]
    rest = {name: adapter for device in devices for name, adapter in bench.adapters(device).items()}
    found: dict[str, Adapters] = {}
    for title, candidate in CANDIDATES.items():
        made = {name: candidate([m for m in models if name in m.modalities], name, bench.base) for name in shared}
        found[title] = {**rest, **made}
    found[PRODUCT] = merged_by(bench, devices)
    return found


def different(bench: Bench) -> dict[str, Figures]:
    """Return the figures of every way to merge devices that taught different sensors."""

    def figures(adapters: Adapters) -> Figures:
        found = {title: bench.recall(adapters, *pair) for title, pair in PAIRS.items()}
        return {**found, "drift of acc": bench.drift(adapters, "acc", DIFFERENT)}

    own = {title: bench.recall(bench.adapters(OWN[title]), *pair) for title, pair in PAIRS.items()}
    skeleton = {"skeleton": bench.models["depth"].adapter("skeleton")}
    ways = candidates(bench, DIFFERENT, ["acc"])
    ways = {title: {**made, **skeleton} if title != PRODUCT else made for title, made in ways.items()}
    ways["one device, one after another"] = bench.adapters("one after another")
    return {OWN_ROW: own, **{title: figures(made) for title, made in ways.items()}}


def same(bench: Bench, sensor: str) -> dict[str, Figures]:
    """Return the figures of every way to merge two devices that taught the same sensor."""
    a, b = SAME[sensor]
    partner = PARTNERS[sensor]
    files = {a: "halves/a-held-out.safetensors", b: "halves/b-held-out.safetensors"}

    def figures(of: Mapping[str, Adapters]) -> Figures:
        r1 = {(d, e): bench.recall(of[d], partner, sensor, files[e], k=1) for d in (a, b) for e in (a, b)}
        unseen = [bench.recall(of[device], partner, sensor, UTD) for device in (a, b)]
        base = [bench.recall(of[device], *PAIRS["acc-skeleton"]) for device in (a, b)]
        return {
            "own, a": r1[a, a], "own, b": r1[b, b], "the other's, for a": r1[a, b], "the other's, for b": r1[b, a],
            "unseen subjects": mean(unseen), "acc-skeleton": mean(base),
        }  # fmt: skip

    found = {OWN_ROW: figures({device: bench.adapters(device) for device in (a, b)})}
    ways = candidates(bench, (a, b), [partner, sensor])
    ways["re-fitted from cross-moments"] = {**bench.adapters("base"), **refitted(bench, sensor)}
    ways |= {f"one device, {name}": bench.adapters(name) for name in REFERENCES[sensor]}
    return found | {title: figures(dict.fromkeys((a, b), made)) for title, made in ways.items()}


def refitted(bench: Bench, sensor: str) -> dict[str, Adapter]:
    """Return the merged partner, and a sensor re-fitted to it with the cross-moments of both recordings."""
    partner, merged = PARTNERS[sensor], merged_by(bench, SAME[sensor])
    statistics = statistics_of(merged[sensor])
    files = ["halves/a.safetensors", "halves/b.safetensors"]
    features = [standardise(bench.raw(sensor, file), statistics).astype(np.float64) for file in files]
    targets = [bench.embed(merged[partner], partner, file).astype(np.float64) for file in files]
    return {partner: merged[partner], sensor: from_features(features, targets, statistics)}


def marks(runs: Sequence[Mapping[str, Mapping[str, Figures]]]) -> dict[str, bool]:
    """Return what the product's merge has to reach, means over seeds, and whether it does."""

    def fall(setting: str, column: str) -> float:
        return mean(run[setting][OWN_ROW][column] - run[setting][PRODUCT][column] for run in runs)

    def share(pair: str) -> float:
        return mean(run["different"][PRODUCT][pair] / run["different"][OWN_ROW][pair] for run in runs)

    found = {f"95 % of a device's own R@10, {pair}": share(pair) >= 0.95 for pair in PAIRS}
    found["1.5 points lost on the base pair"] = fall("different", "acc-skeleton") <= 1.5
    for sensor in SAME:
        for device in ("a", "b"):
            found[f"2 points lost on {device}'s own {sensor}"] = fall(f"same, {sensor}", f"own, {device}") <= 2.0
            found[f"better on the other's {sensor} than {device}"] = (
                fall(f"same, {sensor}", f"the other's, for {device}") < 0.0
            )
    return found


def table(runs: Sequence[Mapping[str, Figures]]) -> str:
    """Return means over seeds as Markdown."""
    columns = list(next(iter(runs[0].values())))
    columns += [name for figures in runs[0].values() for name in figures if name not in columns][:1]
    rows = [["", *columns], ["---"] * (1 + len(columns))]
    for title in runs[0]:
        cells = [[run[title][name] for run in runs if name in run[title]] for name in columns]
        shown = [
            ("" if not cell else f"{mean(cell):.3f}" if name.startswith("drift") else f"{mean(cell):.1f}")
            for name, cell in zip(columns, cells, strict=True)
        ]
        rows.append([title, *shown])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data sets (`make data`)")
    parser.add_argument("--work", type=Path, default=Path(".bench/merging"), help="keeps what devices have learned")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--check", action="store_true", help="fail where a mark is missed")
    parser.add_argument("--devices", type=int, nargs="+", help="measure the cost for so many devices instead")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found: Any
    if options.devices:
        found = cost(fleet(options.data, options.work, options.seeds[0]), options.devices)
        print(json.dumps(found, indent=2))
        return
    runs: list[dict[str, dict[str, Figures]]] = []
    make = partial(Bench, options.data, options.work)
    for bench in map(make, options.seeds):
        runs.append({"different": different(bench), **{f"same, {name}": same(bench, name) for name in SAME}})
    if options.json:
        print(json.dumps(dict(zip(map(str, options.seeds), runs, strict=True)), indent=2))
        return
    for setting in runs[0]:
        print(f"\n{setting}\n\n{table([run[setting] for run in runs])}")
    missed = [mark for mark, met in marks(runs).items() if not met] if options.check else []
    if missed:
        sys.exit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
