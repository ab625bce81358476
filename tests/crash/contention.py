"""Two writers and eight readers on one store: no torn read, no lost generation.

    python tests/crash/contention.py --seconds 60

The writers update, confirm and roll back as fast as the lock lets them; one collects garbage, too. What a writer did is
noted while it holds the lock, so that afterwards the operations form one chain, and every generation that was made is
there unless a collection told that it removed it. The readers open the generation in use and embed its golden windows:
what they get must be what that generation says. Prints one JSON object; exits with 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from base_bundle import base_bundle, public_key_of
from forks import fork, load_everything, restarted
from soundness import debris, garbage, summary

WRITERS, READERS = 2, 8
PAUSE_S = 0.002


def contend(root: Path, data: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Let all of them work on the store at `root` for `seconds`; return what they did and what was wrong."""
    from stream import known

    from edge_cmcl.bundle import Store

    begun = known(Store(root))
    until = time.monotonic() + seconds
    works = [
        _writer(root, data, until, random.Random(f"{seed}:{i}"), gc=0.3 if i == 0 else 0.0) for i in range(WRITERS)
    ]
    works += [_reader(root, until) for _ in range(READERS)]
    logs = _side_by_side(works)
    writes = sorted((line for log in logs[:WRITERS] for line in log if "at" in line), key=lambda line: line["at"])
    wrong = [line["wrong"] for log in logs for line in log if "wrong" in line]
    reads = [line for log in logs[WRITERS:] for line in log if "read" in line]
    wrong += _broken_chain(begun, writes, restarted(lambda: _end(root)))
    return {
        "seconds": seconds,
        "written": dict(Counter(line["name"] for line in writes)),
        "told_locked": sum(line.get("locked", 0) for log in logs[:WRITERS] for line in log),
        "reads": len(reads),
        "generations_read": len({line["read"] for line in reads}),
        "removed": sum(len(line["removed"]) for line in writes),
        "wrong": wrong,
    }


def _side_by_side(works: list[Callable[[Callable[..., None]], None]]) -> list[list[dict[str, Any]]]:
    """Run each of `works` in a process of its own; return the lines that each of them said."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in works]
        children = []
        for work, file in zip(works, files, strict=True):
            child = fork()
            if child == 0:
                _say_all(work, file.fileno())
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        for file in files:
            file.seek(0)
        return [[json.loads(line) for line in file] for file in files]


def _say_all(work: Callable[[Callable[..., None]], None], descriptor: int) -> NoReturn:
    def say(**line: object) -> None:
        os.write(descriptor, (json.dumps(line) + "\n").encode())

    try:
        work(say)
        say(ended=True)
    except BaseException:
        say(wrong=traceback.format_exc())
    os._exit(0)


def _writer(
    root: Path, data: Path, until: float, rng: random.Random, *, gc: float
) -> Callable[[Callable[..., None]], None]:
    def work(say: Callable[..., None]) -> None:
        from stream import Stream, known

        from edge_cmcl.bundle import Store
        from edge_cmcl.errors import StoreLockedError

        store, locked = Store(root), 0
        stream = Stream(store, data, rng, gc=gc, real=0.02)
        while time.monotonic() < until:
            name, operation = stream.next()
            try:
                with store.writer():
                    before = known(store)
                    result = operation()
                    removed = list(getattr(result, "generations", ()))
                    say(name=name, at=time.monotonic(), before=before, after=known(store), removed=removed)
            except StoreLockedError:
                locked += 1
            time.sleep(rng.uniform(0.0, PAUSE_S))
        say(locked=locked)

    return work


def _reader(root: Path, until: float) -> Callable[[Callable[..., None]], None]:
    def work(say: Callable[..., None]) -> None:
        from edge_cmcl.bundle import Store
        from edge_cmcl.bundle.contents import read_golden
        from edge_cmcl.device.golden import TOLERANCE
        from edge_cmcl.device.opening import open_model
        from edge_cmcl.device.status import status

        while time.monotonic() < until:
            model = open_model(root, threads=1)
            for name, record in sorted(model.generation.modalities.items()):
                golden = read_golden(model.loaded, name) if record.golden_blob else None
                if golden is not None:
                    found = model.embed(name, golden.inputs["windows"])
                    off = float(np.abs(found - golden.outputs["embeddings"]).max())
                    assert off <= TOLERANCE, f"{name} of {model.loaded.digest} answers otherwise by {off}"
            say(read=model.loaded.digest)
            shown = status(Store(root))
            assert shown["counter"] >= 1

    return work


def _broken_chain(begun: dict[str, Any], writes: list[dict[str, Any]], end: dict[str, Any]) -> list[str]:
    """Return where a writer did not find what the one before it had left, and generations that are lost in the end."""
    wrong, last = [], begun
    for write in writes:
        if write["before"] != last:
            wrong.append(f"{write['name']} found {write['before']}, but {last} had been left")
        gone = set(write["before"]["generations"]) - set(write["after"]["generations"])
        if gone != set(write["removed"]):
            wrong.append(f"{write['name']} removed {sorted(gone)}, but told {write['removed']}")
        last = write["after"]
    if end != last:
        wrong.append(f"in the end there is {end}, but {last} had been left")
    return wrong


def _end(root: Path) -> dict[str, Any]:
    from stream import known

    from edge_cmcl.bundle import Store
    from edge_cmcl.device.generations import collect_garbage

    summary(root)
    assert not debris(root)
    found = known(Store(root))
    collect_garbage(Store(root), keep=10**6)
    assert not garbage(root)
    return found


def main() -> int:
    """Run with the options below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the operations")
    parser.add_argument("--bundle", type=Path, help="bundle to install; by default one is made in .bench/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-contention-") as name:
        folder = Path(name).resolve()
        load_everything()
        root, data = folder / "store", folder / "data.safetensors"
        restarted(lambda: _prepare(base_bundle(options.bundle), root, data, options.seed))
        result = contend(root, data, options.seconds, options.seed)
    print(json.dumps({"seed": options.seed, **result}, indent=2))
    return 1 if result["wrong"] else 0


def _prepare(bundle: Path, root: Path, data: Path, seed: int) -> None:
    from edge_cmcl.data.simulator import write_simulated
    from edge_cmcl.device.store import install

    write_simulated(data, 32, ("acoustic", "vibration"), seed=200 + seed)
    install(bundle, root, trust=public_key_of(bundle))


if __name__ == "__main__":
    sys.exit(main())
