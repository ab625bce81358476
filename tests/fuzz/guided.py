"""One fuzz target under atheris: `python guided.py TARGET [libFuzzer options] CORPUS`; parsers.py starts it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["edge_cmcl", "json", "tomllib", "tarfile"]):
    from target import execute
    from targets import TARGETS

from mutate import mutated


def main() -> None:
    """Fuzz the target that the command line names; ends the process."""
    target = TARGETS[sys.argv[1]]
    target.seeds()  # what a parser imports at its first use is no part of its time

    def one(data: bytes) -> None:
        execute(target, data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Use the format's own mutations three times in four, and libFuzzer's, which know what was compared, else."""
        if seed % 4 == 0:
            return bytes(atheris.Mutate(data, most))
        return mutated(random.Random(seed), [data], target.mutations)[:most]

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
