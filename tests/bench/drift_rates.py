"""How often the drift watch is wrong: false alarms and detections on real sensors, for 1 to 100 windows in a row.

    python tests/bench/drift_rates.py --data FOLDER_OF_PREPARED [--sets utd_mhad sisfall] [--json]

A base of acc and gyro is trained on the learning subjects and exported, which calibrates it on them alone. Recent
windows are those of the test subjects: as they are, after the sensor was turned (mean of three axes), with noise, and
with one channel dead (0) or stuck. A batch is consecutive windows of one subject, as a device meets them; files are
sorted by activity. UTD-MHAD's subjects 1, 3, 5, 7 learn, SisFall's SA01 to SA04, sp_sw_har's s01 to s15.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.drift import batch_figures, residuals, threshold_for
from edge_cmcl.data import open_pairs
from edge_cmcl.data.corruption import Corruption, corrupt_file
from edge_cmcl.device.calibration import read_calibration
from edge_cmcl.device.features import standard_scores
from edge_cmcl.device.members import guard
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.host.export import exported_model
from edge_cmcl.host.train import train

SETS = {
    "utd_mhad": ("train.safetensors", "test.safetensors"),
    "sisfall": ("train.safetensors", "test.safetensors"),
    "sp_sw_har": ("watch_train.safetensors", "watch_test.safetensors"),
}
SENSORS = {"acc": "g", "gyro": "rad/s"}
SIZES = (1, 10, 50, 100)
ANGLES = (90, 30)
SNRS_DB = (20, 10, 5, 0)

Array = NDArray[np.float32]
Rates = dict[int, list[float]]
"""Share of the batches called drifted, by size, of each subject and axis."""


def turned(windows: Array, degrees: float, axis: int) -> Array:
    """Return (n, T, 3) windows of a sensor that was turned about its axis 0, 1 or 2."""
    angle = np.deg2rad(degrees)
    a, b = ((axis + 1) % 3, (axis + 2) % 3)
    rotation = np.eye(3, dtype=np.float32)
    rotation[[a, b, a, b], [a, b, b, a]] = [np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)]
    return np.ascontiguousarray(windows @ rotation.T)


def failed(windows: Array, channel: int, *, stuck: bool) -> Array:
    """Return windows one channel of which is 0, or stays at what it was at the start of each window."""
    result = windows.copy()
    result[:, :, channel] = windows[:, :1, channel] if stuck else 0.0
    return result


def noisy(file: Path, sensor: str, snr_db: float) -> Array:
    """Return the windows of `sensor` in `file` with white noise."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-drift-") as folder:
        corrupt_file(file, Path(folder) / "noisy.safetensors", Corruption(noise=snr_db))
        with open_pairs(Path(folder) / "noisy.safetensors") as pairs:
            return pairs.read(sensor)


def cases(file: Path, sensor: str) -> Iterator[tuple[str, Callable[[], list[Array]]]]:
    """Yield what may be wrong with a sensor, "normal" first, and its windows, once for each axis where that matters."""
    with open_pairs(file) as pairs:
        windows = pairs.read(sensor)
    yield "normal", lambda: [windows]
    for angle in ANGLES:
        yield f"turned by {angle} degrees", lambda angle=angle: [turned(windows, angle, axis) for axis in range(3)]
    for snr in SNRS_DB:
        yield f"noise, SNR {snr} dB", lambda snr=snr: [noisy(file, sensor, snr)]
    for stuck in (False, True):
        name = "one channel stuck" if stuck else "one channel dead"
        yield name, lambda stuck=stuck: [failed(windows, channel, stuck=stuck) for channel in range(3)]


def called(model: Model, sensor: str, windows: Array, groups: NDArray[np.int64]) -> Rates:
    """Return which share of the batches of each subject the watch calls drifted."""
    statistics = statistics_of(model.adapter(sensor))
    calibration = read_calibration(model.record(sensor))
    assert calibration is not None
    held = guard(model.origins(sensor), len(statistics.mean))
    rest = residuals(standard_scores(model.encoder(sensor)(windows), statistics), held)
    rates: Rates = {}
    for size in SIZES:
        limit = threshold_for(calibration.thresholds, size)
        of_groups = [rest[groups == group] for group in np.unique(groups)]
        rates[size] = [float((batch_figures(part, size) > limit).mean()) for part in of_groups if len(part) >= size]
    return rates


def base(folder: Path, training: Path) -> Path:
    """Train a base of both sensors on `training` and return its run."""
    with open_pairs(training) as pairs:
        tables = [
            f'[modality.{name}]\nchannels = 3\nrate_hz = {pairs.rate_hz[name]!r}\nunit = "{unit}"\n'
            f"window_s = {pairs.shape(name)[0] / pairs.rate_hz[name]!r}\n"
            for name, unit in SENSORS.items()
        ]
    learned = f'[[pair]]\nmodalities = ["acc", "gyro"]\ntrain = ["{training.absolute()}"]\n'
    (folder / "edge-cmcl.toml").write_text("\n".join(['name = "drift"\n', *tables, learned]))
    train(folder, folder / "run", device="cpu")
    return folder / "run"


def measure(data: Path, name: str) -> dict[str, dict[str, dict[int, float]]]:
    """Return for each sensor and case the mean rate by size of batch."""
    training, test = (data / name / file for file in SETS[name])
    with open_pairs(test) as pairs:
        groups = pairs.groups
    assert groups is not None
    found: dict[str, dict[str, dict[int, float]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="edge-cmcl-drift-") as folder,
        exported_model(base(Path(folder), training)) as model,
    ):
        for sensor in SENSORS:
            found[sensor] = {}
            for case, make in cases(test, sensor):
                rates = [called(model, sensor, windows, groups) for windows in make()]
                found[sensor][case] = {
                    size: float(np.mean([rate for each in rates for rate in each[size]])) for size in SIZES
                }
    return found


def table(found: dict[str, dict[str, dict[str, dict[int, float]]]]) -> str:
    """Return the rates in %, for 1 / 10 / 50 / 100 windows, in Markdown."""
    columns = [(name, sensor) for name, sensors in found.items() for sensor in sensors]
    rows = [["called drifted, %", *(f"{name} {sensor}" for name, sensor in columns)], ["---"] * (1 + len(columns))]
    for case in found[columns[0][0]][columns[0][1]]:
        cells = [" / ".join(f"{100 * found[n][s][case][size]:.0f}" for size in SIZES) for n, s in columns]
        rows.append([case, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data sets (`make data`)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = {name: measure(options.data, name) for name in options.sets}
    print(json.dumps(found, indent=2) if options.json else table(found))


if __name__ == "__main__":
    main()
