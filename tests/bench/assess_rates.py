"""False alarms and misses of `edge-cmcl assess` on UTD-MHAD, the table of the README.

    python tests/bench/assess_rates.py [--draws 20] [--seed 0] [--data FOLDER] [--part test]

A base of skeleton and accelerometer is trained on the odd subjects. Of the even ones, whom it has never seen, 32, 100
and 400 pairs are drawn: of the gyroscope beside the accelerometer and of depth beside the skeleton, as recorded,
shuffled, shuffled within each subject, and with random windows of the same mean and scale in place of the sensor. What
is judged is what `assess` judges, by the same functions: the pairing against shuffled ones, the share that is new, and
the policy. All windows are encoded once. The guard's part, a rehearsal of the update, is left out here: it can refuse,
but never recommend; `--rehearse` runs the whole of `assess` instead, on the pairs as recorded.

Thresholds and the rule for blocks were chosen on other data: the odd subjects, SisFall, ISL and the simulated machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scenario import ARCHIVE, run_command

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.data.prepare import prepare as prepare_dataset
from edge_cmcl.data.splits import folds
from edge_cmcl.device.advice import LEARN, UNCLEAR, Findings, advise
from edge_cmcl.device.assess import assess
from edge_cmcl.device.evidence import new_share, pair_evidence
from edge_cmcl.device.features import RunningStatistics, standardise, unit
from edge_cmcl.device.fitting import FOLDS
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.plan import universal_record
from edge_cmcl.device.store import open_store

PAIRS = (("gyro", "acc"), ("depth", "skeleton"))
SIZES = (32, 100, 400)
KINDS = ("recorded", "shuffled", "shuffled within subjects", "noise")

Array = NDArray[np.float32]

PROJECT = """
name = "rates"

[modality.skeleton]
channels = 60
rate_hz = 18
window_s = 3.5

[modality.acc]
channels = 3
rate_hz = 36
window_s = 3.5
unit = "g"

[[pair]]
modalities = ["skeleton", "acc"]
train = ["{train}"]
"""


@dataclass(frozen=True)
class Encoded:
    """What the draws are made of: raw encoder outputs (n, width) by sensor, noise too, and the subject of each row."""

    model: Model
    raw: dict[str, Array]
    groups: NDArray[np.int64]

    def known_features(self, name: str, rows: NDArray[np.int64]) -> Array:
        """Return unit features of a sensor that the base knows."""
        return standardise(self.raw[name][rows], statistics_of(self.model.adapter(name)))


def main() -> None:
    options = _options()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-rates-") as temporary:
        folder = Path(temporary)
        data = options.data or folder / "utd"
        if options.data is None:
            prepare_dataset("utd_mhad", ARCHIVE, data)
        store = _base(folder, data / "train.safetensors")
        recording = data / f"{options.part}.safetensors"
        if options.rehearse:
            found = dict(_rehearsed(store, recording, folder, options.draws, options.seed))
        else:
            found = dict(_rates(_encode(store, recording), options.draws, options.seed))
    print(_table(found))
    report = {"part": options.part, "draws": options.draws, "seed": options.seed, "counts": found}
    print(json.dumps({**report, "seconds": round(time.monotonic() - began, 1)}), file=sys.stderr)


def _base(folder: Path, train: Path) -> Path:
    (folder / "edge-cmcl.toml").write_text(PROJECT.format(train=train.resolve()))
    run_command("train", ".", "--run", "run", cwd=folder)
    run_command("export", "run", "--out", "base.tar", cwd=folder)
    run_command("install", "base.tar", "--allow-unsigned", "--store", "store", cwd=folder)
    return folder / "store"


def _encode(store: Path, recording: Path) -> Encoded:
    model = open_model(store)
    raw: dict[str, Array] = {}
    random = np.random.default_rng(12345)
    with open_pairs(recording) as pairs:
        for name in ("acc", "skeleton", "gyro", "depth"):
            record = universal_record(pairs, name, 1800, model.generation.universal)
            windows = pairs.read(name)
            if name in model.modalities:
                raw[name] = model.encoder(name)(windows)
                continue
            noise = (windows.mean() + windows.std() * random.standard_normal(windows.shape)).astype(np.float32)
            for kind, seen in ((name, windows), (f"{name} noise", noise)):
                raw[kind] = model.make_encoder(name, record)(seen)
                raw[f"{kind} copy"] = model.make_encoder(f"{name}_copy", record)(seen)
        assert pairs.groups is not None
        return Encoded(model, raw, pairs.groups)


def _rates(encoded: Encoded, draws: int, seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield for each case how often each recommendation was given."""
    for sensor, partner in PAIRS:
        for kind in KINDS:
            for size in SIZES:
                case = [PAIRS.index((sensor, partner)), KINDS.index(kind), size]
                given = [
                    _recommendation(encoded, sensor, partner, kind, size, np.random.default_rng([seed, draw, *case]))
                    for draw in range(draws)
                ]
                yield f"{sensor} beside {partner}|{kind}|{size}", dict(Counter(given))
                print(f"{sensor} {kind} {size}: {Counter(given)}", file=sys.stderr, flush=True)


