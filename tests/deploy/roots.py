"""Lean Debian roots to install in: Python and what install.sh calls, unpacked from Debian's own packages.

A root of this machine's processor is entered by chroot; one of another processor the same way, its programs run by
qemu-user. Nothing is configured by maintainer scripts, so a root takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = (
    "base-files",
    "base-passwd",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "libc-bin",
    "libstdc++6",
    "login",
    "passwd",
    "python3",
    "python3-venv",
    "sed",
    "tar",
    "util-linux",
)
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
QEMU = {"aarch64": "qemu-aarch64-static"}
QEMU_CPU = "cortex-a76"
CPU_INFO = "processor\t: 0\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp\n"
"""With the x86 text of the real file, onnxruntime crashes in an emulated root."""

# A program whose ELF header says aarch64 is run by qemu; F: the interpreter is opened now, outside of any root.
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_NAME = "edge-cmcl-aarch64"
BINFMT_RULE = (
    rf":{BINFMT_NAME}:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)


def missing(machine: str = platform.machine()) -> str:
    """Return what this machine lacks to make and enter a root of `machine`, "" for nothing."""
    if os.geteuid() != 0:
        return "a root to install in needs root"
    for program in ("apt-get", "dpkg-deb", "chroot", "strace"):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    if machine != platform.machine():
        if shutil.which(QEMU[machine]) is None:
            return f"there is no {QEMU[machine]} here (apt-get install qemu-user-static)"
        if "binfmt_misc" not in Path("/proc/filesystems").read_text():
            return "this kernel cannot run the programs of another processor (binfmt_misc)"
    return ""


@dataclass(frozen=True)
class Root:
    """A Debian root.

    Attributes:
        folder: its `/`.
        machine: "x86_64" or "aarch64".
        environment: of every command in it.
    """

    folder: Path
    machine: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root; options are those of subprocess.run."""
        defaults: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
        return subprocess.run(self.argv(*command), env=self.variables(), **{**defaults, **options})

    def argv(self, *command: str) -> list[str]:
        """Return the command as it is run from outside."""
        return ["chroot", str(self.folder), *command]

    def variables(self) -> dict[str, str]:
        """Return the environment of a command."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "QEMU_CPU": QEMU_CPU, **self.environment}

    def __truediv__(self, path: str) -> Path:
        return self.folder / path.lstrip("/")


def make_root(cache: Path, folder: Path, machine: str = platform.machine(), packages: Sequence[str] = PACKAGES) -> Root:
    """Unpack a root of `machine` into the new `folder`; the packages are fetched into `cache` once."""
    debs = fetch(cache, machine, packages)
    folder.mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as packed:
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", folder], stdin=packed.stdout, check=True)
        assert packed.returncode == 0, deb
    finish(folder, machine)
    return Root(folder, machine, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})


def finish(folder: Path, machine: str) -> None:
    """Do what the packages' own scripts would have done, as far as install.sh needs it."""
    if not (folder / "bin/sh").exists():
        (folder / "bin/sh").symlink_to("dash")
    for name in ("passwd", "group"):
        shutil.copy(folder / f"usr/share/base-passwd/{name}.master", folder / f"etc/{name}")
    (folder / "etc/shadow").touch(0o640)
    (folder / "etc/gshadow").touch(0o640)
    for name in ("dev", "proc", "run", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    for name, numbers in (("null", (1, 3)), ("zero", (1, 5)), ("urandom", (1, 9)), ("random", (1, 8))):
        os.mknod(folder / "dev" / name, 0o020666, os.makedev(*numbers))
        (folder / "dev" / name).chmod(0o666)
    # There is neither /proc nor /sys in a root, but for what onnxruntime reads.
    own = Path("/proc/cpuinfo").read_text()
    (folder / "proc/cpuinfo").write_text(own if machine == platform.machine() else CPU_INFO)
    (folder / "sys/devices/system/cpu").mkdir(parents=True)
    for name in ("possible", "present"):
        (folder / "sys/devices/system/cpu" / name).write_text("0\n")


def fetch(cache: Path, machine: str, packages: Sequence[str]) -> list[Path]:
    """Return the packages of a root for `machine`: fetched by an apt of its own, from where this machine's apt does."""
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    state = (cache / f"{machine}-{key}").resolve()
    if not (state / "complete").exists():
        for name in ("lists/partial", "archives/partial", "etc"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        apt = ["apt-get", "-qq", *(f"-o{option}" for option in apt_options(state, machine))]
        subprocess.run([*apt, "update"], check=True, capture_output=True)
        subprocess.run([*apt, "--no-install-recommends", "--download-only", "-y", "install", *packages], check=True)
        (state / "complete").touch()
    return sorted((state / "archives").glob("*.deb"))


def apt_options(state: Path, machine: str) -> list[str]:
    """Return options that give apt an empty system of `machine` below `state`, with this machine's sources."""
    name = DEBIAN_NAMES[machine]
    return [
        f"APT::Architecture={name}",
        f"APT::Architectures::={name}",
        f"Dir::State={state}",
        f"Dir::State::lists={state}/lists",
        f"Dir::State::status={state}/status",
        f"Dir::Cache={state}",
        f"Dir::Cache::archives={state}/archives",
        "APT::Sandbox::User=root",
        "Debug::NoLocking=1",
    ]


@contextmanager
def emulation(machine: str) -> Iterator[None]:
    """Let this machine run programs of `machine` meanwhile; what was registered before stays as it was."""
    if machine == platform.machine() or any(BINFMT.glob(f"qemu-{machine}")):
        yield
        return
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    if not (BINFMT / BINFMT_NAME).exists():
        (BINFMT / "register").write_text(BINFMT_RULE.format(qemu=shutil.which(QEMU[machine])))
    try:
        yield
    finally:
        (BINFMT / BINFMT_NAME).write_text("-1")
