"""Keys and signatures through the installed command: each refusal with its exit code, and no secret anywhere."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_command import Device
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.documents import Descriptor, Manifest, from_json, to_json
from edge_cmcl.bundle.keys import PrivateKey, read_private_key
from edge_cmcl.bundle.signature import signature_tag, write_signature
from edge_cmcl.bundle.transfer import export_layout, import_layout


def signed_bundle(machine: Machine, folder: Path, signers: list[PrivateKey], **update: Any) -> Path:
    """Write the machine's bundle with fields of its generation changed, signed by `signers`, to a tar in `folder`."""
    store = Store.create(folder / "workshop")

    def sign(new: Any) -> dict[str, Descriptor]:
        return write_signature(store, new, signers) if signers else {}

    with store.writer():
        generation = store.load(import_layout(machine.bundle, store, tags=["good"])).generation
        store.commit(generation.model_copy(update=update), ["made"], sign)
    export_layout(store, "made", folder / "bundle.tar")
    shutil.rmtree(store.root)
    return folder / "bundle.tar"


def test_each_refusal_has_its_type_and_code_and_changes_nothing(
    device: Device, machine: Machine, tmp_path: Path
) -> None:
    host, stranger = read_private_key(machine.key), PrivateKey.generate()
    made = {
        "unsigned": signed_bundle(machine, tmp_path / "a", [], counter=3),
        "stranger": signed_bundle(machine, tmp_path / "b", [stranger], counter=2),
        "class": signed_bundle(machine, tmp_path / "c", [host], counter=2, device_class="orin"),
        "project": signed_bundle(machine, tmp_path / "d", [host], counter=2, name="another"),
        "base": signed_bundle(
            machine, tmp_path / "e", [host], counter=2, parents=("sha256:" + "7" * 64,), base="sha256:" + "8" * 64
        ),
        "newer": signed_bundle(machine, tmp_path / "f", [host], counter=3),
        "older": signed_bundle(machine, tmp_path / "g", [host], counter=2),
    }
    for name, kind in (
        ("unsigned", "UnsignedError"),
        ("stranger", "UntrustedKeyError"),
        ("class", "WrongDeviceError"),
        ("project", "WrongBaseError"),
        ("base", "WrongBaseError"),
    ):
        error = device.refused("install", made[name], code=5)
        assert (error["type"], bool(error["expected"]), bool(error["got"])) == (kind, True, True), name
        assert error["to_do"], name
    assert device("install", made["newer"])["signed_by"] == host.public.fingerprint
    assert device.refused("install", made["older"], code=5)["type"] == "OlderError"
    assert device.refused("install", machine.bundle, code=5)["type"] == "OlderError"
    device("keys", "revoke", host.public.fingerprint[:8])
    assert device.refused("install", made["newer"], code=5)["type"] == "RevokedKeyError"
    assert device.refused("keys", "trust", machine.public_key, code=5)["type"] == "RevokedKeyError"
    assert device("rollback")["counter"] == 1
    assert device("install", made["unsigned"], "--allow-unsigned")["signed_by"] == ""


def tampered(machine: Machine, folder: Path, what: str) -> Path:
    """Return a bundle signed by the host whose envelope was changed; every digest is right again."""
    host = read_private_key(machine.key)
    workshop = Store.create(folder / "workshop")
    with workshop.writer():
        generation = workshop.load(import_layout(machine.bundle, workshop, tags=["good"])).generation
        newer = generation.model_copy(update={"counter": 2})
        digest = workshop.commit(newer, ["made"], lambda new: write_signature(workshop, new, [host]))
        (entry,) = workshop.attachments(digest)
        manifest = from_json(Manifest, workshop.read(entry), "it")
        document = json.loads(workshop.read(manifest.layers[0]))
        good = document["signatures"][0]
        document = {
            "payload": lambda: {**document, "payload": document["payload"][:-8] + "AAAAAAA="},
            "sig": lambda: {**document, "signatures": [{**good, "sig": "A" * 86 + "=="}]},
            "keyid": lambda: {**document, "signatures": [{**good, "keyid": "0" * 64}]},
            "type": lambda: {**document, "payloadType": "text/plain"},
        }[what]()
        data = json.dumps(document).encode()
        layer = manifest.layers[0].model_copy(update={"digest": workshop.put(data), "size": len(data)})
        changed = to_json(manifest.model_copy(update={"layers": (layer, manifest.layers[1])}))
        new = Descriptor(media_type=entry.media_type, digest=workshop.put(changed), size=len(changed))
        workshop.move_tags({signature_tag(digest): new}, ())
    export_layout(workshop, "made", folder / "bundle.tar")
    shutil.rmtree(workshop.root)
    return folder / "bundle.tar"


@pytest.mark.parametrize("what", ["payload", "sig", "keyid", "type"])
def test_a_tampered_envelope_is_an_integrity_error(device: Device, machine: Machine, tmp_path: Path, what: str) -> None:
    bundle = tampered(machine, tmp_path / "made", what)
    options = ("--trust", machine.public_key) if what == "sig" else ("--allow-unsigned",)
    error = device.refused("install", bundle, *options, code=4)
    assert error["type"] == ("FormatError" if what == "keyid" else "SignatureError")


