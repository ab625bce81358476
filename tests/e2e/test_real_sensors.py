"""UTD-MHAD: a base of skeleton and acc learns gyro and depth on the device (issue 2, no. 3). Figures: .bench/."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import EDGE_CMCL
from prepared_data import ROOT, prepared
from scipy import stats

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.contents import read_origins
from edge_cmcl.continual.metrics import retrieval
from edge_cmcl.data import open_pairs
from edge_cmcl.device.features import standardise, unit
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.host.encoding import frozen_encoders
from edge_cmcl.host.export import export
from edge_cmcl.host.run import load_run
from edge_cmcl.host.train import train

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)
BASE, GYRO, DEPTH = ("acc", "skeleton"), ("acc", "gyro"), ("depth", "skeleton")
UPDATES = (("gyro", "acc"), ("depth", "skeleton"))
MODALITIES = {
    "skeleton": "channels = 60\nrate_hz = 18\nwindow_s = 3.5",
    "acc": 'channels = 3\nrate_hz = 36\nwindow_s = 3.5\nunit = "g"',
    "gyro": 'channels = 3\nrate_hz = 36\nwindow_s = 3.5\nunit = "rad/s"',
    "depth": 'frame = [30, 40]\nrate_hz = 18\nwindow_s = 3.5\nunit = "m"',
}

Scores = dict[str, float]


@dataclass(frozen=True)
class Workplace:
    """Where one test run trains, installs and learns."""

    folder: Path
    data: Path

    def project(self, pair: tuple[str, str]) -> Path:
        """Return the folder of a project that knows `pair` alone."""
        folder = self.folder / "-".join(pair)
        folder.mkdir(exist_ok=True)
        tables = [f"[modality.{name}]\n{MODALITIES[name]}\n" for name in pair]
        learned = f'[[pair]]\nmodalities = ["{pair[0]}", "{pair[1]}"]\ntrain = ["{self.data}/train.safetensors"]\n'
        (folder / "edge-cmcl.toml").write_text("\n".join(['name = "utd"\n', *tables, learned]))
        return folder

    def command(self, *arguments: str | Path) -> dict[str, Any]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [EDGE_CMCL, *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def recall(self, store: Path) -> Scores:
        """Return R@10 in percent of each pair that the device knows, on the subjects that it has never seen."""
        found = self.command("evaluate", store, "--data", self.data / "test.safetensors")["pairs"]
        return {"-".join(pair["modalities"]): 100 * pair["metrics"]["recall_at_10"] for pair in found}

    def recall_alone(self, pair: tuple[str, str], seed: int) -> float:
        """Return R@10 in percent of a base trained for `pair` alone."""
        run = train(self.project(pair), self.folder / "alone" / f"{'-'.join(pair)}-{seed}", seed=seed)
        encoders, _ = frozen_encoders(run.project)
        embeddings = []
        with open_pairs(self.data / "test.safetensors") as test:
            for name in pair:
                adapter = run.adapters[name]
                features = standardise(encoders[name](test.read(name)), statistics_of(adapter))
                embeddings.append(unit(features @ adapter.weight.T))
        return 100 * retrieval(*embeddings)["recall_at_10"]


def measure(place: Workplace, seed: int) -> dict[str, Any]:
    """Train, export, install and update twice with one seed; return all figures."""
    run, bundle, store = (place.folder / f"{what}-{seed}" for what in ("run", "base.tar", "store"))
    place.command("train", place.project(BASE), "--run", run, "--seed", str(seed))
    export(load_run(run), bundle)
    place.command("install", bundle, "--allow-unsigned", "--store", store)
    stages = [place.recall(store)]
    updates = []
    for modality, partner in UPDATES:
        asked = ("--modality", modality, "--with", partner, "--data", place.data / "train.safetensors")
        updates.append(place.command("update", *asked, "--seed", str(seed), "--store", store))
        stages.append(place.recall(store))
    return {
        "stages": stages,
        "updates": [{key: u[key] for key in ("penalty", "epochs", "seconds", "peak_memory_bytes")} for u in updates],
        "alone": {"-".join(pair): place.recall_alone(pair, seed) for pair in (GYRO, DEPTH)},
        "certificates": displacements(Store(store), place.data / "train.safetensors"),
    }


def displacements(store: Store, data: Path) -> list[dict[str, Any]]:
    """Return for each origin of today's generation the bound it states and the displacement really measured.

    Every origin here was learned from all rows of `data`; its adapter then is that of the generation that learned it.
    """
    history = [Model(loaded) for loaded in store.lineage([store.tags()["current"]])]  # newest first
    now = history[0]
    found = []
    with open_pairs(data) as pairs:
        for modality in ("acc", "skeleton"):
            features = now.features(modality, pairs.read(modality))
            for origin in read_origins(now.loaded, modality):
                then = next(model for model in reversed(history) if origin.id in ids_of(model, modality))
                moved = features @ (now.adapter(modality).weight - then.adapter(modality).weight).T
                learned = features @ then.adapter(modality).weight.T
                (stated,) = (c for c in now.generation.certificate if (c.modality, c.origin) == (modality, origin.id))
                found.append(
                    {
                        "modality": modality,
                        "origin": origin.id.partition(":")[0] if origin.device == "" else "device",
                        "n": origin.sketch.n,
                        "bound": stated.bound,
                        "relative": stated.relative,
                        "measured": mean_square(moved),
                        "measured_relative": mean_square(moved) / mean_square(learned),
                    }
                )
    return found


def ids_of(model: Model, modality: str) -> set[str]:
    return {origin.id for origin in read_origins(model.loaded, modality)}


def mean_square(rows: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    return float(np.square(rows, dtype=np.float64).sum(axis=1).mean())


def summary(values: list[float]) -> dict[str, Any]:
    """Return the mean over seeds with its 95 % interval (Student's t)."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return {"mean": mean, "interval": [mean - half, mean + half], "seeds": values}


@pytest.fixture(scope="module")
def figures(archive: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = Workplace(tmp_path_factory.mktemp("real"), prepared("utd_mhad", archive("utd_mhad")))
    runs = [measure(place, seed) for seed in SEEDS]

    def last(run: Mapping[str, Any], pair: tuple[str, str]) -> float:
        return float(run["stages"][-1]["-".join(pair)])

    def share(pair: tuple[str, str]) -> list[float]:
        return [100 * last(run, pair) / run["alone"]["-".join(pair)] for run in runs]

    found = {
        "acc-skeleton, fall of R@10 in points": summary([r["stages"][0]["-".join(BASE)] - last(r, BASE) for r in runs]),
        "acc-gyro, % of R@10 of the pair alone": summary(share(GYRO)),
        "depth-skeleton, % of R@10 of the pair alone": summary(share(DEPTH)),
        "R@10": {"-".join(pair): summary([last(run, pair) for run in runs]) for pair in (BASE, GYRO, DEPTH)},
        "R@10 alone": {"-".join(pair): summary([r["alone"]["-".join(pair)] for r in runs]) for pair in (GYRO, DEPTH)},
        "runs": runs,
    }
    text = json.dumps(found, indent=2)
    (ROOT / ".bench" / "real_sensors.json").write_text(text)
    print(text)
    return found


def test_what_the_base_knew_falls_by_less_than_one_and_a_half_points(figures: dict[str, Any]) -> None:
    assert figures["acc-skeleton, fall of R@10 in points"]["mean"] < 1.5


def test_a_sensor_learned_on_the_device_is_nearly_as_good_as_one_trained_for_its_pair_alone(
    figures: dict[str, Any],
) -> None:
    assert figures["acc-gyro, % of R@10 of the pair alone"]["mean"] >= 95
    assert figures["depth-skeleton, % of R@10 of the pair alone"]["mean"] >= 85


def test_the_certificate_bounds_the_displacement_really_measured_and_is_not_far_above(figures: dict[str, Any]) -> None:
    moved = [c for run in figures["runs"] for c in run["certificates"] if c["origin"] == "base"]
    assert len(moved) == 2 * len(SEEDS)
    for certificate in moved:
        assert 0 < certificate["measured"] <= certificate["bound"] < 10 * certificate["measured"], certificate
        assert certificate["measured_relative"] <= certificate["relative"]
    for run in figures["runs"]:
        for certificate in run["certificates"]:
            assert certificate["measured"] <= certificate["bound"], certificate
