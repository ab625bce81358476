from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_cmcl.device.power import PowerMeter


def files(root: Path, folder: str, **content: str) -> None:
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (path / name).write_text(f"{text}\n")


def test_a_board_without_monitors_reports_nothing(tmp_path: Path) -> None:
    assert PowerMeter(tmp_path).read() is None


def test_the_supply_rail_of_a_jetson_counts_and_not_those_it_feeds(tmp_path: Path) -> None:
    monitor = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    files(tmp_path, monitor, in1_label="VDD_IN", in1_input="5000", curr1_input="1200")
    files(tmp_path, monitor, in2_label="VDD_CPU_GPU_CV", in2_input="5000", curr2_input="400")
    meter = PowerMeter(tmp_path)
    files(tmp_path, monitor, curr1_input="1600")
    found = meter.read()
    assert found is not None
    assert found.watts == pytest.approx(7.0)  # mean of 6 W and 8 W
    assert "INA3221" in found.source


def test_rails_are_added_where_none_feeds_the_others_and_a_broken_channel_is_passed_over(tmp_path: Path) -> None:
    monitor = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    files(tmp_path, monitor, in1_label="GPU", in1_input="10000", curr1_input="300")
    files(tmp_path, monitor, in2_label="CPU", in2_input="10000", curr2_input="500", in3_input="", curr3_input="1")
    found = PowerMeter(tmp_path).read()
    assert found is not None
    assert found.watts == pytest.approx(8.0)


def test_energy_counters_may_wrap_and_parts_of_a_package_do_not_count_twice(tmp_path: Path) -> None:
    package, core = "class/powercap/intel-rapl:0", "class/powercap/intel-rapl:0:0"
    files(tmp_path, package, energy_uj="9000000", max_energy_range_uj="10000000")
    files(tmp_path, core, energy_uj="1000", max_energy_range_uj="10000000")
    began = time.monotonic()
    meter = PowerMeter(tmp_path)
    time.sleep(0.05)
    files(tmp_path, package, energy_uj="500000")
    files(tmp_path, core, energy_uj="900000")
    found = meter.read()
    assert found is not None
    assert "RAPL" in found.source
    assert 0 < found.watts * 0.05 <= 1.5 <= found.watts * (time.monotonic() - began) * 1.01
