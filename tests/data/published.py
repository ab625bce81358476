"""Writes tiny data sets in the published formats, with values that a test can compute by itself."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
from scipy.io import savemat


def utd_trial(folder: Path, subject: int, action: int = 1, trial: int = 1, depth: bool = True) -> None:
    for kind in ("Inertial", "Skeleton", "Depth"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    key = f"a{action}_s{subject}_t{trial}"
    ramp = np.linspace(0.0, 1.0, 150)[:, None]
    motion = np.hstack([ramp, ramp, ramp + 1, 180 * ramp, 180 * ramp, 180 * ramp])
    savemat(folder / "Inertial" / f"{key}_inertial.mat", {"d_iner": motion})
    joints = np.arange(60, dtype=np.float64).reshape(20, 3, 1) + np.linspace(-0.5, 0.5, 60)
    savemat(folder / "Skeleton" / f"{key}_skeleton.mat", {"d_skel": joints})
    if depth:
        savemat(folder / "Depth" / f"{key}_depth.mat", {"d_depth": utd_depth_video()}, do_compression=True)


def utd_depth_video() -> np.ndarray:
    """A box 2000 mm away before a background that was removed, which comes 10 mm nearer with each frame."""
    video = np.zeros((240, 320, 8), dtype=np.uint16)
    video[80:160, 100:200] = 2000 - 10 * np.arange(8)
    return video


def sisfall_trial(folder: Path, code: str = "D01", subject: str = "SA01", seconds: float = 12.0) -> Path:
    """Row i holds i counts in every column, so the middle of the trial can be told from its edges."""
    path = folder / subject / f"{code}_{subject}_R01.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (", ".join(f"{i:4d}" for _ in range(9)) + ";" for i in range(int(seconds * 200)))
    path.write_text("\n".join(rows) + "\n\n")
    return path


def isl_gesture(folder: Path, letter: str, timestamp: str, missing: int = 0) -> Path:
    """The first channel of each sensor rises from 0; `missing` IMU samples in the middle are null."""
    path = folder / "Dataset" / letter / f"{uuid.uuid5(uuid.NAMESPACE_OID, letter + timestamp)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    imu = [
        {"gyroscope": [180.0, 0.0, 0.0], "acceleration": [i / 400, 0.0, 1.0], "orientation": [0.0, 0.0, 0.0, 1.0]}
        for i in range(400)
    ]
    for row in imu[100 : 100 + missing]:
        row["acceleration"] = [None, None, None]
    emg = [[50, 0, 0, 0, 0, 0, 0, -50]] * 400
    gesture = {"timestamp": timestamp, "duration": 2000, "emg": {"frequency": 200, "data": emg}}
    path.write_text(json.dumps(gesture | {"imu": {"frequency": 200, "data": imu}}))
    return path


def sp_sw_recording(
    folder: Path, subject: int, device: str, offset_ms: int = 0, seconds: int = 6, gap_s: tuple[float, float] = (0, 0)
) -> Path:
    """All sensors show the seconds since the common start, so windows of two devices can be compared."""
    path = folder / "DATA" / f"s{subject:02d}" / f"s{subject:02d}_01_{device}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"]
    for ms in range(offset_ms, seconds * 1000 + 1, 10):
        if not gap_s[0] * 1000 < ms < gap_s[1] * 1000:
            label = "SEATED" if ms < 3000 else "WALKING"
            lines.append(",".join([str(ms / 1000)] * 6) + f",{1_657_544_336_000 + ms},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def borealtc_run(folder: Path, terrain: str, run: int, seconds: float = 12.0, kinds: str = "imu pro") -> None:
    """All sensors show the seconds since the start of the run."""
    (folder / terrain).mkdir(parents=True, exist_ok=True)
    for kind, rate, header in (("imu", 100.0, "time,wx,wy,wz,ax,ay,az"), ("pro", 6.5, "time,curL,curR,velL,velR")):
        if kind in kinds:
            times = np.arange(int(seconds * rate) + 1) / rate
            rows = [",".join([repr(float(t))] * (header.count(",") + 1)) for t in times]
            (folder / terrain / f"{kind}_{run:02d}.csv").write_text("\n".join([header, *rows]) + "\n")


def hydraulic_rig(folder: Path, cycles: int = 12) -> None:
    """Sensor s of cycle c shows c + s + a small ripple; the cooler's condition is 3, 20, 100 in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    ripple = np.sin(np.arange(60)) / 10
    for s, name in enumerate(["TS1", "TS2", "TS3", "TS4", "VS1", "SE"]):
        np.savetxt(folder / f"{name}.txt", np.arange(cycles)[:, None] + s + ripple, fmt="%.6f", delimiter="\t")
    profile = [[(3, 20, 100)[c % 3], 100, 0, 130, 1] for c in range(cycles)]
    np.savetxt(folder / "profile.txt", profile, fmt="%d", delimiter="\t")
