"""Pairs that devices shared with their host: kept by device, and read to judge generations by."""

from __future__ import annotations

import warnings
from pathlib import Path

from edge_cmcl.bundle import timestamp
from edge_cmcl.bundle.attested import Shared, attested, shared_tag
from edge_cmcl.bundle.documents import Descriptor, Manifest, from_json
from edge_cmcl.bundle.trust import Trust
from edge_cmcl.device.held_out import HeldOut, HeldOutWarning, read
from edge_cmcl.durable import make_folder, storage_errors, sync_folder
from edge_cmcl.errors import DataError, FormatError, SignatureError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.sync.attached import blob_reader
from edge_cmcl.sync.remote import Remote

MAX_FILE_BYTES = 64 << 20
"""One file of shared pairs."""


def bring(fleet: Fleet, remote: Remote, device: str, digest: str, trusted: Trust) -> int:
    """Bring what a device shares beside the generation `digest`; return the bytes fetched.

    Raises:
        SignatureError: it is of another device or generation.
        DigestError, FormatError, DataError: it is damaged.
        RemoteError: the remote is away.
    """
    entry = remote.head(shared_tag(digest, device))
    if entry is None:
        return 0
    reader, name = blob_reader(remote), f"what {device} shares"
    shared, _ = attested(Shared, reader, entry, trusted, timestamp(), name)
    if (shared.manifest, shared.device_id) != (digest, device):
        expected = f"{digest[:19]} of {device}"
        raise SignatureError(f"{name} is of something else", expected=expected, got=shared.device_id)
    layers = {layer.digest: layer for layer in from_json(Manifest, reader(entry), name).layers}
    folder, fetched = shared_folder(fleet, device), 0
    make_folder(folder)
    for each in shared.files:
        if each not in layers or layers[each].size > MAX_FILE_BYTES:
            expected = f"files of at most {MAX_FILE_BYTES} bytes"
            raise FormatError(f"{name} cannot be taken", expected=expected, got=each[:19])
        fetched += _fetch(remote, layers[each], folder)
    with storage_errors(folder):
        for path in folder.glob("*.safetensors"):
            if f"sha256:{path.stem}" not in shared.files:
                path.unlink()
    return fetched


def shared_pairs(fleet: Fleet) -> dict[str, list[HeldOut]]:
    """Return what each device shares, by its id; files that cannot be read are left out, with a warning.

    Warns:
        HeldOutWarning: a file cannot be read.
    """
    found: dict[str, list[HeldOut]] = {}
    for device in fleet.devices():
        for path in sorted(shared_folder(fleet, device).glob("*.safetensors")):
            try:
                found.setdefault(device, []).append(read(path))
            except DataError as error:
                warnings.warn(f"{error.message}: what {device} shares is left out", HeldOutWarning, stacklevel=2)
    return found


def _fetch(remote: Remote, layer: Descriptor, folder: Path) -> int:
    target = folder / f"{layer.digest.removeprefix('sha256:')}.safetensors"
    if target.exists():
        return 0
    part = target.with_suffix(".part")
    remote.download(layer, part)
    read(part)
    with storage_errors(target):
        part.replace(target)
        sync_folder(folder)
    return layer.size


def shared_folder(fleet: Fleet, device: str) -> Path:
    """Return where what a device shares is kept."""
    return fleet.root / "shared" / device