@pytest.mark.slow
def test_the_way_of_a_key_from_host_to_device_and_back(
    device: Device, machine: Machine, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Generate, export, trust, rotate, follow, revoke; by the host's user's own key."""
    home = {"XDG_DATA_HOME": str(tmp_path / "home"), "EDGE_CMCL_STORE": str(tmp_path / "fleet"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
        done = run_cli(*arguments, "--json", env=home)
        assert done.code == code, done.stdout + done.stderr
        return dict(done.json)

    first = run("keys", "generate")["fingerprint"]
    (private,) = (tmp_path / "home" / "edge-cmcl" / "keys").glob("*.pem")
    one = signed_bundle(machine, tmp_path / "one", [read_private_key(private)])
    assert run("install", one, code=5)["error"]["type"] == "UntrustedKeyError"
    run("install", one, "--trust", first)
    rotated = run("keys", "rotate", "--host")
    assert rotated["endorsed"]
    second = rotated["fingerprint"]
    assert run("export", machine.run, "--out", "two.tar")["signed_by"] == [second]
    assert run("install", "two.tar")["signed_by"] == second
    device_keys = {each["fingerprint"]: each["standing"] for each in run("keys", "list")["device"]}
    assert (device_keys[first], device_keys[second], len(device_keys)) == ("retired", "trusted", 3)
    assert [each["standing"] for each in run("keys", "list")["host"]] == ["retired", "trusted"]
    run("keys", "revoke", second)
    assert run("install", "two.tar", code=5)["error"]["type"] == "RevokedKeyError"
    own = run("keys", "rotate")["fingerprint"]
    assert own not in device_keys
    for path in (
        *(tmp_path / "home" / "edge-cmcl" / "keys").glob("*.pem"),
        *(tmp_path / "fleet" / "keys").glob("*.pem"),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_status_and_log_say_who_has_signed(device: Device, machine: Machine, run_cli: Callable[..., Any]) -> None:
    device("update", "--modality", "acoustic", "--data", machine.new, "--budget", "1")
    host = read_private_key(machine.key).public.fingerprint
    own = device("status")["signed_by"]
    assert (own["role"], own["standing"]) == ("own", "trusted")
    assert [each["signed_by"]["fingerprint"] for each in device("log")["generations"]] == [own["fingerprint"], host]
    shown = run_cli("status", env=device.environment, cwd=device.folder).stdout
    assert "signed by this device" in shown
    shown = run_cli("log", env=device.environment, cwd=device.folder).stdout
    assert f"key {host[:16]}" in shown


def secrets(folder: Path) -> set[str]:
    """Return what is secret in every private key file below `folder`: base64 of PKCS 8, and its part that differs."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in (data := path.read_bytes()):
            found.add(data.splitlines()[1].decode()[20:])
    return found


BROKEN = """
import edge_cmcl.bundle.keyring as keyring
from edge_cmcl.cli import main

def bug(old, new):
    raise ValueError(f"{old} {vars(old)}")

keyring.endorsement = bug
main()
"""
"""A rotation with a bug of ours while the secret is at hand."""


def test_no_private_key_is_ever_shown(
    device: Device, machine: Machine, run_cli: Callable[..., Any], cli_env: dict[str, str], tmp_path: Path
) -> None:
    """Not on stdout or stderr, not in JSON, not in the lock, not in a report of a bug; whatever goes wrong."""
    made = device("keys", "generate", "--out", "mine.key")
    assert stat.S_IMODE((tmp_path / "mine.key").stat().st_mode) == 0o600
    damaged = tmp_path / "damaged.key"
    damaged.write_bytes((tmp_path / "mine.key").read_bytes().replace(b"MC4", b"MC5"))
    hidden = secrets(tmp_path)
    assert len(hidden) == 2  # the user's (and its damaged copy), and the device's own
    lines = (
        ("keys", "list"),
        ("keys", "generate", "--out", "mine.key"),
        ("keys", "trust", "mine.key"),
        ("keys", "trust", "mine.key.pub"),
        ("keys", "revoke", "mine.key"),
        ("export", machine.run, "--out", "x.tar", "--key", "damaged.key"),
        ("export", machine.run, "--out", "x.tar", "--key", "mine.key.pub"),
        ("export", machine.run, "--out", "x.tar", "--key", tmp_path),
        ("install", machine.bundle, "--trust", "mine.key"),
        ("status",),
        ("log",),
        ("keys", "rotate"),
    )
    codes = []
    for number, arguments in enumerate(lines):
        done = run_cli(*arguments, *["--json"][number % 2 :], env=device.environment, cwd=device.folder)
        assert "Traceback" not in done.stderr
        codes.append(done.code)
        for secret in hidden | secrets(device.store):
            assert secret not in done.stdout + done.stderr
    assert codes == [0, 2, 3, 0, 3, 3, 3, 3, 3, 0, 0, 0]
    done = run_cli("-c", BROKEN, "keys", "rotate", program=Path(sys.executable), env=device.environment)
    reports = list(Path(cli_env["TMPDIR"]).glob("edge-cmcl-report-*"))
    assert (done.code, len(reports)) == (1, 1)
    assert "PrivateKey" in reports[0].read_text()
    for text in (done.stdout, done.stderr, reports[0].read_text(), (device.store / "lock").read_text()):
        for secret in hidden | secrets(device.store):
            assert secret not in text
    assert made["fingerprint"] not in hidden
