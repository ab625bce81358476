"""What the page of a fleet is told, of fleets that went through the real loop."""

from __future__ import annotations

import pytest
from test_loop import spoiled
from worlds import LESSONS, World

from edge_cmcl.bundle.attested import Promotion
from edge_cmcl.host.fleet.overview import answer, overview


def test_an_overview_tells_what_is_in_use_how_well_and_whose_word_that_is(pulled: World) -> None:
    found = overview(pulled.fleet)
    assert found.remote.startswith("file://")
    for name in LESSONS:
        store = pulled.device(name)
        device = next(each for each in found.devices if each.device_id == store.state().device_id)
        current = store.load("current")
        assert (device.digest, device.counter) == (current.digest, current.generation.counter)
        assert [past.digest for past in device.history][-1] == current.digest
        assert device.worst == max(each.relative for each in current.generation.certificate)
        assert {score.whose for score in device.scores} == {"device"}
        assert all(score.n and score.gallery and score.metrics["mrr"] > 0 for score in device.now)
    assert (found.offers, found.measured, found.refusals, found.promoted) == ((), (), (), ())
    assert "vibration - text" in found.pairs, "labels come last"


def test_a_trial_that_one_device_takes_and_one_has_not_seen_is_told(pulled: World) -> None:
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    pulled.sync("a")
    pulled.pull()
    found = overview(pulled.fleet)
    taker = pulled.device("a").state().device_id
    (decision,) = found.promoted
    assert sorted(decision.answers.values()) == ["not seen yet", "on trial"]
    assert decision.answers[taker] == "on trial"
    assert {score.device for score in found.offers} == {taker}
    assert {score.digest for score in found.offers} == {merged}
    states = {device.device_id: device.state for device in found.devices}
    assert states.pop(taker) == "on trial"
    assert set(states.values()) <= {"on trial", "confirmed"}


def test_a_declined_generation_is_told_with_the_reason_and_what_the_device_found(pulled: World) -> None:
    bad = spoiled(pulled, pulled.merge())
    pulled.promote(bad)
    pulled.sync("a")
    pulled.pull()
    found = overview(pulled.fleet)
    (refusal,) = found.refusals
    assert (refusal.kind, refusal.digest) == ("declined", bad)
    assert refusal.device == pulled.device("a").state().device_id
    assert "became worse" in refusal.reason
    assert any(score.before is not None and score.metrics["mrr"] < score.before for score in refusal.scores)
    assert refusal.counter == pulled.fleet.store.load(bad).generation.counter
    assert "declined" in found.promoted[0].answers.values()


@pytest.mark.parametrize(("stage", "in_use", "told"), [
    ("release", True, "in use"),
    ("release", False, "not seen yet"),
    ("withdrawn", True, "still in use"),
    ("withdrawn", False, "not in use"),
])  # fmt: skip
def test_what_a_device_did_about_a_decision(pulled: World, stage: str, in_use: bool, told: str) -> None:
    device = next(iter(pulled.fleet.devices().values()))
    report = device.report.model_copy(update={"trial": False})
    digest = report.manifest if in_use else "sha256:" + "0" * 64
    decision = Promotion.model_validate({
        "serial": 9, "name": "machine", "device_id": "", "stage": stage, "manifest": digest, "counter": 2,
        "created": "2026-01-01T00:00:00Z",
    })  # fmt: skip
    assert answer(device.model_copy(update={"report": report}), decision) == told
