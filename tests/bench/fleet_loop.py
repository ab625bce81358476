"""The whole loop of a fleet through a real registry with TLS, by the installed command, on real sensors.

    python tests/bench/fleet_loop.py --data .bench/data [--seeds 0 1 2] [--check]

Needs `make data` and docker-registry. "Different": three devices with stores and keys of their own and one base
(UTD-MHAD, skeleton beside acc) learn gyro, depth and, from ISL, emg. They sync; the host pulls, merges and promotes the
merge on trial; the devices judge it on pairs that they kept back; the host pulls what they found and releases it; they
sync again. Then every device must know every sensor. "Same": two devices learn gyro on different subjects, and are
judged on held-out repetitions of their own and of each other's. R@10 in % ("same": R@1 of 54 candidates, since R@10
finds all) of what each device had and of what all have.

With --check it ends with 1 where a device has less than 95 % of what it had for its own pair, or lost more than 1.5
points on the base pair, or, for the same sensor, is more than 2 points below its own or no better on the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from environments import EDGE_CMCL
from fleets import PROJECT, write_halves
from servers import PASSWORD, USER, RegistryServer, running

UTD, ISL = "utd_mhad", "isl_myo"
DIFFERENT = {"gyro": ("gyro", "acc", UTD), "depth": ("depth", "skeleton", UTD), "emg": ("emg", "acc", ISL)}
SAME = {"a": ("gyro", "acc", "halves/a"), "b": ("gyro", "acc", "halves/b")}
BASE_PAIR = ("skeleton", "acc")


@dataclass
class Loop:
    """One fleet: a folder with the base, the devices' stores and the host's fleet, and the registry.

    Attributes:
        data: prepared data sets.
        folder: of this fleet.
        server: the registry.
        repository: of this fleet.
        key: fingerprint of the key that has signed the base.
    """

    data: Path
    folder: Path
    server: RegistryServer
    repository: str
    key: str = ""

    def run(self, *arguments: object, home: str = "host") -> dict[str, Any]:
        """Run a command as a user of its own, and return its JSON."""
        environment = {
            **os.environ,
            "XDG_DATA_HOME": str(self.folder / home),
            "EDGE_CMCL_REGISTRY_USER": USER,
            "EDGE_CMCL_REGISTRY_PASSWORD": PASSWORD,
            "SSL_CERT_FILE": str(self.server.ca),
        }
        done = subprocess.run(
            [EDGE_CMCL, *map(str, arguments), "--json"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def export(self, seed: int) -> None:
        """Train and export the base, signed with the host's key."""
        project = f"{PROJECT.format(data=self.data)}\n[train]\nseed = {seed}\n"
        (self.folder / "edge-cmcl.toml").write_text(project)
        self.run("train", ".", "--run", "run")
        self.key = self.run("export", "run", "--out", "base.tar")["signed_by"][0]

    def teach(self, name: str, sensor: str, partner: str, file: Path) -> None:
        """Set up a device, let it learn, and sync."""
        url = self.server.url(self.repository)
        self.run("install", "base.tar", "--trust", self.key, home=name)
        self.run("sync", url, home=name)
        self.run("update", "--modality", sensor, "--with", partner, "--data", file, home=name)
        self.run("sync", home=name)

    def share(self, names: list[str]) -> dict[str, Any]:
        """Merge on the host, let the devices judge it on trial, release it; return what the merge was."""
        strangers = self.run("fleet", "pull", self.server.url(self.repository))["strangers"]
        trust = [option for key in strangers.values() for option in ("--trust", key)]
        self.run("fleet", "pull", *trust)
        merged = self.run("fleet", "merge")
        self.run("fleet", "promote", merged["digest"], "--trial", "--all")
        for name in names:
            assert self.run("sync", home=name)["followed"]["news"] == "installed", name
        self.run("fleet", "pull")
        devices = self.run("fleet", "list")["devices"]
        assert [device["report"]["trial"] for device in devices] == [True] * len(names)
        self.run("fleet", "promote", merged["digest"], "--all")
        for name in names:
            assert self.run("sync", home=name)["followed"]["news"] == "confirmed", name
        return merged

    def recall(self, name: str, pair: tuple[str, str], file: Path, k: int = 10) -> float:
        """Return R@k in % of a pair on a device."""
        found = self.run("evaluate", "--data", file, home=name)["pairs"]
        return next(100.0 * p["metrics"][f"recall_at_{k}"] for p in found if {*p["modalities"]} == {*pair})


def different(loop: Loop) -> tuple[dict[str, Any], list[str]]:
    """Return what three devices had and all have, and what misses its mark."""
    for name, (sensor, partner, dataset) in DIFFERENT.items():
        loop.teach(name, sensor, partner, loop.data / dataset / "train.safetensors")
    pairs = {name: (step[:2], loop.data / step[2] / "test.safetensors") for name, step in DIFFERENT.items()}
    base = (BASE_PAIR, loop.data / UTD / "test.safetensors")
    had = {name: loop.recall(name, *pairs[name]) for name in DIFFERENT}
    had_base = {name: loop.recall(name, *base) for name in DIFFERENT}
    loop.share(list(DIFFERENT))
    have = {device: {name: loop.recall(device, *pairs[name]) for name in DIFFERENT} for device in DIFFERENT}
    have_base = {device: loop.recall(device, *base) for device in DIFFERENT}
    missed = [
        f"{device} has {have[device][name]:.1f} of {name}, which had {had[name]:.1f}"
        for device in DIFFERENT
        for name in DIFFERENT
        if have[device][name] < 0.95 * had[name]
    ]
    missed += [
        f"{device} has {have_base[device]:.1f} of the base pair, and had {had_base[device]:.1f}"
        for device in DIFFERENT
        if have_base[device] < had_base[device] - 1.5
    ]
    return {"had": had, "have": have, "had_base": had_base, "have_base": have_base}, missed


def same(loop: Loop) -> tuple[dict[str, Any], list[str]]:
    """Return what two devices with the same sensor had and have, and what misses its mark."""
    write_halves(loop.data, loop.folder / "halves")
    for name, (sensor, partner, file) in SAME.items():
        loop.teach(name, sensor, partner, loop.folder / f"{file}.safetensors")
    held_out = {name: loop.folder / f"halves/{name}-held-out.safetensors" for name in SAME}
    pair = ("gyro", "acc")

    def judged() -> dict[str, dict[str, float]]:
        return {device: {of: loop.recall(device, pair, file, 1) for of, file in held_out.items()} for device in SAME}

    had = judged()
    loop.share(list(SAME))
    have = judged()
    missed = [f"{n}: own {have[n][n]:.1f}, had {had[n][n]:.1f}" for n in SAME if have[n][n] < had[n][n] - 2.0]
    missed += [
        f"{n}: the other's {have[n][of]:.1f}, had {had[n][of]:.1f}"
        for n, of in (("a", "b"), ("b", "a"))
        if have[n][of] <= had[n][of]
    ]
    return {"had": had, "have": have}, missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".bench/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-loop-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(running(RegistryServer(folder / "registry")))
        for seed in options.seeds:
            for kind in (different, same):
                of = f"{kind.__name__}-{seed}"
                (folder / of).mkdir()
                loop = Loop(options.data.absolute(), folder / of, server, f"fleet/{of}")
                loop.export(seed)
                found, wrong = kind(loop)
                results.append({"setting": kind.__name__, "seed": seed, **found})
                missed += [f"{of}: {each}" for each in wrong]
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"results": results, "missed": missed}, indent=2))
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
