"""What a host knows of its fleet: `fleet.json` and one file for each device, beside their generations (DESIGN.md)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.attested import JudgedPair, Judgement, Promotion, Report
from edge_cmcl.bundle.documents import Counter, DeviceId, Digest, OwnModel, Timestamp
from edge_cmcl.bundle.envelope import Fingerprint

FLEET_SCHEMA: Final = "edge-cmcl/fleet/1"
DEVICE_SCHEMA: Final = "edge-cmcl/device/1"
MAX_HISTORY = 64
"""Generations that are remembered of one device, the latest ones."""
MAX_VERDICTS = 32
"""Offered generations of which is remembered what one device found, the latest ones."""
MAX_FORMER = 8
"""Keys that are remembered of one device beside the one that it signs with, the latest ones."""
MAX_MEASURED = 32
"""Generations of which is remembered what the host found, the latest ones."""

Text = Annotated[str, StringConstraints(max_length=1024)]


class Measured(OwnModel):
    """One pair of modalities of a generation, judged by the host on pairs of its own.

    Attributes:
        file: name of the pairs file.
        modalities: the pair; "text" stands for the labels.
        metrics: as `edge-cmcl evaluate` shows them.
        at: when.
    """

    file: Text
    modalities: tuple[str, str]
    metrics: dict[str, float]
    at: Timestamp


MAX_FINDINGS = 128
"""Pairs of one generation that the host has judged, the latest ones."""

Findings = Annotated[tuple[Measured, ...], Field(max_length=MAX_FINDINGS)]


class Past(OwnModel):
    """One generation that a device had in use.

    Attributes:
        digest, counter, created, action: of the generation.
        worst: largest relative displacement bound of its certificate.
        judged: what the device found of it on the pairs that it kept back; none where it told nothing.
    """

    digest: Digest
    counter: Counter
    created: Timestamp
    action: str
    worst: float
    judged: tuple[JudgedPair, ...] = ()


class Device(OwnModel):
    """One device, by what it sent.

    Attributes:
        device_id: its id.
        fingerprint: of the key that it signs with.
        former: of those that it signed with before.
        told: manifest of its last report on the remote.
        report: that report.
        seen: when the host first saw that report, by the host's clock.
        history: its generations, the oldest first.
        verdicts: what it found of generations that it was offered, by digest, the oldest first.
        decision: the host's latest for this device alone, None for none.
    """

    schema_name: Annotated[Literal["edge-cmcl/device/1"], Field(alias="schema")] = DEVICE_SCHEMA
    device_id: DeviceId
    fingerprint: Fingerprint
    former: Annotated[tuple[Fingerprint, ...], Field(max_length=MAX_FORMER)] = ()
    told: Digest
    report: Report
    seen: Timestamp
    history: Annotated[tuple[Past, ...], Field(max_length=MAX_HISTORY)] = ()
    verdicts: Annotated[dict[Digest, Judgement], Field(max_length=MAX_VERDICTS)] = Field(default_factory=dict)
    decision: Promotion | None = None


class FleetState(OwnModel):
    """What concerns all devices; the generations themselves are in the store.

    Attributes:
        remote: with which the fleet syncs, "" before the first pull.
        serial: of the last decision.
        for_all: the host's latest decision for all devices, None for none.
        last: the last decision, whether or not it was told: `decided.settle` finds that out.
        measured: what the host found on pairs of its own, by generation, the oldest first.
    """

    schema_name: Annotated[Literal["edge-cmcl/fleet/1"], Field(alias="schema")] = FLEET_SCHEMA
    remote: Text = ""
    serial: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    for_all: Promotion | None = None
    last: Promotion | None = None
    measured: Annotated[dict[Digest, tuple[Measured, ...]], Field(max_length=MAX_MEASURED)] = Field(
        default_factory=dict
    )
