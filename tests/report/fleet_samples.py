"""Fleets that look real, made deterministically: FleetState and Device documents, as a pull leaves them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from edge_cmcl.bundle.attested import JudgedPair, Judgement, Promotion, Report
from edge_cmcl.bundle.documents import Declined, Reverted
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.state import Device, FleetState, Measured, Past

PAIRS = [("acc", "gyro"), ("acc", "emg"), ("skeleton", "acc"), ("gyro", "text"), ("current", "vibration")]
NOW = datetime.now(timezone.utc)


def make_fleet(
    root: Path, devices: int = 100, generations: int = 12, *, pairs: int = 5, reason: str = "", file: str = "test"
) -> Fleet:
    """Write a fleet whose devices have learned `generations` times; every fourth was offered the merge."""
    fleet, rng = Fleet.create(root), np.random.default_rng(devices)
    merged = digest("merged")
    told = reason or "acc - emg became worse: MRR 0.612 to 0.540"
    with fleet.changing():
        for number in range(devices):
            fleet.save_device(_device(number, generations, PAIRS[:pairs], merged, told, rng))
        found = [
            Measured(
                file=f"{file}.safetensors", modalities=pair, metrics={"n": 80, "chance_mrr": 0.06, **score}, at=at(1)
            )
            for pair, score in [
                (PAIRS[0], {"mrr": 0.82, "recall_at_1": 0.74, "recall_at_10": 0.97}),
                (PAIRS[3], {"accuracy": 0.81, "map": 0.8, "chance_accuracy": 0.04}),
            ]
        ]
        release = decision(merged, generations, "", "trial", 1)
        state = FleetState(remote="oci://registry.example/fleet", serial=1, for_all=release)
        fleet.save(state.model_copy(update={"measured": {merged: tuple(found)}}))
    return fleet


def digest(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def at(hours: float) -> str:
    """Return the time `hours` ago."""
    return (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def decision(manifest: str, counter: int, device: str, stage: str, serial: int) -> Promotion:
    return Promotion.model_validate(
        {"serial": serial, "name": "machines", "device_id": device, "stage": stage, "manifest": manifest,
         "counter": counter, "created": at(30)}
    )  # fmt: skip


def _device(
    number: int, generations: int, pairs: list[tuple[str, str]], merged: str, reason: str, rng: np.random.Generator
) -> Device:
    name = hashlib.sha256(f"device {number}".encode()).hexdigest()[:16]
    level = rng.uniform(0.45, 0.8, len(pairs))
    count = max(1, generations - int(rng.integers(0, 4)))
    history = []
    for counter in range(1, count + 1):
        level = np.clip(level + rng.normal(0.012, 0.012, len(pairs)), 0.05, 0.99)
        known = pairs[: 1 + (number + counter) % len(pairs)] if counter < 3 else pairs
        history.append(
            Past(
                digest=digest(f"{name} {counter}"),
                counter=counter,
                created=at(24 * (generations - counter) + rng.uniform(2, 12)),
                action="export" if counter == 1 else "update",
                worst=0.0 if counter == 1 else float(min(1.4, 0.04 * counter * rng.uniform(0.5, 2))),
                judged=tuple(judged(pair, float(level[i])) for i, pair in enumerate(known)),
            )
        )
    took = number % 4 == 0
    declined, reverted = number % 10 == 3, number % 25 == 7
    verdicts = {}
    if took or declined:
        verdicts[merged] = Judgement(
            manifest=merged,
            device_id=name,
            created=at(3),
            against=history[-1].digest,
            accepted=took,
            reason="" if took else reason,
            pairs=tuple(
                judged(pair, float(np.clip(level[i] + (0.04 if took else -0.07), 0, 1)), before=float(level[i]))
                for i, pair in enumerate(pairs)
            ),
        )
    if took:
        past = Past(digest=merged, counter=generations, created=at(40), action="merge", worst=0.31)
        history.append(
            past.model_copy(update={"judged": tuple(judged(p, float(level[i]) + 0.0) for i, p in enumerate(pairs))})
        )
    current = history[-1]
    gone = Reverted(digest=digest("bad"), since=at(2.5), reason=f"three starts failed: {reason}")
    report = Report(
        device_id=name,
        name="machines",
        created=at(2),
        manifest=current.digest,
        counter=current.counter,
        trial=took,
        reverted=gone if reverted else None,
        declined=(Declined(digest=merged, since=at(3), reason=reason),) if declined else (),
        serial=1,
        unsent=number % 3 if number % 7 == 0 else 0,
        software="edge-cmcl 0.1.0",
    )
    return Device(
        device_id=name,
        fingerprint=hashlib.sha256(name.encode()).hexdigest(),
        told=digest(f"report of {name}"),
        report=report,
        seen=at(0.2 + float(rng.exponential(20)) + (240 if number % 50 == 49 else 0)),
        history=tuple(history),
        verdicts=verdicts,
    )


def judged(pair: tuple[str, str], mrr: float, before: float | None = None) -> JudgedPair:
    return JudgedPair(
        modalities=pair,
        origin="base",
        n=40,
        gallery=26 if "text" in pair else 40,
        mrr=mrr,
        recall_at_1=max(0.0, mrr - 0.12),
        recall_at_10=min(1.0, mrr + 0.2),
        before=before,
        change=None if before is None else (mrr - before - 0.03, mrr - before + 0.03),
    )
