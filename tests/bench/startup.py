"""Seconds until `edge-cmcl --help` has answered, against a bare typer script with plain help."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from scenario import EDGE_CMCL

BARE = """
import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main() -> None:
    pass


app()
"""


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Start both in turn and compare the medians."""
    script = folder / "bare_typer.py"
    script.write_text(BARE)
    commands = {"ours": [EDGE_CMCL, "--help"], "bare": [sys.executable, script, "--help"]}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(2 if quick else 15):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            samples[name].append(time.perf_counter() - began)
    ours, bare = median(samples["ours"]), median(samples["bare"])
    return {
        "edge_cmcl_help_s": round(ours, 4),
        "bare_typer_help_s": round(bare, 4),
        "min_s": {name: round(min(values), 4) for name, values in samples.items()},
        "rounds": len(samples["ours"]),
        "ratio": round(ours / bare, 2),
        "target": None,
        "met": None,
    }
