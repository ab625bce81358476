"""Public data sets as pairs files, prepared by the installed command; .bench/ keeps them until the recipe changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from environments import EDGE_CMCL

ROOT = Path(__file__).parents[1]


def prepared(name: str, archive: Path) -> Path:
    """Return the folder with the pairs files of the data set `name`."""
    sources = sorted((ROOT / "edge_cmcl" / "data").rglob("*.py"))
    inputs = [f"{archive.name} {archive.stat().st_size}".encode(), *(path.read_bytes() for path in sources)]
    key = hashlib.sha256(b"\0".join(inputs)).hexdigest()[:12]
    folder = ROOT / ".bench" / f"data-{name}-{key}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"data-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not folder.exists():
            for older in folder.parent.glob(f"data-{name}-*/"):
                shutil.rmtree(older)
            making = folder.with_name(f"data-{name}-making")
            command = [EDGE_CMCL, "data", "prepare", name, "--source", archive, "--out", making]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            making.rename(folder)
    return folder
