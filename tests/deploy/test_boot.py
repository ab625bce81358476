"""The units as systemd runs them, with all their hardening, in a container that boots (issue 7, no. 6)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from boots import boot, make_booting_root, missing_container
from installed import Device
from kits import DEBS, ROOT, build_changed_kit, cannot_serve
from machine_bundle import Machine

INSTALL = """
/media/kit/install.sh --wheels /media/wheels; echo "install.sh $?"
systemctl is-enabled edge-cmcl.service
systemctl is-active edge-cmcl.service
"""
USE = """
edge-cmcl install /media/base.tar --trust /media/machine.key.pub >/dev/null; echo "model $?"
cat >>/etc/edge-cmcl/edge-cmcl.env <<END
EDGE_CMCL_UPDATE_MODALITIES=acoustic
EDGE_CMCL_UPDATE_OPTIONS="--budget 60"
EDGE_CMCL_UPDATE_CONFIRM=yes
EDGE_CMCL_REMOTE=file:///var/lib/edge-cmcl/remote
END
install -d -o edge-cmcl -g edge-cmcl /var/lib/edge-cmcl/remote
install -o edge-cmcl /media/new.safetensors /var/lib/edge-cmcl/recordings/
touch -d '1 hour ago' /var/lib/edge-cmcl/recordings/new.safetensors
systemctl start edge-cmcl-update.service; echo "update $?"
systemctl start edge-cmcl-sync.service; echo "sync $?"
edge-cmcl status --json >/root/status.json; echo "status $?"
systemctl enable --now edge-cmcl-sync.timer edge-cmcl-update.timer; echo "timers $?"
systemctl list-timers --no-legend --plain 'edge-cmcl*' | wc -l
"""
RECORD = """
ip link set lo up 2>/dev/null
/opt/edge-cmcl/current/bin/python -m firmware_bridge.virtual --machine vibration,current --board python --seconds 600 \\
  --unix /var/lib/edge-cmcl/board &
board=$!
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /var/lib/edge-cmcl/board ] || sleep 1; done
chown edge-cmcl /var/lib/edge-cmcl/board
echo 'LINKS=unix:///var/lib/edge-cmcl/board' >/etc/edge-cmcl/links/machine.env
systemctl start edge-cmcl-record@machine.service; echo "record $?"
sleep 12
systemctl is-active edge-cmcl-record@machine.service
systemctl stop edge-cmcl-record@machine.service; echo "stopped $?"
systemctl show --property=Result --value edge-cmcl-record@machine.service
kill $board
cd /var/lib/edge-cmcl
edge-cmcl pair recordings/machine-* --out pairs.safetensors --json >/root/pair.json
echo "pair $?"
"""
SERVE = """
systemctl start edge-cmcl.service; echo "serve $?"
sleep 8
systemctl is-active edge-cmcl.service
python3 -c '
import socket
with socket.socket(socket.AF_UNIX) as line:
    line.connect("/run/edge-cmcl/serve.sock")
    line.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: device\\r\\nConnection: close\\r\\n\\r\\n")
    print(line.recv(4096).decode().splitlines()[0])
'
readlink /opt/edge-cmcl/current >/root/before
/media/broken/install.sh --wheels /media/wheels; echo "broken $?"
readlink /opt/edge-cmcl/current | cmp - /root/before; echo "back $?"
systemctl is-active edge-cmcl.service
"""
LOGS = "journalctl --no-pager -u 'edge-cmcl*' | tail -n 60\n"


@pytest.fixture(scope="module")
def machine_room(scratch: Path, kit: Path, small: Machine) -> Iterator[Device]:
    """A root with systemd, and a stick with all that an operator needs."""
    if why := missing_container():
        pytest.skip(why)
    device = Device(make_booting_root(DEBS, scratch / "booting"))
    device.plug_in(kit, kit / "wheels")
    for path in (small.bundle, small.public_key, small.new):
        shutil.copy(path, device.root / "media")
    yield device
    shutil.rmtree(device.root.folder)


def test_the_units_do_their_work_under_their_hardening(machine_room: Device) -> None:
    said = boot(machine_room.root, INSTALL + USE + LOGS)
    print(said)
    lines = said.splitlines()
    for step in ("install.sh 0", "enabled", "model 0", "update 0", "sync 0", "status 0", "timers 0", "exit code 0"):
        assert step in lines, said
    assert lines[lines.index("timers 0") + 1] == "2"
    status = json.loads((machine_room.root / "root/status.json").read_text())
    assert (status["counter"], status["trial"]) == (2, None)
    assert "acoustic" in [each["modality"] for each in status["modalities"]]
    assert list((machine_room.root / "var/lib/edge-cmcl/remote").glob("blobs/sha256/*"))


def test_a_recorder_records_until_it_is_stopped(machine_room: Device) -> None:
    said = boot(machine_room.root, RECORD + LOGS)
    print(said)
    lines = said.splitlines()
    for step in ("record 0", "active", "stopped 0", "success", "pair 0"):
        assert step in lines, said
    assert json.loads((machine_room.root / "root/pair.json").read_text())["windows"] >= 3


def test_the_service_answers_and_a_version_that_cannot_serve_is_taken_back(machine_room: Device, scratch: Path) -> None:
    if not (ROOT / "edge_cmcl" / "cli" / "serve_commands.py").exists():
        pytest.skip("there is no `edge-cmcl serve` in this tree yet")
    shutil.copytree(build_changed_kit(scratch / "cannot-serve", cannot_serve), machine_room.root / "media/broken")
    said = boot(machine_room.root, SERVE + LOGS)
    print(said)
    lines = said.splitlines()
    for step in ("serve 0", "HTTP/1.1 200 OK", "broken 7", "back 0", "exit code 0"):
        assert step in lines, said
    assert lines.count("active") == 2
