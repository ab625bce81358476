"""Looks a device over before it is relied on: the board, what is installed, the store, the clock, and the room.

Nothing is changed and nothing is counted: a generation on trial is looked at, not started.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import distributions, version
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.device.board import Board, clock_is_synchronised, read_board
from edge_cmcl.device.intact import fallbacks, intact
from edge_cmcl.device.model import Model
from edge_cmcl.device.providers import ProviderWarning
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.starting import current_model
from edge_cmcl.device.store import CURRENT, open_store, store_bytes
from edge_cmcl.device.trial import reverted_of, trial_of
from edge_cmcl.errors import EdgeCmclError, IntegrityError, ModelError

FINE, NOTE, WARNING, PROBLEM = "fine", "note", "warning", "problem"
LEVELS = (FINE, NOTE, WARNING, PROBLEM)

UPDATE_MEMORY_BYTES = 250_000_000
"""An update of 1,000 pairs of two 3-channel windows took 215 MB (README, `make bench`)."""
UPDATE_ROOM_BYTES = 60_000_000
"""Of a few updates and their work files: 4.7 MB in the store and about 20 MB beside it each, as measured there."""
STORE_BYTES = 100_000_000
MIN_CORES = 2

RELEASED = datetime(2026, 11, 1, tzinfo=timezone.utc)
"""No device that runs this can rightly think that it is earlier."""

# One node, y = x + x: the smallest graph that a provider must really run.
_GRAPH = (
    b'\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b'
    b"\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


_RUNTIME = re.compile(r"onnxruntime([-_](gpu|cuda|jetson|directml|openvino|rocm|qnn|silicon|training).*)?")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: in a word or two.
        level: one of `LEVELS`.
        found: what is so.
        remedy: what to do about it; "" where nothing need be done.
    """

    what: str
    level: str
    found: str
    remedy: str = ""


def examine(store: Path, *, root: Path = Path("/")) -> list[Finding]:
    """Return what was found about this machine and the device store at `store`, in reading order.

    Args:
        store: its folder; it may not be there yet.
        root: where the system's files are.
    """
    board = read_board(root)
    return [
        *_board(board),
        *_packages(),
        *_providers(board),
        *_clock(root),
        *_store(store),
        *_room(store, board),
    ]


def _board(board: Board) -> Iterator[Finding]:
    what = [board.model or "a machine that does not name itself", board.architecture, f"{board.cores} cores",
            f"{board.memory_bytes / 1e9:.1f} GB of memory"]  # fmt: skip
    if board.l4t:
        what.append(f"Jetson Linux {board.l4t}")
    yield Finding("board", FINE, ", ".join(what))
    if board.power_mode:
        yield Finding(
            "power mode", NOTE, board.power_mode, "for the shortest updates: sudo nvpmodel -m 0; sudo jetson_clocks"
        )
    if board.cores < MIN_CORES:
        yield Finding(
            "cores", NOTE, str(board.cores), "an update shares it with everything else: `update --nice` helps"
        )


def _packages() -> Iterator[Finding]:
    names = ("edge-cmcl", "onnxruntime", "numpy")
    found = {name: _version(name) for name in names}
    told = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    yield Finding("software", FINE, f"Python {sys.version.split()[0]}, {told}")
    runtimes = onnxruntimes()
    if len(runtimes) > 1:
        listed = " and ".join(f"{name} {number}" for name, number in runtimes.items())
        yield Finding(
            "onnxruntime", PROBLEM, f"{listed} are installed into the same folder, and overwrite each other",
            f"pip uninstall {' '.join(runtimes)}; then install the one for this board again",
        )  # fmt: skip


def onnxruntimes() -> dict[str, str]:
    """Return the installed distributions that bring the module onnxruntime, with their versions."""
    found = {each.metadata["Name"].lower(): each.version for each in distributions() if each.metadata["Name"]}
    return {name: found[name] for name in sorted(found) if _RUNTIME.fullmatch(name)}


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return ""


def _providers(board: Board) -> Iterator[Finding]:
    for name in ort.get_available_providers():
        if name == "AzureExecutionProvider":  # it calls a service
            continue
        why = provider_fails(name)
        if why:
            yield Finding(
                "provider", WARNING, f"{name} does not load: {why}",
                "check that CUDA, cuDNN and TensorRT are those that it was built for; the CPU works meanwhile",
            )  # fmt: skip
        else:
            yield Finding("provider", FINE, f"{name} runs")
    if board.l4t and "CUDAExecutionProvider" not in ort.get_available_providers():
        yield Finding(
            "provider", NOTE, "this board has a GPU, and its onnxruntime does not know it",
            "install onnxruntime-gpu for this JetPack in place of onnxruntime (deploy/OPERATIONS.md)",
        )  # fmt: skip


