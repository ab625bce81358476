"""A fleet put together for its page: what devices said, what the host found, what was refused and what is promoted."""

from __future__ import annotations

from collections.abc import Iterable

from edge_cmcl.bundle import timestamp
from edge_cmcl.bundle.attested import JudgedPair, Judgement, Promotion
from edge_cmcl.device.text import TEXT
from edge_cmcl.host.fleet.fleet import Fleet, latest_decision
from edge_cmcl.host.fleet.state import Device, FleetState, Measured
from edge_cmcl.report.fleet import METRICS, FleetDevice, FleetOverview, Moved, Promoted, Refusal, Score

Counters = dict[str, int]


def overview(fleet: Fleet) -> FleetOverview:
    """Return what the page of `fleet` shows.

    Raises:
        FormatError, DigestError: something of the fleet is damaged.
    """
    devices, state = list(fleet.devices().values()), fleet.state()
    counters = _counters(fleet, devices, state)
    refusals = [refusal for device in devices for refusal in _refusals(device, counters)]
    return FleetOverview(
        name=devices[0].report.name if devices else "",
        remote=state.remote,
        made=timestamp(),
        devices=tuple(_device(device, state.for_all, counters) for device in devices),
        offers=tuple(score for device in devices for score in _offers(device, counters)),
        measured=tuple(_measured(each, digest, counters) for digest, found in state.measured.items() for each in found),
        refusals=tuple(sorted(refusals, key=lambda each: each.at, reverse=True)),
        promoted=tuple(promoted(devices, state.for_all)),
    )


def promoted(devices: Iterable[Device], for_all: Promotion | None) -> list[Promoted]:
    """Return the decisions that devices follow, and the one for all; those of one generation and stage together."""
    followed: dict[tuple[str, str, bool], tuple[list[Promotion], dict[str, str]]] = {}
    if for_all is not None:
        followed[for_all.manifest, for_all.stage, True] = ([for_all], {})
    for device in devices:
        decision = latest_decision(device, for_all)
        if decision is not None:
            key = (decision.manifest, decision.stage, decision.device_id == "")
            decisions, answers = followed.setdefault(key, ([], {}))
            decisions.append(decision)
            answers[device.device_id] = answer(device, decision)
    found = [
        Promoted(digest, decisions[0].counter, stage, max(each.created for each in decisions), to_all, answers)
        for (digest, stage, to_all), (decisions, answers) in followed.items()
    ]
    return sorted(found, key=lambda each: each.at, reverse=True)


def answer(device: Device, decision: Promotion) -> str:
    """Return what a device has done about a decision, as far as it has told."""
    report, digest = device.report, decision.manifest
    verdict = device.verdicts.get(digest)
    if decision.stage == "withdrawn":
        return "still in use" if report.manifest == digest else "not in use"
    if report.manifest == digest:
        return "on trial" if report.trial else "in use"
    if report.reverted is not None and report.reverted.digest == digest:
        return "reverted"
    if any(each.digest == digest for each in report.declined) or (verdict is not None and not verdict.accepted):
        return "declined"
    if any(past.digest == digest for past in device.history):
        return "learned on"
    return "not taken yet" if report.serial >= decision.serial else "not seen yet"


def _device(device: Device, for_all: Promotion | None, counters: Counters) -> FleetDevice:
    report, decision = device.report, latest_decision(device, for_all)
    history = tuple(Moved(past.digest, past.counter, past.created, past.action, past.worst) for past in device.history)
    begun = next((past.created for past in device.history if past.digest == report.manifest), "")
    went_back = report.reverted is not None and report.reverted.since >= begun
    return FleetDevice(
        device_id=device.device_id,
        digest=report.manifest,
        counter=report.counter,
        state="on trial" if report.trial else "reverted" if went_back else "confirmed",
        seen=device.seen,
        told=report.created,
        unsent=report.unsent,
        software=report.software,
        history=history,
        scores=tuple(
            _judged(pair, "device", device.device_id, past.digest, past.created, counters)
            for past in device.history
            for pair in past.judged
        ),
        follows=f"{decision.stage} of {decision.counter}" if decision else "",
        answer=answer(device, decision) if decision else "",
    )


