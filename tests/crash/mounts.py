"""Small file systems of their own in image files: to fill, and to cut the power of."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IMAGE_BYTES = {"ext4": 256 << 20, "xfs": 512 << 20}
"""xfs wants 300 MB at least; the image is sparse."""

FREE_S = 60.0

_MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
_CHECK = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n")}
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # FS_IOC_SHUTDOWN and FS_SHUTDOWN_FLAGS_NOLOGFLUSH of linux/fs.h


@dataclass(frozen=True)
class FileSystem:
    """A file system of `kind` on the block device `device`, to be mounted at the folder `point` (see `in_a_file`)."""

    kind: str
    device: str
    point: Path

    def make(self) -> None:
        """Make it, empty."""
        _run(*_MAKE[self.kind], self.device)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount it, which replays its journal, for as long as the block lasts."""
        _run("mount", "-t", self.kind, self.device, self.point)
        try:
            yield self.point
        finally:
            _run("umount", self.point)
            _wait_until_free(self.device)

    def cut_power(self) -> None:
        """Lose everything that has not reached its log: nothing gets to the image from now on."""
        descriptor = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Let the file system's own checker look at it, unmounted."""
        _run(*_CHECK[self.kind], self.device)


@contextmanager
def in_a_file(kind: str, folder: Path) -> Iterator[FileSystem]:
    """Yield a file system in an image file below `folder`, not made yet.

    One loop device serves it all the time: one that is set up anew for each mount may still meet the last one's end.
    """
    image, point = folder / f"{kind}.img", folder / kind
    point.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES[kind])
    device = _run("losetup", "--find", "--show", image).strip()
    try:
        yield FileSystem(kind, device, point)
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


@contextmanager
def small_tmpfs(point: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of `size_bytes` at `point` for as long as the block lasts."""
    point.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", point)
    try:
        yield point
    finally:
        _run("umount", point)


def missing(kind: str, folder: Path) -> str:
    """Return why a file system of `kind` ("tmpfs" too) cannot be mounted below `folder`, or nothing."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        if kind == "tmpfs":
            with small_tmpfs(folder / "probe", 1 << 20):
                return ""
        tools = [_MAKE[kind][0], _CHECK[kind][0]]
        if absent := [tool for tool in tools if shutil.which(tool) is None]:
            return f"{', '.join(absent)} is not installed"
        with in_a_file(kind, folder) as probe:
            probe.make()
            with probe.mounted():
                probe.cut_power()
    except (AssertionError, OSError) as error:
        return f"{kind} cannot be mounted and shut down here: {error}"
    return ""


def _wait_until_free(device: str) -> None:
    """Wait until nobody has `device` mounted any more.

    A process that was started with a mount namespace of its own meanwhile, a browser's sandbox for instance, keeps a
    copy of every mount; mounting the device again would then give the old file system, its power still cut.
    """
    deadline = time.monotonic() + FREE_S
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        except OSError:
            assert time.monotonic() < deadline, f"{device} is still mounted elsewhere"
            time.sleep(0.01)
        else:
            return


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout[-500:]} {done.stderr[-500:]}"
    return done.stdout
