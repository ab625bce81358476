"""A fleet that pushes to one registry at once: throughput, memory, whether every push arrived (issue 5, must-show 5).

    python tests/bench/fleet_push.py [--devices 100] [--share 1.0]

Debian's docker-registry with TLS and basic auth on this machine, which has the base already. Each device has a store, a
connection and an update of its own (an adapter of 256 x 1800 float32, a sketch of 128 x 1800 float16; random), and
pushes it under a tag of its own; all begin at one instant. The devices are threads of one process, so that is their
memory together; `one_device_bytes` is the peak of a process that pushes alone, beyond what importing took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

from bundle_samples import make_store  # noqa: E402
from servers import PASSWORD, USER, RegistryServer, running  # noqa: E402
from sync_samples import large_update, new_bytes  # noqa: E402

from edge_cmcl.bundle import Store  # noqa: E402
from edge_cmcl.sync.connect import connect  # noqa: E402
from edge_cmcl.sync.push import push  # noqa: E402
from edge_cmcl.sync.settings import LinkSettings  # noqa: E402

ALONE = """
import sys
from pathlib import Path
from edge_cmcl.bundle import Store
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.push import push
from edge_cmcl.sync.settings import LinkSettings
import edge_cmcl.sync.registry
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
store = Store(Path(sys.argv[3]))
with connect(sys.argv[1], LinkSettings(ca_file=Path(sys.argv[2]))) as remote:
    push(store, [store.load("large")], remote, {"alone": store.load("large").descriptor})
print(peak() - before)
"""


class Device(threading.Thread):
    """One device: pushes when `start_line` lets it."""

    def __init__(
        self, number: int, root: Path, server: RegistryServer, share: float, start_line: threading.Event
    ) -> None:
        super().__init__()
        self.tag = f"device-{number}"
        self.store: Store = make_store(root / self.tag)
        self.update = large_update(self.store, share, seed=1000 + number)
        self.size = new_bytes(self.update, self.store.load("current"))
        self.seconds = 0.0
        self.error = ""
        self._server, self._start_line = server, start_line

    def run(self) -> None:
        self._start_line.wait()
        began = time.monotonic()
        try:
            with connect(self._server.url(), LinkSettings(ca_file=self._server.ca, patience_s=120)) as remote:
                push(self.store, [self.update], remote, {self.tag: self.update.descriptor})
        except Exception as error:
            self.error = str(error)
        self.seconds = time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--share", type=float, default=1.0, help="of the real size of an update")
    options = parser.parse_args()
    os.environ |= {"EDGE_CMCL_REGISTRY_USER": USER, "EDGE_CMCL_REGISTRY_PASSWORD": PASSWORD}
    with (
        tempfile.TemporaryDirectory(prefix="edge-cmcl-fleet-") as folder,
        running(RegistryServer(Path(folder) / "registry")) as server,
    ):
        print(json.dumps(measure(Path(folder), server, options.devices, options.share), indent=2))


def measure(folder: Path, server: RegistryServer, count: int, share: float) -> dict[str, Any]:
    """Let the devices push and return what that took."""
    start_line = threading.Event()
    devices = [Device(number, folder, server, share, start_line) for number in range(count)]
    settings = LinkSettings(ca_file=server.ca)
    with connect(server.url(), settings) as remote:
        store = devices[0].store
        push(store, [store.load("base"), store.load("current")], remote, {})
    assert server.process is not None
    idle = peak_bytes(server.process.pid)
    for device in devices:
        device.start()
    began = time.monotonic()
    start_line.set()
    for device in devices:
        device.join()
    seconds = time.monotonic() - began
    with connect(server.url(), settings) as remote:
        heads = {device.tag: remote.head(device.tag) for device in devices}
    arrived = [d for d in devices if (head := heads[d.tag]) is not None and head.digest == d.update.digest]
    total = sum(device.size for device in devices)
    alone = subprocess.run(
        [sys.executable, "-c", ALONE, server.url("alone"), str(server.ca), str(devices[0].store.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "devices": count,
        "arrived": len(arrived),
        "errors": [device.error for device in devices if device.error],
        "bytes": total,
        "seconds": round(seconds, 1),
        "megabytes_per_s": round(total / seconds / 1e6, 1),
        "slowest_device_s": round(max(device.seconds for device in devices), 1),
        "median_device_s": round(median(device.seconds for device in devices), 1),
        "registry_peak_bytes": peak_bytes(server.process.pid),
        "registry_idle_bytes": idle,
        "all_devices_peak_bytes": peak_bytes(os.getpid()),
        "one_device_bytes": int(alone.stdout),
        "cpus": os.cpu_count(),
        "load_average_after": os.getloadavg()[0],
        "target": "every push arrives, within 60 s",
        "met": len(arrived) == count and seconds <= 60,
    }


def peak_bytes(pid: int) -> int:
    """Return the largest resident size of a process so far, in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
