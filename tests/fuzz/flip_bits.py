"""Flip single bits in bundles and stores: `python tests/fuzz/flip_bits.py` puts 10,000 of them; see `--help`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]

from environments import EDGE_CMCL  # noqa: E402
from flip_subjects import SUBJECTS, BundleSubject  # noqa: E402
from flips import EXIT_CODES, attempt, flipped, nth_flip, survey, table  # noqa: E402
from machine_bundle import Machine, make_small  # noqa: E402
from parsers import limited_memory  # noqa: E402

SHARES = {"folder": 0.35, "tar": 0.35, "trial": 0.15, "confirmed": 0.15}
"""Of all flips, how many go into each subject."""

WARM = 20


def run(name: str, machine: Machine, count: int, seed: int) -> Counter[tuple[str, str]]:
    """Put `count` flips into a subject, under the limit of memory once the first few are through; print what came."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-flips-", dir=in_memory()) as folder:
        subject = SUBJECTS[name](machine, name, Path(folder))
        survey(subject, range(WARM), seed + 1)
        start = time.monotonic()
        with limited_memory() as grown_mib:
            outcomes = survey(subject, range(count), seed)
            grown = grown_mib()
    took_s = time.monotonic() - start
    print(f"{name}: {count} flips in {len(subject.regions)} regions, {took_s:.0f} s, {grown} MiB more at the peak")
    print(table(outcomes), flush=True)
    return outcomes


def by_command(machine: Machine, count: int, seed: int) -> Counter[str]:
    """Let the installed command install a flipped bundle, `count` times; return how often it ended how.

    Raises:
        AssertionError: once it ended otherwise than by a code for refusing, or showed a traceback.
    """
    codes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-flips-", dir=in_memory()) as folder:
        subject = BundleSubject(machine, "tar", Path(folder))
        for number in range(count):
            flip = nth_flip(subject, seed, number)
            store = Path(folder) / f"store-{number}"
            command = [EDGE_CMCL, "install", subject.path, "--store", store, "--trust", machine.public_key]
            with flipped(flip):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            fine = done.returncode in (0, *EXIT_CODES) and "Traceback" not in done.stderr
            assert fine, f"{flip}: code {done.returncode}: {done.stderr}"
            codes[f"exit code {done.returncode}"] += 1
    return codes


def in_memory() -> Path | None:
    """Return a folder in memory, where there is one: flips need no disk that is flushed."""
    return Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000, help="over all subjects (default 10000)")
    parser.add_argument("--commands", type=int, default=50, help="flips through the installed command (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", type=Path, help="a folder that keeps the bundle from run to run")
    parser.add_argument("--replay", metavar="ID", help="SUBJECT/SEED/NUMBER")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-machine-") as scratch:
        folder = asked.machine or Path(scratch) / "machine"
        if folder.exists():
            machine = Machine(folder)
        else:
            folder.mkdir(parents=True)
            machine = make_small(folder)
        if asked.replay:
            name, seed, number = asked.replay.split("/")
            subject = SUBJECTS[name](machine, name, Path(tempfile.mkdtemp(dir=scratch)))
            flip = nth_flip(subject, int(seed), int(number))
            print(flip, attempt(subject, flip), sep="\n")
            return 0
        outcomes: Counter[tuple[str, str]] = Counter()
        for name, share in SHARES.items():
            outcomes += run(name, machine, round(share * asked.flips), asked.seed)
        codes = by_command(machine, asked.commands, asked.seed)
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome.startswith("refused"))
    print(
        f"{outcomes.total()} flips, {refused} refused, {outcomes.total() - refused} harmless, none accepted otherwise"
    )
    print(f"{codes.total()} flips through the command: {dict(codes)}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
