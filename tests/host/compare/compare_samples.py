"""Small streams of the simulated machine, with a narrow encoder so that a comparison takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

STEP = '[[step]]\nname = "{name}"\nmodalities = ["{a}", "{b}"]\ntrain = "{train}"\ntest = "{test}"\n'


def write_stream(
    folder: Path, steps: Sequence[tuple[str, str]], train: str = "train.safetensors", test: str = "test.safetensors"
) -> Path:
    """Write a stream file over the pairs in `steps` and return its path."""
    tables = [STEP.format(name=f"step-{i}", a=a, b=b, train=train, test=test) for i, (a, b) in enumerate(steps)]
    path = folder / "stream.toml"
    path.write_text("\n".join(['name = "small"', "width = 48", "embedding_dim = 16", *tables]))
    return path
