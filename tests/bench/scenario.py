"""What the measurements learn from: a base that knows a three-axis sensor, and recordings of that and a new one.

With the archive of UTD-MHAD at hand the base is skeleton and accelerometer and the new sensor the gyroscope, on other
subjects for the test. Without it, it is the simulated machine. The folder then holds

    base.tar              the exported bundle
    new.safetensors       pairs of the known and the new sensor, to learn from
    test.safetensors      pairs of both, held out
    base.safetensors      pairs that the base was trained on
    scenario.json         see `Scenario`
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.data.prepare import prepare as prepare_dataset
from edge_cmcl.data.simulator import write_simulated

EDGE_CMCL = Path(sys.executable).with_name("edge-cmcl")
"""The command as installed beside the Python that runs the benchmark."""

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "utd_mhad.tar.xz"

PROJECT = """
name = "bench"

[modality.{known}]
channels = 3
rate_hz = 50.0
window_s = 2.5

[modality.{partner}]
channels = {channels}
rate_hz = 25.0
window_s = 2.5

[[pair]]
modalities = ["{known}", "{partner}"]
train = ["base.safetensors"]
"""


@dataclass(frozen=True)
class Scenario:
    """What a prepared folder is about.

    Attributes:
        source: where the data come from.
        known: the three-axis sensor that the base knows.
        partner: the sensor that the base learned it with.
        new: the sensor to learn.
    """

    source: str
    known: str
    partner: str
    new: str


def prepare(folder: Path, quick: bool) -> dict[str, Any]:
    """Fill `folder` and return what it holds, with the seconds that training and export took."""
    if ARCHIVE.is_file() and not quick:
        scenario, channels = _real(folder), 60
    else:
        scenario, channels = _simulated(folder, 96 if quick else 430), 1
    project = PROJECT.format(known=scenario.known, partner=scenario.partner, channels=channels)
    (folder / "edge-cmcl.toml").write_text(project)
    began = time.monotonic()
    run_command("train", ".", "--run", "run", cwd=folder)
    trained = time.monotonic()
    run_command("keys", "generate", "--out", "host.key", cwd=folder)
    run_command("export", "run", "--out", "base.tar", "--key", "host.key", cwd=folder)
    (folder / "scenario.json").write_text(json.dumps(asdict(scenario)))
    seconds = {"train_s": round(trained - began, 2), "export_s": round(time.monotonic() - trained, 2)}
    return {**asdict(scenario), **seconds}


def read(folder: Path) -> Scenario:
    """Return what `folder` is about."""
    return Scenario(**json.loads((folder / "scenario.json").read_text()))


@contextmanager
def fresh_store(folder: Path) -> Iterator[Path]:
    """Yield a store on which the base of `folder` has just been installed."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-bench-store-") as temporary:
        store = Path(temporary) / "store"
        run_command("install", folder / "base.tar", "--allow-unsigned", "--store", store)
        yield store


def run_command(*arguments: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    """Run the installed command with --json and return its JSON; ends the benchmark where it fails."""
    done = subprocess.run([EDGE_CMCL, *arguments, "--json"], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"edge-cmcl {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr}")
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def _real(folder: Path) -> Scenario:
    prepare_dataset("utd_mhad", ARCHIVE, folder / "utd")
    parts = (
        ("base", "train", ("acc", "skeleton")),
        ("new", "train", ("acc", "gyro")),
        ("test", "test", ("acc", "gyro")),
    )
    for name, part, modalities in parts:
        with open_pairs(folder / "utd" / f"{part}.safetensors") as pairs:
            windows = {modality: pairs.read(modality) for modality in modalities}
            write_pairs(folder / f"{name}.safetensors", windows, groups=pairs.groups, source=pairs.source)
    return Scenario("UTD-MHAD: odd subjects to learn from, even subjects to test", "acc", "skeleton", "gyro")


def _simulated(folder: Path, rows: int) -> Scenario:
    write_simulated(folder / "base.safetensors", rows, ("vibration", "current"), seed=1, labelled=False)
    write_simulated(folder / "new.safetensors", rows, ("vibration", "acoustic"), seed=2, labelled=False)
    write_simulated(folder / "test.safetensors", rows, ("vibration", "acoustic"), seed=3, labelled=False)
    return Scenario("simulated machine, another day to test", "vibration", "current", "acoustic")
