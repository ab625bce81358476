"""Fuzz targets of what devices and hosts send each other: signed documents, pairs kept back, what a host knows."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
from mutate import blind, dumped, in_json, in_safetensors
from target import Target, same, written

from edge_cmcl import tensors
from edge_cmcl.bundle.attested import JudgedPair, Judgement, Promotion, Report, Shared
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import Declined, OwnModel, Reverted, from_json, sealed, to_json, unsealed
from edge_cmcl.device.held_out import HeldOut, packed, read
from edge_cmcl.host.fleet.state import Device, FleetState, Measured, Past

_DIGEST, _NOW = "sha256:" + 64 * "b", "2026-01-02T03:04:05Z"
_PAIR = JudgedPair(
    modalities=("acc", "text"), origin="d:acc+text", n=20, gallery=6, mrr=0.5, recall_at_1=0.25, recall_at_10=1.0,
    before=0.4, change=(-0.1, 0.2),
)  # fmt: skip
_JUDGEMENT = Judgement(manifest=_DIGEST, device_id="d", created=_NOW, against=_DIGEST, reason="no", pairs=(_PAIR,))
_PROMOTION = Promotion(serial=7, name="machine", device_id="", stage="trial", manifest=_DIGEST, counter=3, created=_NOW)
_REPORT = Report(
    device_id="d", name="machine", created=_NOW, manifest=_DIGEST, counter=3, trial=True,
    reverted=Reverted(digest=_DIGEST, since=_NOW, reason="golden windows"),
    declined=(Declined(digest=_DIGEST, since=_NOW, reason="worse"),), serial=7, unsent=1, software="edge-cmcl 0.1",
)  # fmt: skip
_SHARED = Shared(manifest=_DIGEST, device_id="d", created=_NOW, files=(_DIGEST,))
_KINDS: dict[bytes, type[OwnModel]] = {
    b"edge-cmcl/promotion/1": Promotion,
    b"edge-cmcl/report/1": Report,
    b"edge-cmcl/shared/1": Shared,
}


def _attested(data: bytes) -> None:
    """Read a signed document as what it says it is; what is accepted is the same when written again."""
    kind = next((model for name, model in _KINDS.items() if name in data), Judgement)
    found = from_json(kind, data, "the document")
    same("a document", from_json(kind, to_json(found), "again"), found)


def _documents() -> list[bytes]:
    return [to_json(each) for each in (_JUDGEMENT, _PROMOTION, _REPORT, _SHARED)]


def _fleet(data: bytes) -> None:
    """Read what a host knows, with the checksum that it needs to be believed."""
    kind = Device if b"edge-cmcl/device/1" in data else FleetState
    with suppress(ValueError, RecursionError):
        fields = json.loads(data)
        if isinstance(fields, dict):
            fields.pop("check", None)
            data = dumped({**fields, "check": digest_of(dumped(fields))})
    found = unsealed(kind, data, "the file", "")
    same("what a host knows", unsealed(kind, sealed(found), "again", ""), found)


def _fleet_documents() -> list[bytes]:
    past = Past(digest=_DIGEST, counter=2, created=_NOW, action="update", worst=0.1, judged=(_PAIR,))
    device = Device(
        device_id="d", fingerprint=64 * "c", told=_DIGEST, report=_REPORT, seen=_NOW, history=(past,),
        verdicts={_DIGEST: _JUDGEMENT}, decision=_PROMOTION,
    )  # fmt: skip
    measured = Measured(file="test.safetensors", modalities=("acc", "gyro"), metrics={"mrr": 0.5}, at=_NOW)
    state = FleetState(remote="oci://host/x", serial=7, for_all=_PROMOTION, measured={_DIGEST: (measured,)})
    return [sealed(device), sealed(state)]


def _held_out(data: bytes) -> None:
    """Read pairs that were kept back; what is accepted can be written, and is the same then."""
    held = read(written("held.safetensors", data))
    again = packed(read(written("again.safetensors", packed(held))))
    same("pairs kept back", packed(held), again)
    held.first(2)


def _held_out_files() -> list[bytes]:
    raw = np.random.default_rng(0).standard_normal((4, 6), np.float32)
    full = HeldOut(
        origin="d:acc+text", members=("acc", "text"), raw={"acc": raw}, valid={"acc": np.array([1, 1, 0, 1], bool)},
        labels=np.array([0, 1, -1, 1]), label_names=("walk", "läuft"), encoders={"acc": f"{_DIGEST} 6 1.0"},
    )  # fmt: skip
    assert tensors.from_bytes(packed(full))
    return [packed(full)]


FLEET_TARGETS = (
    Target("attested", _attested, _documents, (blind, in_json, in_json), (4,)),
    Target("fleet", _fleet, _fleet_documents, (blind, in_json, in_json), (4,)),
    Target("held-out", _held_out, _held_out_files, (blind, in_safetensors, in_safetensors), (3,)),
)
