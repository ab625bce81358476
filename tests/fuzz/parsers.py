"""Fuzz the parsers: `python tests/fuzz/parsers.py` runs every target; see `--help`.

Two ways to make inputs. Without further packages each is a function of the seed and its number, so that the id
TARGET/SEED/NUMBER that a failure prints replays it. With atheris (`--guided`; the extra `fuzz`) libFuzzer chooses by
coverage what to mutate next, and leaves the input of a failure in a file. Both run in a process of their own under a
limit of memory.
"""

from __future__ import annotations

import argparse
import faulthandler
import mmap
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutate import MAX_BYTES, mutated
from target import Target, execute
from targets import TARGETS

MEMORY_BYTES = 256 << 20
"""What the parser of an input of 64 kB may take beyond what the process has before the first one."""

FULL, GUIDED_FULL = 200_000, 100_000


def input_of(target: Target, seed: int, number: int) -> bytes:
    """Return the input TARGET/SEED/NUMBER."""
    chance = random.Random(f"{target.name}/{seed}/{number}")
    return mutated(chance, target.seeds(), target.mutations)


def fuzz(target: Target, executions: int, seed: int, told: mmap.mmap | None = None) -> Counter[str]:
    """Run `executions` inputs through `target`; return how often each outcome came.

    Raises:
        AssertionError: one broke the property; the message has the id that replays it.
    """
    outcomes: Counter[str] = Counter()
    seeds = target.seeds()
    for number in range(executions):
        if told is not None:
            told[:8] = number.to_bytes(8, "little")
        data = mutated(random.Random(f"{target.name}/{seed}/{number}"), seeds, target.mutations)
        try:
            outcomes[execute(target, data)] += 1
        except Exception as error:
            raise AssertionError(f"{target.name}/{seed}/{number} fails: {type(error).__name__}: {error}") from error
    return outcomes


@contextmanager
def limited_memory() -> Iterator[Callable[[], int]]:
    """Let this process grow by `MEMORY_BYTES` at most; yield what tells how far its peak has risen since, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, limits[1]))
    try:
        yield lambda: (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _child(name: str, executions: int, seed: int, progress: Path) -> int:
    faulthandler.enable()
    target = TARGETS[name]
    fuzz(target, 200, seed + 1)  # what is imported or cached on first use is there before the limit is set
    start = time.monotonic()
    with limited_memory() as grown_mib, progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as told:
        try:
            outcomes = fuzz(target, executions, seed, told)
        except AssertionError:
            traceback.print_exc()
            return 1
        grown = grown_mib()
    took_s = time.monotonic() - start
    shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{name}: {executions} executions in {took_s:.0f} s, {grown} MiB more at the peak: {shown}", flush=True)
    return 0


def run_child(name: str, executions: int, seed: int) -> bool:
    """Fuzz one target in a process of its own; say which input it died from, if any. Return whether all went well."""
    with tempfile.NamedTemporaryFile() as progress:
        progress.write(bytes(8))
        progress.flush()
        command = [sys.executable, __file__, "--child", progress.name, name, str(executions), str(seed)]
        code = subprocess.run(command, check=False).returncode
        if code < 0:
            number = int.from_bytes(Path(progress.name).read_bytes(), "little")
            print(f"{name}/{seed}/{number} kills the process by signal {-code}", flush=True)
        return code == 0


def run_guided(name: str, executions: int, seed: int) -> bool:
    """Fuzz one target with atheris in a process of its own; return whether all went well."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(TARGETS[name].seeds()):
            (Path(corpus) / str(number)).write_bytes(data[:MAX_BYTES])
        limits = [f"-runs={executions}", f"-seed={seed + 1}", f"-max_len={MAX_BYTES}", "-rss_limit_mb=1024"]
        quiet = [
            "-verbosity=0",
            "-print_final_stats=1",
            "-timeout=60",
            f"-artifact_prefix={tempfile.gettempdir()}/{name}-",
        ]
        guided = Path(__file__).with_name("guided.py")
        command = [sys.executable, guided, name, *limits, *quiet, corpus]
        done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, check=False)
    ran = [line.rsplit(maxsplit=1)[-1] for line in done.stdout.splitlines() if "number_of_executed_units" in line]
    if done.returncode or not ran:
        print(done.stdout[-6000:], flush=True)
        return False
    peak = [line.rsplit(maxsplit=1)[-1] for line in done.stdout.splitlines() if "peak_rss_mb" in line]
    print(f"{name}: {ran[0]} executions guided by coverage, {peak[0]} MiB at the peak", flush=True)
    return True


def replay(ident: str) -> None:
    """Run one input again, by its id or the file that libFuzzer left (`TARGET:FILE`), and show what comes of it."""
    if ":" in ident:
        name, _, file = ident.partition(":")
        data = Path(file).read_bytes()
    else:
        name, seed, number = ident.split("/")
        data = input_of(TARGETS[name], int(seed), int(number))
    print(data if len(data) < 4000 else f"{data[:4000]!r}... ({len(data)} bytes)")
    print(execute(TARGETS[name], data))


def main() -> int:
    """Run what the command line asks for; return 1 where a target failed."""
    if sys.argv[1:2] == ["--child"]:
        return _child(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--executions", type=int, help=f"of each target; {FULL}, or {GUIDED_FULL} guided")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="let atheris choose the inputs")
    parser.add_argument("--replay", metavar="ID", help="TARGET/SEED/NUMBER or TARGET:FILE")
    asked = parser.parse_args()
    if asked.replay:
        replay(asked.replay)
        return 0
    if asked.guided and find_spec("atheris") is None:
        parser.error("--guided needs atheris: pip install -c lock-host.txt '.[fuzz]' (Python 3.11 or later)")
    run = run_guided if asked.guided else run_child
    executions = asked.executions or (GUIDED_FULL if asked.guided else FULL)
    names = asked.targets or list(TARGETS)
    well = [run(name, executions, asked.seed) for name in names]
    print(f"{sum(well)} of {len(names)} targets, {executions * len(names)} executions", flush=True)
    return 0 if all(well) else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
