"""A device and a registry in network namespaces of their own, joined by a link that can be made slow, lossy or dead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import PASSWORD, USER, RegistryServer

HERE = Path(__file__).parent
DEVICE, HOST = "10.77.0.1", "10.77.0.2"
PORT = 5443
QUEUE_MS = 200


def missing() -> str:
    """Return what this machine lacks for a world, "" for nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "tc", "nft", "docker-registry"):
        if shutil.which(program) is None:
            return f"there is no {program} here (apt-get install iproute2 nftables docker-registry)"
    probe = f"edge-cmcl-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode != 0:
        return "no network namespace can be made here"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return ""


@dataclass
class World:
    """The two namespaces; the device's end of the link is `end`."""

    name: str
    server: RegistryServer

    @property
    def device(self) -> str:
        return f"{self.name}-d"

    @property
    def host(self) -> str:
        return f"{self.name}-h"

    def shape(self, rate: str) -> None:
        """Let this much through in each direction, such as "1mbit"."""
        for space in (self.device, self.host):
            tbf = f"tc qdisc replace dev end root tbf rate {rate} burst 4kb latency {QUEUE_MS}ms"
            run(space, *tbf.split())

    def lose(self, percent: int) -> None:
        """Drop packets at random, in each direction."""
        for space in (self.device, self.host):
            run(space, "nft", "flush", "ruleset")
            if percent:
                run(space, "nft", "add", "table", "ip", "bad")
                run(space, "nft", "add", "chain", "ip", "bad", "in", "{ type filter hook input priority 0 ; }")
                which = "" if percent == 100 else f"numgen random mod 100 < {percent} "
                drop = f"iifname end {which}drop"
                run(space, "nft", "add", "rule", "ip", "bad", "in", *drop.split())

    def sent(self) -> int:
        """Bytes that left the device, headers and repetitions of TCP among them."""
        return int(run(self.device, "cat", "/sys/class/net/end/statistics/tx_bytes"))

    def received(self) -> int:
        """Bytes that reached the device."""
        return int(run(self.device, "cat", "/sys/class/net/end/statistics/rx_bytes"))

    def start(self) -> None:
        self.server.start()
        for _ in range(100):
            probe = run(self.host, "ss", "-Hltn", f"sport = :{PORT}")
            if str(PORT) in probe:
                return
            time.sleep(0.05)
        raise AssertionError((self.server.folder / "log.txt").read_text())

    def push(self, store: Path, work: Path, *refs: str) -> Push:
        """Begin to push generations from the device."""
        inside = ["ip", "netns", "exec", self.device]
        arguments = [self.server.url(), str(self.server.ca), str(work), str(store), *refs]
        environment = {**os.environ, "EDGE_CMCL_REGISTRY_USER": USER, "EDGE_CMCL_REGISTRY_PASSWORD": PASSWORD}
        command = [*inside, sys.executable, str(HERE / "push_once.py"), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        return Push(process, time.monotonic())


@dataclass
class Push:
    """A push that goes on."""

    process: subprocess.Popen[bytes]
    began: float

    def await_sent(self, world: World, count: int) -> None:
        """Wait until so many bytes left the device in all."""
        while world.sent() < count:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def result(self, timeout_s: float = 180) -> dict[str, Any]:
        """Return what it printed."""
        output, errors = self.process.communicate(timeout=timeout_s)
        assert output, errors.decode()
        value = json.loads(output)
        assert isinstance(value, dict)
        return {**value, "seconds": round(time.monotonic() - self.began, 1)}


@contextmanager
def world(folder: Path, storage: Path | None = None) -> Iterator[World]:
    """Yield a world whose registry runs."""
    name = f"ec{os.getpid() % 100000}"
    launcher = ("ip", "netns", "exec", f"{name}-h")
    made = World(name, RegistryServer(folder, host=HOST, port=PORT, storage=storage, launcher=launcher))
    try:
        for space in (made.device, made.host):
            subprocess.run(["ip", "netns", "add", space], check=True)
        link = f"ip link add end netns {made.device} type veth peer name end netns {made.host}"
        subprocess.run(link.split(), check=True)
        for space, address in ((made.device, DEVICE), (made.host, HOST)):
            run(space, "ip", "address", "add", f"{address}/24", "dev", "end")
            run(space, "ip", "link", "set", "lo", "up")
            run(space, "ip", "link", "set", "end", "up")
        made.start()
        yield made
    finally:
        made.server.kill()
        for space in (made.device, made.host):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def run(space: str, *command: str) -> str:
    """Run a command in a namespace and return what it prints."""
    done = subprocess.run(["ip", "netns", "exec", space, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
