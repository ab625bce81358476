"""What this machine is, read from the files in which Linux and Jetson boards say so."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.device.system_files import number_of, text_of


@dataclass(frozen=True)
class Board:
    """One machine.

    Attributes:
        model: as the board names itself, "" where it does not.
        architecture: "aarch64", "x86_64", ...
        l4t: release of Jetson Linux, as in "R36.4.0", "" on other boards.
        power_mode: of a Jetson, "" on other boards or where it is not known.
        cores: CPUs that this process may use.
        memory_bytes: of the machine, or of the control group where that is less.
        available_bytes: of memory.
    """

    model: str
    architecture: str
    l4t: str
    power_mode: str
    cores: int
    memory_bytes: int
    available_bytes: int


def read_board(root: Path = Path("/")) -> Board:
    """Return what the files below `root` say of this machine."""
    memory = _memory(text_of(root / "proc/meminfo"))
    total, limit = memory.get("MemTotal", 0), number_of(root / "sys/fs/cgroup/memory.max")
    free = memory.get("MemAvailable", 0)
    used = number_of(root / "sys/fs/cgroup/memory.current")
    if limit is not None and limit < total:
        total, free = limit, min(free, max(0, limit - (used or 0)))
    return Board(
        model=text_of(root / "proc/device-tree/model").strip("\0\n "),
        architecture=platform.machine(),
        l4t=_l4t(text_of(root / "etc/nv_tegra_release")),
        power_mode=_power_mode(root),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=total,
        available_bytes=free,
    )


def clock_is_synchronised(root: Path = Path("/")) -> bool | None:
    """Return whether a time service has set this machine's clock, None where nothing says so."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return True
    if (root / "run/systemd/timesync").is_dir():
        return False
    return None


def _l4t(text: str) -> str:
    """Return "R36.4.0" of "# R36 (release), REVISION: 4.0, ..."."""
    match = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"R{match[1]}.{match[2]}" if match else ""


def _power_mode(root: Path) -> str:
    """Return the name of the power mode that nvpmodel has set: its number, looked up in its configuration."""
    number = re.search(r"pmode:0*(\d+)", text_of(root / "var/lib/nvpmodel/status"))
    if number is None:
        return ""
    named = re.search(rf"< POWER_MODEL ID={number[1]} NAME=(\S+) >", text_of(root / "etc/nvpmodel.conf"))
    return f"{number[1]} ({named[1]})" if named else number[1]


def _memory(text: str) -> dict[str, int]:
    return {name: 1024 * int(kilobytes) for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