def _offers(device: Device, counters: Counters) -> list[Score]:
    return [score for verdict in device.verdicts.values() for score in _of(verdict, counters)]


def _of(verdict: Judgement | None, counters: Counters) -> list[Score]:
    if verdict is None:
        return []
    return [
        _judged(pair, "offer", verdict.device_id, verdict.manifest, verdict.created, counters) for pair in verdict.pairs
    ]


def _refusals(device: Device, counters: Counters) -> list[Refusal]:
    """Return what a device declined, by its last report or by a judgement before, and what it went back from."""
    report = device.report
    told = {each.digest: (each.since, each.reason) for each in report.declined}
    for digest, verdict in device.verdicts.items():
        if not verdict.accepted:
            told.setdefault(digest, (verdict.created, verdict.reason))
    found = [
        Refusal(
            device=device.device_id,
            digest=digest,
            counter=counters.get(digest),
            kind="declined",
            at=since,
            reason=reason,
            scores=tuple(_of(device.verdicts.get(digest), counters)),
        )
        for digest, (since, reason) in told.items()
    ]
    if report.reverted is not None:
        gone = report.reverted
        scores = tuple(_of(device.verdicts.get(gone.digest), counters))
        found.append(
            Refusal(
                device.device_id, gone.digest, counters.get(gone.digest), "reverted", gone.since, gone.reason, scores
            )
        )
    return found


def _judged(pair: JudgedPair, whose: str, device: str, digest: str, at: str, counters: Counters) -> Score:
    return Score(
        pair=_named(pair.modalities),
        whose="offer" if whose == "offer" else "device",
        device=device,
        digest=digest,
        counter=counters.get(digest),
        at=at,
        metrics={metric: getattr(pair, metric) for metric in METRICS},
        n=pair.n,
        gallery=pair.gallery,
        origin=pair.origin,
        before=pair.before,
    )


def _measured(found: Measured, digest: str, counters: Counters) -> Score:
    """Return the host's word. Against labels, its accuracy is what devices tell as R@1: the label's rank is 1."""
    metrics = {metric: found.metrics[metric] for metric in METRICS if metric in found.metrics}
    n = gallery = int(found.metrics.get("n", 0))
    if "accuracy" in found.metrics:
        metrics["recall_at_1"] = found.metrics["accuracy"]
        gallery = round(1.0 / found.metrics["chance_accuracy"])
    return Score(
        pair=_named(found.modalities),
        whose="host",
        device="",
        digest=digest,
        counter=counters.get(digest),
        at=found.at,
        metrics=metrics,
        n=n,
        gallery=gallery,
        origin=found.file,
    )


def _named(modalities: tuple[str, str]) -> str:
    """Return the name of a pair, the same whichever modality comes first; labels come last."""
    return " - ".join(sorted(modalities, key=lambda name: (name == TEXT, name)))


def _counters(fleet: Fleet, devices: Iterable[Device], state: FleetState) -> Counters:
    """Return the counter of every generation that is spoken of, where the fleet has it or somebody told."""
    found, asked = Counters(), set(state.measured)
    decisions = [state.for_all]
    for device in devices:
        found |= {past.digest: past.counter for past in device.history}
        found[device.report.manifest] = device.report.counter
        decisions.append(device.decision)
        asked |= {*device.verdicts, *(each.digest for each in device.report.declined)}
        asked |= {device.report.reverted.digest} if device.report.reverted else set()
    found |= {each.manifest: each.counter for each in decisions if each is not None}
    for digest in sorted(asked - found.keys()):
        if fleet.store.has(digest):
            found[digest] = fleet.store.load_manifest(digest).generation.counter
    return found
