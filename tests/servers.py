"""The real other sides: Debian's docker-registry with TLS and basic auth, and OpenSSH's sshd, on ports of their own."""

from __future__ import annotations

import datetime
import getpass
import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

USER, PASSWORD = "fleet", "open sesame"
_HASH = "$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"  # bcrypt of PASSWORD: all the registry knows
_CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: "{host}:{port}"
  secret: a secret that survives a restart
  tls: {{certificate: {folder}/server.crt, key: {folder}/server.key}}
auth:
  htpasswd: {{realm: fleet, path: {folder}/htpasswd}}
"""


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def await_port(host: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}: {log.read_text()}")


@dataclass
class RegistryServer:
    """Debian's docker-registry. `ca` signs its certificate for `host`; `USER` may do everything with `PASSWORD`."""

    folder: Path
    host: str = "127.0.0.1"
    storage: Path | None = None
    launcher: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if shutil.which("docker-registry") is None:
            pytest.skip("there is no docker-registry here (apt-get install docker-registry)")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage = self.storage or self.folder / "storage"
        self.port = self.port or free_port()
        write_certificates(self.folder, self.host)
        (self.folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
        config = _CONFIG.format(storage=self.storage, host=self.host, port=self.port, folder=self.folder)
        (self.folder / "config.yml").write_text(config)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def url(self, repository: str = "fleet/machine", port: int | None = None) -> str:
        return f"oci://{self.host}:{port or self.port}/{repository}"

    def start(self) -> None:
        log = self.folder / "log.txt"
        with log.open("ab") as output:
            command = [*self.launcher, "docker-registry", "serve", str(self.folder / "config.yml")]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        if not self.launcher:
            await_port(self.host, self.port, self.process, log)

    def kill(self) -> None:
        """End it as a power cut of its process would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def uploads(self) -> list[Path]:
        """The unfinished uploads in its storage."""
        assert self.storage is not None
        return sorted(self.storage.glob("docker/registry/v2/repositories/**/_uploads/*"))


@contextmanager
def running(server: RegistryServer) -> Iterator[RegistryServer]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


def write_certificates(folder: Path, host: str) -> None:
    """Write ca.crt, and server.crt and server.key that it signs for `host`."""
    now = datetime.datetime.now(datetime.timezone.utc)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder(issuer_name=ca_name, subject_name=subject, public_key=public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        return made.not_valid_after(now + datetime.timedelta(days=30))

    authority = x509.BasicConstraints(ca=True, path_length=0)
    own = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    ca = builder(ca_name, ca_key.public_key()).add_extension(authority, critical=True)
    ca_signed = ca.add_extension(own, critical=False).add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)), x509.DNSName("localhost")])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    server = builder(name, key.public_key()).add_extension(alternative, critical=False)
    signed = server.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256())
    (folder / "ca.crt").write_bytes(ca_signed.public_bytes(serialization.Encoding.PEM))
    (folder / "server.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(key.private_bytes(*private))


@dataclass
class SshServer:
    """OpenSSH's sshd, which lets in one key and knows one host key."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if shutil.which("sshd") is None and not Path("/usr/sbin/sshd").exists():
            pytest.skip("there is no sshd here (apt-get install openssh-server)")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        _write_key(self.folder / "host_key")
        _write_key(self.folder / "identity")
        self._file("authorized_keys", (self.folder / "identity.pub").read_text())
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}")
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder}/host_key", "PidFile none"]
        lines += [f"AuthorizedKeysFile {self.folder}/authorized_keys", "StrictModes no", "UsePAM no"]
        lines += ["PermitRootLogin prohibit-password", "PasswordAuthentication no", "Subsystem sftp internal-sftp"]
        self._file("sshd_config", "\n".join(lines) + "\n")

    def _file(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o600)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def identity(self) -> Path:
        return self.folder / "identity"

    def url(self, path: Path, port: int | None = None) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port or self.port}{path}"

    def start(self) -> None:
        if getpass.getuser() == "root":
            Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges
        log = self.folder / "log.txt"
        with log.open("ab") as output:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        await_port("127.0.0.1", self.port, self.process, log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _write_key(path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    openssh = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*openssh))
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b"\n")
