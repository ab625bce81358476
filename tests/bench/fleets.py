"""What the merging of generations is measured on: a base, and devices that taught it different or the same sensors.

The base knows skeleton and acc of UTD-MHAD's odd subjects. Three devices learn different sensors: gyro beside acc and
depth beside skeleton of the same subjects, and emg beside acc of ISL. Two more learn the same sensor on different
subjects, gyro beside acc, of 1 and 3 and of 5 and 7; every fourth repetition of an action is held out. As upper
references, one device each learns all of that one after another, or both pairs of subjects at once.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.fits import FitWarning
from edge_cmcl.device.learner import update
from edge_cmcl.device.store import install, open_store
from edge_cmcl.host.export import export
from edge_cmcl.host.run import load_run
from edge_cmcl.host.train import train

PROJECT = """
name = "fleet"

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
train = ["{data}/utd_mhad/train.safetensors"]
"""

UTD, ISL = "utd_mhad/train.safetensors", "isl_myo/train.safetensors"
A, B, BOTH, FEW = (f"halves/{name}.safetensors" for name in ("a", "b", "both", "a-few"))

DEVICES: dict[str, list[tuple[str, str, str]]] = {
    "gyro": [("gyro", "acc", UTD)],
    "depth": [("depth", "skeleton", UTD)],
    "emg": [("emg", "acc", ISL)],
    "one after another": [("gyro", "acc", UTD), ("depth", "skeleton", UTD), ("emg", "acc", ISL)],
    "a": [("gyro", "acc", A)],
    "b": [("gyro", "acc", B)],
    "a then b": [("gyro", "acc", A), ("gyro", "acc", B)],
    "both at once": [("gyro", "acc", BOTH)],
    "a few": [("gyro", "acc", FEW)],
    "depth a": [("depth", "skeleton", A)],
    "depth b": [("depth", "skeleton", B)],
    "depth both": [("depth", "skeleton", BOTH)],
}
"""Steps (new sensor, partner, pairs file) of each device."""


def repetition(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row how many rows of its action and subject stand before it."""
    seen: dict[tuple[int, int], int] = {}
    found = np.zeros(len(labels), np.int64)
    for row, key in enumerate(zip(labels.tolist(), groups.tolist(), strict=True)):
        found[row] = seen.get(key, 0)
        seen[key] = found[row] + 1
    return found


def write_halves(data: Path, folder: Path) -> None:
    """Write the recordings of subjects {1, 3} (a), {5, 7} (b) and all four into `folder`, and what is held out."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_pairs(data / UTD) as pairs:
        assert pairs.labels is not None
        assert pairs.groups is not None
        windows = {name: pairs.read(name) for name in pairs.modalities}
        repetitions = repetition(pairs.labels, pairs.groups)
        held_out = repetitions == 3
        parts = {"a": np.isin(pairs.groups, (1, 3)), "b": np.isin(pairs.groups, (5, 7))}
        parts["both"] = parts["a"] | parts["b"]
        kept = {name: rows & ~held_out for name, rows in parts.items()}
        kept |= {f"{name}-held-out": rows & held_out for name, rows in parts.items()}
        kept["a-few"] = parts["a"] & (repetitions == 0)
        for name, rows in kept.items():
            write_pairs(
                folder / f"{name}.safetensors",
                {sensor: each[rows] for sensor, each in windows.items()},
                groups=pairs.groups[rows],
                rate_hz={sensor: pairs.rate_hz[sensor] for sensor in windows},
                units={sensor: pairs.units[sensor] for sensor in windows},
            )


def fleet(data: Path, folder: Path, seed: int) -> dict[str, Store]:
    """Return the store of each device, "base" included; those that `folder` holds already are used again."""
    work = folder / f"seed-{seed}"
    if not (folder / "halves").exists():
        write_halves(data, folder / "halves")
    if not (work / "base.tar").exists():
        work.mkdir(parents=True, exist_ok=True)
        (work / "edge-cmcl.toml").write_text(PROJECT.format(data=data.absolute()))
        train(work, work / "run", seed=seed, device="cpu")
        export(load_run(work / "run"), work / "base.tar")
    return {name: _device(data, folder, work, name, seed) for name in ("base", *DEVICES)}


def _device(data: Path, folder: Path, work: Path, name: str, seed: int) -> Store:
    path = work / name.replace(" ", "-")
    if path.exists():
        return open_store(path)
    making = path.with_name(f"{path.name}-making")
    shutil.rmtree(making, ignore_errors=True)
    install(work / "base.tar", making, allow_unsigned=True)
    store = open_store(making)
    for sensor, partner, file in DEVICES.get(name, []):
        found = (folder if file.startswith("halves") else data) / file
        with open_pairs(found) as pairs, warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)  # that machines differ is the point
            update(store, pairs, sensor, partners=[partner], seed=seed)
    making.rename(path)
    return open_store(path)
