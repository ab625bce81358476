"""`make bench`: what an update costs on this machine, against the CMCL paper's own step; one JSON object on stdout.

    python tests/bench/bench.py [--quick] [--only SECTION] [--scenario FOLDER]

Every section runs in a process of its own, so that neither memory nor threads of one touch another. Progress goes to
stderr. The exit code says whether everything could be measured; whether a target was met is in the JSON (`met`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SECTIONS = {
    "step": "steps:measure",
    "update_to_same_recall": "same_recall:measure",
    "update_cost": "update_cost:measure",
    "install_size": "install_size:measure",
    "startup": "startup:measure",
}
"""Entry of the JSON to the function `(scenario, quick)` that measures it."""

SCENARIO = "scenario:prepare"
PACKAGES = ("edge-cmcl", "numpy", "onnxruntime", "torch", "typer")


def main() -> None:
    options = _options()
    if options.run:
        json.dump(_call(options.run, options.scenario, options.quick), sys.stdout)
        return
    began = time.monotonic()
    report: dict[str, Any] = {"machine": machine(), "quick": options.quick}
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-bench-") as folder:
        scenario = options.scenario or Path(folder)
        if options.scenario is None:
            report["scenario"] = _apart("scenario", SCENARIO, scenario, options.quick)
        for name, function in SECTIONS.items():
            if options.only in (None, name):
                report[name] = _apart(name, function, scenario, options.quick)
    report["machine"]["load_average_after"] = os.getloadavg()[0]
    report["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(report, indent=2))


def machine() -> dict[str, Any]:
    """Return what the figures depend on. A load average above the work of one process says they are noisy."""
    from edge_cmcl.host.compare import document  # it brings torch, which the sections are measured without

    return {
        **document.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average_before": os.getloadavg()[0],
    }


def _apart(name: str, function: str, scenario: Path, quick: bool) -> dict[str, Any]:
    """Run `function` in a process of its own and return what it measured."""
    began = time.monotonic()
    print(f"bench: {name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--run", function, "--scenario", str(scenario)]
    done = subprocess.run([*command, *(["--quick"] if quick else [])], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench: {name} failed with exit code {done.returncode}")
    print(f"bench: {name} took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def _call(function: str, scenario: Path, quick: bool) -> dict[str, Any]:
    module, _, name = function.partition(":")
    result = getattr(importlib.import_module(module), name)(scenario, quick)
    assert isinstance(result, dict)
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and rows: a check that it runs")
    parser.add_argument("--only", choices=SECTIONS, help="measure one section")
    parser.add_argument("--scenario", type=Path, help="a folder that `scenario.prepare` filled before")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
