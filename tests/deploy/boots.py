"""A Debian root that boots: systemd runs in it, in a container of its own and without any network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from roots import PACKAGES, Root, make_root

SYSTEMD = (*PACKAGES, "mount", "procps", "systemd", "systemd-sysv", "udev")
PROBE = """\
[Unit]
Description=what the test does
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c '/root/probe >/root/out 2>&1; echo "exit code $?" >>/root/out'
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=300

[Install]
WantedBy=default.target
"""


def missing_container() -> str:
    """Return what this machine lacks to boot a root, "" for nothing."""
    if shutil.which("systemd-nspawn") is None:
        return "there is no systemd-nspawn here (apt-get install systemd-container)"
    return ""


def make_booting_root(cache: Path, folder: Path) -> Root:
    """Unpack a root with systemd into the new `folder`."""
    root = make_root(cache, folder, packages=SYSTEMD)
    for name in ("proc", "sys", "dev"):  # the container brings its own
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    (folder / "etc/machine-id").touch()
    system = folder / "etc/systemd/system"
    (system / "default.target.wants").mkdir(parents=True)
    (system / "probe.service").write_text(PROBE)
    (system / "default.target.wants/probe.service").symlink_to("../probe.service")
    (system / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    return root


def boot(root: Root, script: str, timeout_s: float = 400) -> str:
    """Boot it, run a shell script there as root, power it off; return what the script printed."""
    probe = root / "root/probe"
    probe.parent.mkdir(exist_ok=True)
    probe.write_text("#!/bin/sh\n" + script)
    probe.chmod(0o755)
    output = root / "root/out"
    output.unlink(missing_ok=True)
    # Nobody is asked to register it: there is no systemd outside.
    container = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]
    subprocess.run(
        ["timeout", "--kill-after=5", str(timeout_s), *container, f"--directory={root.folder}", "--boot"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return output.read_text()
