"""A Debian root in which install.sh runs, and what is to be seen of it from outside."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from roots import Root

State = dict[str, str]
PLACES = (
    "opt",
    "usr/local/bin",
    "etc/systemd",
    "etc/udev",
    "etc/edge-cmcl",
    "var/lib/edge-cmcl",
)
WRITTEN = ("etc", "media", "var")
INSTALLER = "/media/kit/install.sh"


@dataclass(frozen=True)
class Device:
    """A device of which `root` is the disk."""

    root: Root

    def plug_in(self, kit: Path, wheels: Path | None = None) -> None:
        """Put a kit, and the wheels that it shares with others, where a stick would be."""
        shutil.rmtree(self.root / "media", ignore_errors=True)
        shutil.copytree(kit, self.root / "media/kit")
        if wheels is not None:
            shutil.copytree(wheels, self.root / "media/wheels")

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run install.sh, offline."""
        return self.root.run(INSTALLER, *self.arguments(*options))

    def arguments(self, *options: str) -> list[str]:
        """Return the arguments of install.sh for an offline install."""
        return ["--wheels", "/media/wheels", *options] if (self.root / "media/wheels").exists() else list(options)

    def must_install(self, *options: str) -> None:
        """Run install.sh, which must succeed."""
        done = self.install(*options)
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installed command, as root would."""
        return self.root.run("edge-cmcl", *arguments)

    def state(self) -> State:
        """Return everything that install.sh is answerable for: kind, owner, mode and content, by path.

        Of what lies in a version the names alone: bytecode carries times.
        """
        found = {}
        for place in PLACES:
            top = self.root / place
            for path in [top, *sorted(top.rglob("*"))] if top.exists() else []:
                name = str(path.relative_to(self.root.folder))
                if "__pycache__" not in name:
                    found[name] = described(path, by_content="/versions/" not in name)
        for file in ("passwd", "group"):
            lines = (self.root / f"etc/{file}").read_text().splitlines()
            found[f"etc/{file}"] = "\n".join(line for line in lines if "edge-cmcl" in line)
        return found

    def copy(self, folder: Path) -> Device:
        """Return a device that is as this one is now.

        What nobody writes to in place is shared by hard links, which spares hundreds of megabytes.
        """
        subprocess.run(["cp", "-al", self.root.folder, folder], check=True)
        for name in WRITTEN:
            shutil.rmtree(folder / name, ignore_errors=True)
            if (self.root / name).exists():
                subprocess.run(["cp", "-a", self.root / name, folder / name], check=True)
        return Device(Root(folder, self.root.machine, self.root.environment))


def described(path: Path, *, by_content: bool) -> str:
    """Return what a path is."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    about = path.lstat()
    text = f"{about.st_mode:o} {about.st_uid}:{about.st_gid}"
    if path.is_file() and by_content:
        # Who wrote a store last is a courtesy of its lock.
        content = b"" if path.name == "lock" else path.read_bytes()
        text += f" {hashlib.sha256(content).hexdigest()[:12]}"
    return text
