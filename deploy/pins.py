"""Writes the part of requirements-device.txt that one Python takes: `python deploy/pins.py 3.10 OUTPUT`.

pip judges markers by the Python that runs it, also where it fetches packages for another one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-device.txt")
REQUIREMENT = re.compile(r"^(?P<pin>[\w.-]+==[\w.]+)(?: ; (?P<marker>.+?))? \\\n(?P<hashes>(?:    --hash=.+\n)+)", re.M)
BOUND = re.compile(r'python_version (<|>=) "3\.(\d+)"')


def pins(text: str, python: str) -> str:
    """Return the requirements in `text` that Python `python` ("3.10") takes, without markers."""
    minor = int(python.split(".")[1])
    return "".join(
        f"{found['pin']} \\\n{found['hashes']}" for found in REQUIREMENT.finditer(text) if holds(found["marker"], minor)
    )


def holds(marker: str | None, minor: int) -> bool:
    """Return whether Python 3.`minor` is within the bounds that lock.py wrote."""
    bounds = BOUND.findall(marker or "")
    return all(minor < int(number) if sign == "<" else minor >= int(number) for sign, number in bounds)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(pins(REQUIREMENTS.read_text(), sys.argv[1]))
