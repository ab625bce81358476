"""What the board says of its electric power: Jetson's INA3221 monitors, or Intel's and AMD's energy counters.

Sources: Linux Documentation/hwmon/ina3221.rst and Documentation/power/powercap/powercap.rst; the rail names are those
of NVIDIA's Jetson Linux developer guide, "Power Management".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.device.system_files import number_of, text_of

SYSFS = Path("/sys")

_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "5V_IN", "VDD_IN_SYS")
"""Rails that feed all others; where one of them is there, it alone counts."""


@dataclass(frozen=True)
class Power:
    """Mean electric power while something ran.

    Attributes:
        watts: of the whole board or of the processor, as `source` says; idle power included.
        source: who measured it.
    """

    watts: float
    source: str


class PowerMeter:
    """Measures the mean power between its making and `read`; `sample` it now and then for boards without a counter.

    Args:
        root: where sysfs is.
    """

    def __init__(self, root: Path = SYSFS) -> None:
        self._root = root
        self._samples: list[float] = []
        self._counters = _counters(root)
        self._began = time.monotonic()
        self.sample()

    def sample(self) -> None:
        """Take note of the power now."""
        watts = _rails_watts(self._root)
        if watts is not None:
            self._samples.append(watts)

    def read(self) -> Power | None:
        """Return the mean power until now, None where the board does not report it."""
        self.sample()
        if self._samples:
            return Power(sum(self._samples) / len(self._samples), "INA3221 power monitor of the board")
        seconds = time.monotonic() - self._began
        now = _counters(self._root)
        joules = sum(_difference(then, now[path]) for path, then in self._counters.items() if path in now) / 1e6
        return Power(joules / seconds, "energy counter of the processor (RAPL)") if joules > 0 and seconds > 0 else None


def _rails_watts(root: Path) -> float | None:
    """Return the power of the board's supply rails in W, None without a monitor."""
    rails = dict(_rails(root))
    if not rails:
        return None
    whole = [watts for name, watts in rails.items() if name in _WHOLE_BOARD]
    return whole[0] if whole else sum(rails.values())


def _rails(root: Path) -> Iterator[tuple[str, float]]:
    """Yield (name, W) of each rail that an INA3221 measures: in mV and mA, channels 1 to 3."""
    for folder in sorted((root / "bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
        for channel in (1, 2, 3):
            millivolts = number_of(folder / f"in{channel}_input")
            milliamperes = number_of(folder / f"curr{channel}_input")
            if millivolts is not None and milliamperes is not None:
                yield (
                    text_of(folder / f"in{channel}_label") or f"{folder.name}-{channel}",
                    (millivolts * milliamperes / 1e6),
                )


def _counters(root: Path) -> dict[Path, tuple[int, int]]:
    """Return (µJ so far, µJ at which it wraps) of each processor package; only root may read them on many systems."""
    found = {}
    for folder in sorted((root / "class/powercap").glob("intel-rapl:*")):
        if folder.name.count(":") != 1:  # a core or memory within a package, which counts already
            continue
        energy, wraps = number_of(folder / "energy_uj"), number_of(folder / "max_energy_range_uj")
        if energy is not None:
            found[folder] = energy, wraps or 0
    return found


def _difference(then: tuple[int, int], now: tuple[int, int]) -> int:
    return now[0] - then[0] + (now[1] if now[0] < then[0] else 0)
