"""What is crashed: the commands of a device, each with the store that it starts from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from base_bundle import public_key_of
from forks import restarted, run_command
from host import Host

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.keyring import KeyRing
from edge_cmcl.bundle.keys import private_key_from_pem
from edge_cmcl.bundle.signature import write_signature
from edge_cmcl.bundle.transfer import export_layout, import_layout
from edge_cmcl.data.simulator import write_simulated

PAIRS = 48


@dataclass(frozen=True)
class Command:
    """One command of a device.

    Attributes:
        name: what points are called after.
        begins: the situation that it starts from (`Situations`).
        arguments: its arguments; {bundle}, {key}, {later}, {data} and {out} stand for files; --store, --json are added.
        partly: whether half of it is a valid state, too: a collection may have removed a part of what it is to remove.
        again: whether it does the same once more after it was cut short.
        changes: whether it is there to change the store; a reader must answer even where nothing can be written.
    """

    name: str
    begins: str
    arguments: tuple[str, ...]
    partly: bool = False
    again: bool = True
    changes: bool = True


UPDATE = ("update", "--modality", "acoustic", "--data", "{data}", "--threads", "1", "--seed", "{seed}")

# To crash another command, add a line.
COMMANDS = (
    Command("install", "nothing", ("install", "{bundle}", "--trust", "{key}")),
    Command("install-later", "installed", ("install", "{later}")),
    Command("update", "installed", UPDATE),
    Command("update-on-trial", "updated", (*UPDATE, "--task", "again")),
    Command("forget", "updated", ("forget", "--modality", "acoustic")),
    Command("start", "updated", ("embed", "{data}", "--out", "{out}", "--force"), changes=False),
    Command("start-failing", "exhausted", ("embed", "{data}", "--out", "{out}", "--force"), changes=False),
    Command("confirm", "updated", ("confirm",)),
    Command("rollback", "updated", ("rollback",), again=False),
    Command("rollback-far", "twice", ("rollback", "1"), again=False),
    Command("gc", "branched", ("gc", "--keep", "1"), partly=True),
    Command("gc-linear", "settled", ("gc", "--keep", "1"), partly=True),
    Command("keys-rotate", "updated", ("keys", "rotate"), again=False),
    # A second one confirms what the first has installed; one that fails may have installed it before.
    Command("sync-take", "offered", ("sync",), partly=True, again=False),
)


class Situations:
    """Stores to start from and files to work with, made once below `folder` from a bundle of the simulated machine.

    nothing: no store. installed: generation 1. updated: generation 2, on trial. exhausted: the same, its starts used
    up. offered: generation 2, sent to a remote on which a host offers generation 3. twice: generation 3, on trial, made
    from 2, which was confirmed. settled: the same, confirmed. branched: as twice, after a rollback to 2, and generation
    3 anew.
    """

    def __init__(self, folder: Path, bundle: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.files = {
            "bundle": bundle,
            "key": public_key_of(bundle),
            "later": folder / "later.tar",
            "data": folder / "data.safetensors",
            "out": folder / "out.safetensors",
            "remote": f"file://{folder / 'remote'}",
        }
        (folder / "remote").mkdir(parents=True, exist_ok=True)
        write_simulated(self.files["data"], PAIRS, ("acoustic", "vibration", "current"), seed=100 + seed)
        restarted(lambda: write_later(bundle, self.files["later"]))

    def arguments(self, command: Command, store: Path) -> list[str]:
        """Return the command line of `command` on `store`, without the program."""
        values = {**self.files, "seed": self.seed}
        return [*(part.format(**values) for part in command.arguments), "--store", str(store), "--json"]

    def copied(self, name: str, to: Path) -> Path:
        """Return a fresh copy of the situation `name` at `to`."""
        shutil.rmtree(to, ignore_errors=True)
        source = self.made(name)
        if source.exists():
            shutil.copytree(source, to)
        remote, then = self.folder / "remote", self.folder / f"{name}-remote"
        if then.exists():  # what is on it decides what a sync sends
            shutil.rmtree(remote)
            shutil.copytree(then, remote)
        return to

    def made(self, name: str) -> Path:
        """Return the folder of the situation `name`, making it on first use."""
        root = self.folder / name
        if name != "nothing" and not root.exists():
            before, change = _STEPS[name]
            making = self.copied(before, self.folder / f"{name}-making")
            change(self, making)
            making.rename(root)
        return root

    def do(self, store: Path, *arguments: str) -> None:
        """Run one more command on `store`; it must succeed."""
        done = run_command(self.arguments(Command("", "", arguments), store))
        assert done.code == 0, (arguments, done)


def _exhaust(situations: Situations, root: Path) -> None:
    store = Store(root)
    with store.writer():
        state = store.state()
        assert state.trial is not None
        used = state.trial.model_copy(update={"attempts": state.trial.attempts_allowed})
        store.save_state(state.model_copy(update={"trial": used}))


def _twice(situations: Situations, root: Path) -> None:
    situations.do(root, "confirm")
    situations.do(root, *UPDATE, "--task", "second")


def _branch(situations: Situations, root: Path) -> None:
    situations.do(root, "rollback")
    situations.do(root, *UPDATE, "--task", "third")
    situations.do(root, "confirm")


def _offer(situations: Situations, root: Path) -> None:
    situations.do(root, "sync", "{remote}")
    restarted(lambda: write_offer(root, situations.folder, situations.files["bundle"].with_name("machine.key")))
    shutil.copytree(situations.folder / "remote", situations.folder / "offered-remote")


_STEPS: dict[str, tuple[str, Callable[[Situations, Path], None]]] = {
    "installed": ("nothing", lambda situations, root: situations.do(root, "install", "{bundle}", "--trust", "{key}")),
    "updated": ("installed", lambda situations, root: situations.do(root, *UPDATE)),
    "exhausted": ("updated", _exhaust),
    "offered": ("updated", _offer),
    "twice": ("updated", _twice),
    "settled": ("twice", lambda situations, root: situations.do(root, "confirm")),
    "branched": ("twice", _branch),
}


def write_offer(root: Path, folder: Path, private: Path) -> None:
    """Let a host in `folder` pull what the device at `root` has sent, and release a child of it."""
    own = KeyRing(root / "keys").trust().own
    assert own is not None
    Host(folder, private).offer(own)


def write_later(bundle: Path, out: Path) -> None:
    """Write to `out` a bundle that a host exported after `bundle`: the same model, signed, with the next counter."""
    private = bundle.with_name("machine.key")
    key = private_key_from_pem(private.read_bytes(), str(private))
    store = Store.create(out.with_suffix(".making"))
    with store.writer():
        digest = import_layout(bundle, store, tags=["base"])
        generation = store.load(digest).generation
        later = generation.model_copy(update={"counter": generation.counter + 1})
        store.commit(later, ["later"], lambda loaded: write_signature(store, loaded, [key]))
    export_layout(store, "later", out)
    shutil.rmtree(store.root)
