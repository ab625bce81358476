"""The whole loop on the built-in simulated machine: train, export, install, update, evaluate.

Every step is the installed command itself, in a process of its own, as a user would type it; so the device's steps run
without torch and their memory is theirs alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_cmcl import errors
from edge_cmcl.data.simulator import SENSORS, WINDOW_S, write_simulated
from edge_cmcl.device.text import TEXT
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.errors import EdgeCmclError, PlatformError, UsageError
from edge_cmcl.progress import Progress, silent

BASE = ("vibration", "current")
UPDATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("acoustic", ("vibration",)),
    ("pressure", ("current", "vibration")),
    ("temperature", ("current", "pressure")),
    ("vibration", ("text",)),
)
"""What the device learns, one after the other: a sensor and its partners; "text" is the labels of an operator."""

RECORDED = "acoustic"
"""Of these, the one that a virtual board measures, in accelerated time; the others come out of files."""

_WINDOWS, _TEST_WINDOWS = 600, 300
_SPEED = 100

Say = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """One demonstration.

    Attributes:
        folder: where everything is written.
        say: told each command before it runs.
        progress: told how far the demonstration is.
    """

    folder: Path
    say: Say
    progress: Progress = silent

    def run(self) -> dict[str, Any]:
        """Run the loop and return its figures in JSON types.

        Raises:
            UsageError: there is something in the folder.
            EdgeCmclError: a step failed: the step's own error, with its exit code.
        """
        began = time.monotonic()
        _check_empty(self.folder)
        make_folder(self.folder)
        total = 4 + len(UPDATES)
        self._simulate()
        self.progress("demo", 1, total)
        trained = self._command("train", self.folder, "--run", self.folder / "run")
        self.progress("demo", 2, total)
        key = self.folder / "host.key"
        self._command("keys", "generate", "--out", key)
        exported = self._command("export", self.folder / "run", "--out", self.folder / "base.tar", "--key", key)
        self.progress("demo", 3, total)
        trusted = self.folder / "host.key.pub"
        self._command("install", self.folder / "base.tar", "--trust", trusted, "--store", self._store)
        stages = [{"stage": "base", "pairs": self._evaluate()}]
        self.progress("demo", 4, total)
        updates = []
        for done, (modality, partners) in enumerate(UPDATES, start=5):
            updates.append(self._update(modality, partners))
            stages.append({"stage": f"+ {partners[0] if partners == (TEXT,) else modality}", "pairs": self._evaluate()})
            self.progress("demo", done, total)
        return {
            "simulated": True,
            "folder": str(self.folder),
            "seconds": round(time.monotonic() - began, 1),
            "training_seconds": trained["seconds"],
            "bundle_bytes": exported["bytes"],
            "stages": stages,
            "updates": updates,
        }

    @property
    def _store(self) -> Path:
        return self.folder / "device-store"

    def _simulate(self) -> None:
        write_simulated(self.folder / "base.safetensors", _WINDOWS, BASE, seed=1)
        for seed, (modality, partners) in enumerate(UPDATES, start=2):
            if modality != RECORDED:
                sensors = (modality, *(partner for partner in partners if partner in SENSORS))
                write_simulated(self.folder / f"{modality}.safetensors", _WINDOWS, sensors, seed=seed)
        write_simulated(self.folder / "test.safetensors", _TEST_WINDOWS, seed=99)
        write_bytes(self.folder / "edge-cmcl.toml", _project().encode())

    def _update(self, modality: str, partners: tuple[str, ...]) -> dict[str, Any]:
        options = [option for partner in partners for option in ("--with", partner)]
        if modality == RECORDED:
            self._record((modality, *partners))
            data = self.folder / "recording"
        else:
            data = self.folder / f"{modality}.safetensors"
        return self._command("update", "--modality", modality, "--data", data, *options, "--store", self._store)

    def _record(self, sensors: Sequence[str]) -> None:
        """Record the `sensors` of a virtual board."""
        seconds = _WINDOWS * WINDOW_S
        board = [
            "-m", "firmware_bridge.virtual", "--machine", ",".join(sensors), "--tcp", "127.0.0.1:0",
            "--seconds", str(seconds), "--speed", str(_SPEED), "--seed", "2", "--drift", "50",
        ]  # fmt: skip
        self.say(f"$ python {' '.join(board)} &")
        with subprocess.Popen(
            [sys.executable, *board], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as running:
            try:
                address = running.stdout.readline().strip() if running.stdout else ""
                self._command(
                    "record", address, "--out", self.folder / "recording", "--seconds", str(seconds), "--speed",
                    str(_SPEED),
                )  # fmt: skip
            finally:
                running.terminate()

    def _evaluate(self) -> dict[str, float]:
        """Return R@10 of each pair of sensors and accuracy of each sensor on the test file."""
        found = self._command("evaluate", self._store, "--data", self.folder / "test.safetensors")
        scores = {}
        for pair in found["pairs"]:
            metrics = pair["metrics"]
            name = " - ".join(pair["modalities"])
            scores[name] = metrics["recall_at_10"] if "recall_at_10" in metrics else metrics["accuracy"]
        return scores

    def _command(self, *arguments: str | Path) -> dict[str, Any]:
        texts = [str(argument) for argument in arguments]
        self.say(f"$ edge-cmcl {' '.join(texts)}".replace(str(self.folder), "."))
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, "-m", "edge_cmcl", *texts, "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            raise step_error(texts[0], done.returncode, done.stdout, done.stderr)
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result


def step_error(command: str, returncode: int, stdout: bytes, stderr: bytes) -> EdgeCmclError:
    """Return the error that a command reported, as it would have been raised here, with the exit code it had."""
    try:
        told = json.loads(stdout)["error"]
        kind = getattr(errors, told["type"], EdgeCmclError)
        message = f"the demo's step `edge-cmcl {command}` failed: {told['message']}"
        error: EdgeCmclError = kind(
            message, expected=told.get("expected", ""), got=told.get("got", ""), hint=told.get("to_do", "")
        )
    except (ValueError, KeyError, TypeError):  # it was ended from outside, before it could say anything
        reason = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        got = stderr.decode(errors="replace").strip()[-2000:]
        error = PlatformError(f"the demo's step `edge-cmcl {command}` was ended by {reason}", got=got)
    error.exit_code = 128 - returncode if returncode < 0 else returncode
    return error


def _check_empty(folder: Path) -> None:
    """Refuse to write among files of the user's."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is not an empty folder",
            expected="a new or empty folder",
            got="a file" if folder.is_file() else "a folder with files in it",
            hint="name another one with --keep",
        )


def _project() -> str:
    tables = [
        f"[modality.{name}]\nchannels = {channels}\nrate_hz = {SENSORS[name].rate_hz}\nwindow_s = 2.0\n"
        for name, channels in zip(BASE, (3, 1), strict=True)
    ]
    pair = f'[[pair]]\nmodalities = ["{BASE[0]}", "{BASE[1]}"]\ntrain = ["base.safetensors"]\n'
    return "\n".join(['name = "demo-machine"\n', *tables, pair])
