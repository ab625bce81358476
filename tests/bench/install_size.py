"""Bytes that the base install takes in site-packages, against the same with torch."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRODUCT = "edge-cmcl"
ROOT = Path(__file__).parents[2]


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Add up the installed files of every distribution that a plain `pip install` of the product would bring."""
    base = closure(PRODUCT)
    with_torch = base | closure("torch")
    sizes = {name: installed_bytes(name) for name in with_torch}
    ours, theirs = (sum(sizes[name] for name in names) for names in (base, with_torch))
    largest = sorted(base, key=lambda name: -sizes[name])[:5]
    return {
        "base_bytes": ours,
        "with_torch_bytes": theirs,
        "base_distributions": len(base),
        "base_largest_bytes": {name: sizes[name] for name in largest},
        "torch_build": distribution("torch").version,
        "ratio": round(theirs / ours, 2),
        "target": None,
        "met": None,
    }


def closure(name: str) -> set[str]:
    """Return the distributions that installing `name` without extras brings here, itself included."""
    found: set[str] = set()
    waiting = [(name, frozenset[str]())]
    seen = set(waiting)
    while waiting:
        current, extras = waiting.pop()
        found.add(canonicalize_name(current))
        for text in requirements(current):
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                wanted = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if wanted not in seen:
                    seen.add(wanted)
                    waiting.append(wanted)
    return found


def requirements(name: str) -> list[str]:
    """Return what a distribution asks for; of the product what `pyproject.toml` says now.

    The metadata of an editable install is that of the day it was installed.
    """
    if name != PRODUCT:
        return distribution(name).requires or []
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def installed_bytes(name: str) -> int:
    """Return the bytes of a distribution's files; of the product itself, an editable install, those of its package."""
    if name == PRODUCT:
        package = ROOT / "edge_cmcl"
        return sum(
            path.stat().st_size for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )
    files = distribution(name).files
    assert files is not None, f"{name} has no list of its files"
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file() and "__pycache__" not in path.parts)