def provider_fails(name: str) -> str:
    """Return why the execution provider `name` does not run a graph here, "" where it does."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(_GRAPH, options, providers=[name])
        if session.get_providers()[0] != name:
            return "a library that it needs is missing"
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        return str(error).splitlines()[0][:200]
    return ""


def _clock(root: Path) -> Iterator[Finding]:
    now = datetime.now(timezone.utc)
    if now < RELEASED:
        yield Finding(
            "clock", PROBLEM, f"it is {now:%Y-%m-%d %H:%M} UTC here, before this software was released",
            "set it (timedatectl set-ntp true); recordings and generations carry its time",
        )  # fmt: skip
        return
    synchronised = clock_is_synchronised(root)
    told = {True: "set by a time service", False: "not set by its time service yet", None: "nothing says who sets it"}
    level = WARNING if synchronised is False else FINE
    remedy = "timedatectl status; does it reach its time server?" if synchronised is False else ""
    yield Finding("clock", level, f"{now:%Y-%m-%d %H:%M} UTC, {told[synchronised]}", remedy)


def _store(path: Path) -> Iterator[Finding]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = list(_generation(path))
    yield from found
    for each in told:
        if isinstance(each.message, ProviderWarning):  # a graph does not run where it was exported for
            what, _, advice = str(each.message).partition("; ")
            yield Finding("provider", WARNING, what, advice)
        else:
            warnings.warn(each.message, stacklevel=2)


def _generation(path: Path) -> Iterator[Finding]:
    try:
        store = open_store(path)
        model = current_model(store)
        check_digests(model.loaded)
    except ModelError as error:
        yield Finding("store", NOTE, error.message, error.hint)
        return
    except IntegrityError as error:
        yield Finding("store", PROBLEM, error.message, _mending(path))
        return
    except EdgeCmclError as error:
        yield Finding("store", PROBLEM, str(error).replace("\n", ";"), error.hint)
        return
    yield Finding("store", FINE, f"{path}: generation {model.generation.counter} of {model.generation.name}, whole")
    yield from _trial(store, model)
    yield _tested(model)
    yield _writable(path)


_MEND = "where it came in a bundle, install that again to mend it"


def _mending(path: Path) -> str:
    """Return what to do about a damaged generation; to go back one may lead to another with the same damage."""
    with suppress(EdgeCmclError):
        store = open_store(path)
        for whole in intact(store, fallbacks(store, store.tags()[CURRENT])):
            return f"go back to the best whole one: edge-cmcl rollback {whole.digest[7:19]}; or, {_MEND}"
    return f"no whole generation is left here: {_MEND}"


def _trial(store: Store, model: Model) -> Iterator[Finding]:
    state = store.state()
    trial, reverted = trial_of(state, model.loaded.digest), reverted_of(state, model.loaded.digest)
    if trial is not None:
        yield Finding("trial", NOTE, f"on trial since {trial.since}", "edge-cmcl confirm keeps it")
    if reverted is not None:
        yield Finding(
            "trial", WARNING, f"generation {reverted.digest[7:19]} was reverted: {reverted.reason}", "edge-cmcl log"
        )


def _tested(model: Model) -> Finding:
    began = time.monotonic()
    try:
        self_test(model)
    except EdgeCmclError as error:
        return Finding("self-test", PROBLEM, str(error).replace("\n", ";"), error.hint or _MEND)
    return Finding("self-test", FINE, f"every sensor answers as where it was made ({time.monotonic() - began:.1f} s)")


def _writable(path: Path) -> Finding:
    if os.access(path, os.W_OK):
        return Finding("permissions", FINE, "this user may write to the store")
    return Finding(
        "permissions", WARNING, f"this user may not write to {path}: reading works, updates do not",
        "run updates as the store's owner (the service user, after deploy/install.sh)",
    )  # fmt: skip


def _room(path: Path, board: Board) -> Iterator[Finding]:
    place = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    needed = UPDATE_ROOM_BYTES if path.exists() else UPDATE_ROOM_BYTES + STORE_BYTES
    size = f", the store takes {store_bytes(Store(path)) / 1e6:.0f} MB" if _is_store(path) else ""
    told = f"{free / 1e6:.0f} MB free at {place}{size}"
    if free < needed:
        yield Finding("disk", PROBLEM, told, f"{_ROOM_MADE} ({needed / 1e6:.0f} MB are needed)")
    else:
        yield Finding("disk", FINE, told)
    told = f"{board.available_bytes / 1e6:.0f} MB available"
    if board.available_bytes < UPDATE_MEMORY_BYTES:
        yield Finding(
            "memory", WARNING, f"{told}; an update of 1,000 pairs takes about {UPDATE_MEMORY_BYTES / 1e6:.0f} MB",
            "stop what is not needed meanwhile, or bound it: edge-cmcl update --max-memory",
        )  # fmt: skip
    else:
        yield Finding("memory", FINE, f"{told}: an update fits")


# In this order: nothing that was learned hangs on a recording.
_ROOM_MADE = "delete old recordings or logs, then edge-cmcl gc"


def _is_store(path: Path) -> bool:
    try:
        Store(path)
    except EdgeCmclError:
        return False
    return True


def worst(findings: list[Finding]) -> str:
    """Return the worst level among `findings`."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=FINE)
