"""What goes to a device, built by deploy/build.sh: of this tree, or of a copy that is another version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = os.environ.get("EDGE_CMCL_DEPLOY", "")
"""Of the tests that install: "" for none, "reduced" as in .ci/run, or "full"."""
DEBS = ROOT / ".bench" / "debs"
PARTS = ("edge_cmcl", "firmware_bridge", "deploy", "pyproject.toml", "README.md", "LICENSE")


def build_kit(out: Path, targets: Iterable[tuple[str, str]] = (), source: Path = ROOT) -> Path:
    """Build the kit of `source` in `out`, with wheels for each target (Python, processor); return its folder."""
    wheels = [word for python, machine in targets for word in ("--wheels", python, machine)]
    done = subprocess.run(
        [source / "deploy" / "build.sh", "--out", out, *wheels],
        env={**os.environ, "PYTHON": sys.executable, "SOURCE_DATE_EPOCH": "1767225600"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def build_changed_kit(scratch: Path, change: Callable[[Path], None]) -> Path:
    """Build the kit of a copy of this tree that `change` has changed."""
    source = scratch / "source"
    source.mkdir(parents=True)
    for name in PARTS:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    change(source)
    return build_kit(scratch, source=source)


def next_version(source: Path) -> None:
    """Make a tree the version after."""
    project = source / "pyproject.toml"
    text = project.read_text()
    assert 'version = "0.1.0"' in text
    project.write_text(text.replace('version = "0.1.0"', 'version = "0.1.1"', 1))


def cannot_read_stores(source: Path) -> None:
    """Make a tree a version that fails on every store."""
    next_version(source)
    path = source / "edge_cmcl" / "device" / "status.py"
    text = path.read_text()
    marked = "    model = current_model(store)\n"
    assert marked in text
    path.write_text(text.replace(marked, '    raise IntegrityError("this version cannot read the store")\n', 1))


def cannot_serve(source: Path) -> None:
    """Make a tree a version whose service does not stay up."""
    next_version(source)
    path = source / "edge_cmcl" / "cli" / "serve_commands.py"
    before, begin, after = path.read_text().partition("def serve(")
    marked = ') -> None:\n    """'
    assert marked in after
    path.write_text(before + begin + after.replace(marked, ') -> None:\n    raise SystemExit(9)\n    """', 1))
