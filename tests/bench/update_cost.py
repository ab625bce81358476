"""Wall time and peak memory of the installed `edge-cmcl update` on 1,000 pairs of two 3-channel 128-sample windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenario import EDGE_CMCL, fresh_store, read

from edge_cmcl.data import write_pairs

PAIRS, SAMPLES, RATE_HZ = 1000, 128, 50.0
MAX_SECONDS, MAX_BYTES = 10.0, 300_000_000
NEW = "bench_gyro"
GRAVITY_G = 1.0


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Run the update several times, each on a freshly installed base; the largest peak memory counts."""
    known = read(folder).known
    data = folder / "update-cost.safetensors"
    write_pairs(data, recording(known, 120 if quick else PAIRS), rate_hz={known: RATE_HZ, NEW: RATE_HZ})
    runs = [_update(folder, data) for _ in range(1 if quick else 3)]
    seconds, peak = median(run["seconds"] for run in runs), max(run["bytes"] for run in runs)
    return {
        "pairs": 120 if quick else PAIRS,
        "windows": [[SAMPLES, 3], [SAMPLES, 3]],
        "seconds": {"median": round(seconds, 2), "all": [round(run["seconds"], 2) for run in runs]},
        "cpu_seconds": round(median(run["cpu_seconds"] for run in runs), 2),
        "peak_memory_bytes": peak,
        "stages_s": runs[-1]["report"]["seconds"],
        "epochs": runs[-1]["report"]["epochs"],
        "torch_loaded": any(run["torch_loaded"] for run in runs),
        "ratio": round(MAX_SECONDS / seconds, 2),
        "target": {"seconds": MAX_SECONDS, "peak_memory_bytes": MAX_BYTES},
        "met": seconds < MAX_SECONDS and peak < MAX_BYTES and not any(run["torch_loaded"] for run in runs),
    }


def recording(known: str, rows: int) -> dict[str, NDArray[np.float32]]:
    """Return windows of a body that turns about three axes: what it feels of gravity (g), and how fast it turns."""
    random = np.random.default_rng(0)
    time_s = np.arange(SAMPLES) / RATE_HZ
    hz, phase, size = (random.uniform(low, high, (rows, 1, 3, 4)) for low, high in ((0.2, 4.0), (0.0, 6.3), (0.1, 0.6)))
    swing = 2 * np.pi * hz
    angle = (size * np.sin(swing * time_s[:, None, None] + phase)).sum(axis=3)
    turning = (size * swing * np.cos(swing * time_s[:, None, None] + phase)).sum(axis=3)
    sensed = {known: GRAVITY_G * np.sin(angle), NEW: turning / 5.0}
    return {
        name: (values + 0.05 * random.standard_normal(values.shape)).astype(np.float32)
        for name, values in sensed.items()
    }


def _update(folder: Path, data: Path) -> dict[str, Any]:
    with fresh_store(folder) as store:
        command = [EDGE_CMCL, "update", "--modality", NEW, "--data", data, "--store", store, "--json"]
        began = time.perf_counter()
        with (folder / "update-cost.json").open("w+") as out, (folder / "update-cost.log").open("w+") as log:
            child = subprocess.Popen(command, stdout=out, stderr=log)
            torch_loaded = False
            # wait4 tells this child's own peak memory, which `RUSAGE_CHILDREN` would mix with that of others.
            while (done := os.wait4(child.pid, os.WNOHANG))[0] == 0:
                torch_loaded |= "libtorch" in _mapped(child.pid)
                time.sleep(0.02)
            seconds = time.perf_counter() - began
            out.seek(0)
            log.seek(0)
            code = child.returncode = os.waitstatus_to_exitcode(done[1])
            if code:
                sys.exit(f"edge-cmcl update ended with {code}:\n{log.read()}")
            report = json.load(out)
    usage = done[2]
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "bytes": usage.ru_maxrss * 1024,
        "torch_loaded": torch_loaded,
        "report": report,
    }


def _mapped(pid: int) -> str:
    """Return what files process `pid` has mapped; nothing in the instant in which it ends."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""