def _recommendation(
    encoded: Encoded, sensor: str, partner: str, kind: str, size: int, random: np.random.Generator
) -> str:
    n = len(encoded.groups)
    rows = np.sort(random.choice(n, size, replace=False))
    theirs, groups = rows, encoded.groups[rows]
    if kind == "shuffled":
        theirs = random.permutation(rows)
    elif kind == "shuffled within subjects":
        theirs = np.concatenate([random.permutation(rows[groups == group]) for group in dict.fromkeys(groups)])
    source = f"{sensor} noise" if kind == "noise" else sensor
    own, copy = (_features(encoded.raw[name][rows]) for name in (source, f"{source} copy"))
    adapter = encoded.model.adapter(partner)
    features = encoded.known_features(partner, theirs)
    splits = folds(size, groups, FOLDS)
    evidence = pair_evidence(partner, own, unit(features @ adapter.weight.T), splits, groups)
    share = new_share(own, [features], copy, splits)
    return advise(Findings(sensor, False, size, [evidence], share)).recommendation


def _features(raw: Array) -> Array:
    running = RunningStatistics(raw.shape[1])
    running.update(raw)
    return standardise(raw, running.statistics())


def _rehearsed(
    store: Path, recording: Path, folder: Path, draws: int, seed: int
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield for each case as recorded how often the whole of `assess` gave each recommendation."""
    with open_pairs(recording) as pairs:
        assert pairs.groups is not None
        for sensor, partner in PAIRS:
            windows = {name: pairs.read(name) for name in (sensor, partner)}
            for size in SIZES:
                given = []
                for draw in range(draws):
                    case = [PAIRS.index((sensor, partner)), 0, size]
                    rows = np.sort(np.random.default_rng([seed, draw, *case]).choice(pairs.n, size, replace=False))
                    path = folder / "draw.safetensors"
                    drawn = {name: values[rows] for name, values in windows.items()}
                    write_pairs(path, drawn, groups=pairs.groups[rows])
                    with open_pairs(path) as part:
                        given.append(assess(open_store(store), part, sensor).recommendation)
                yield f"{sensor} beside {partner}|recorded|{size}", dict(Counter(given))
                print(f"{sensor} recorded {size}: {Counter(given)}", file=sys.stderr, flush=True)


def _table(found: dict[str, dict[str, int]]) -> str:
    """Return the table: wrong and unclear answers in % by case; wrong is `learn` where nothing belongs together."""
    lines = ["| pair | pairing | pairs | learn | unclear | do not learn | wrong, % |", "|---|---|---|---|---|---|---|"]
    for case, counts in found.items():
        pair, kind, size = case.split("|")
        total = sum(counts.values())
        learn, unclear = counts.get(LEARN, 0), counts.get(UNCLEAR, 0)
        against = total - learn - unclear
        wrong = against if kind == "recorded" else learn
        lines.append(f"| {pair} | {kind} | {size} | {learn} | {unclear} | {against} | {100 * wrong / total:.0f} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20, help="draws of each case")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--data", type=Path, help="a folder that `edge-cmcl data prepare utd_mhad` made")
    parser.add_argument("--part", choices=("test", "train"), default="test", help="even subjects, or the odd ones")
    parser.add_argument("--rehearse", action="store_true", help="the whole of `assess`, on the pairs as recorded")
    return parser.parse_args()


if __name__ == "__main__":
    main()
