"""The udev rule, as udev itself reads it: on a console that is called a USB sensor meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kits import ROOT

RULE = ROOT / "deploy" / "udev" / "60-edge-cmcl.rules"
CONSOLE = Path("/sys/class/tty/tty0")
# In a mount namespace of its own, since udev makes the links that it tells of: nothing of this machine changes.
SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/udev/rules.d
cp "$1"/*.rules /run/udev/rules.d/
mount -t tmpfs none /dev
mknod /dev/null c 1 3
mknod /dev/tty0 c 4 0
exec udevadm test --action="$2" "$3"
"""


def what_udev_does(folder: Path, serial: str, *, interface: str = "00", asked: bool = True, action: str = "add") -> str:
    """Return what udev would do with a serial port on USB whose ID_SERIAL is `serial`."""
    if os.geteuid() != 0 or shutil.which("udevadm") is None or not CONSOLE.exists():
        pytest.skip("this needs root, udevadm (apt-get install udev) and a console")
    (folder / "links").mkdir()
    if asked:
        (folder / "links" / f"{serial}.env").touch()
    text = RULE.read_text().replace("ttyUSB*|ttyACM*", CONSOLE.name)
    assert CONSOLE.name in text
    (folder / RULE.name).write_text(text.replace("/etc/edge-cmcl/links", str(folder / "links")))
    named = f'KERNEL=="{CONSOLE.name}", ENV{{ID_SERIAL}}="{serial}", ENV{{ID_USB_INTERFACE_NUM}}="{interface}"\n'
    (folder / "59-named.rules").write_text(named)
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", folder, action, CONSOLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    faults = ("Invalid", "Unknown", "ignoring", "Failed")
    ours = [line for line in said.splitlines() if RULE.name in line]
    assert not [line for line in ours if any(fault in line for fault in faults)], said
    return said


def test_a_sensor_gets_a_stable_name_and_the_recorder_that_was_asked_for(tmp_path: Path) -> None:
    said = what_udev_does(tmp_path, "ST_Board_0042")
    assert "edge-cmcl/ST_Board_0042" in said
    assert "SYSTEMD_WANTS=edge-cmcl-record@ST_Board_0042.service" in said
    assert "ID_MM_DEVICE_IGNORE=1" in said


def test_nothing_records_what_nobody_asked_for(tmp_path: Path) -> None:
    said = what_udev_does(tmp_path, "ST_Board_0042", asked=False)
    assert "edge-cmcl/ST_Board_0042" in said
    assert "SYSTEMD_WANTS" not in said
    assert "ID_MM_DEVICE_IGNORE" not in said


def test_a_second_port_of_a_board_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert "edge-cmcl/ST_Board_0042-02" in what_udev_does(tmp_path, "ST_Board_0042", interface="02")


@pytest.mark.parametrize("serial", ["Board#1", "a+b", "x@y"])
def test_a_name_that_no_unit_can_have_is_left_alone(tmp_path: Path, serial: str) -> None:
    assert "edge-cmcl/" not in what_udev_does(tmp_path, serial).replace(str(tmp_path), "")


def test_unplugging_is_left_alone(tmp_path: Path) -> None:
    said = what_udev_does(tmp_path, "ST_Board_0042", action="remove")
    assert "SYSTEMD_WANTS" not in said
