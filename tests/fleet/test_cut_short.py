"""What is told and remembered where a sync or a promotion is cut short in between, and where the host decides twice."""

from __future__ import annotations

from collections import Counter
from typing import NoReturn

import pytest
from test_loop import spoiled
from test_outgoing import listed, on
from worlds import World

from edge_cmcl.bundle.attested import Judgement
from edge_cmcl.device import following
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.verdicts import untold
from edge_cmcl.errors import RemoteError
from edge_cmcl.host.fleet import promoting
from edge_cmcl.host.fleet.overview import overview


class CutError(BaseException):
    """Ends a process at one instant, as a kill does: nothing in the product catches it."""


def cut(*_: object, **__: object) -> NoReturn:
    raise CutError


def away(*_: object, **__: object) -> NoReturn:
    raise RemoteError("the link broke")


def verdict_of(world: World, name: str, digest: str) -> Judgement | None:
    world.pull()
    return world.fleet.devices()[world.device(name).state().device_id].verdicts.get(digest)


@pytest.mark.parametrize(("fault", "error"), [(cut, CutError), (away, RemoteError)])
def test_a_verdict_that_could_not_be_told_is_told_at_the_next_sync(
    pulled: World, monkeypatch: pytest.MonkeyPatch, fault: object, error: type[BaseException]
) -> None:
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    with monkeypatch.context() as patch:
        patch.setattr(following, "tell_judgement", fault)
        with pytest.raises(error):
            pulled.sync("a")
    assert pulled.device("a").tags()[CURRENT] == merged, "it was installed"
    assert verdict_of(pulled, "a", merged) is None
    before, shown = on(pulled), listed(pulled, "a")
    pulled.sync("a")
    sent = {digest: size for digest, size in on(pulled).items() if digest not in before}
    assert Counter(each.item.blob.size for each in shown) == Counter(sent.values())
    verdict = verdict_of(pulled, "a", merged)
    assert verdict is not None
    assert verdict.accepted
    assert untold(pulled.device("a")) is None


def test_a_verdict_of_what_was_not_installed_is_not_told(pulled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    with monkeypatch.context() as patch:
        patch.setattr(following, "install", cut)
        with pytest.raises(CutError):
            pulled.sync("a")
    assert untold(pulled.device("a")) is None
    assert verdict_of(pulled, "a", merged) is None
    assert pulled.sync("a").followed.news == "installed"
    assert verdict_of(pulled, "a", merged) is not None


def test_a_verdict_that_is_damaged_stops_no_sync(pulled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled.promote(pulled.merge(), stage="trial")
    with monkeypatch.context() as patch:
        patch.setattr(following, "tell_judgement", cut)
        with pytest.raises(CutError):
            pulled.sync("a")
    (file,) = (pulled.folder / "a" / "sync").glob("verdict.json")
    file.write_bytes(file.read_bytes()[:100])
    assert pulled.sync("a").followed.news == "known"
    assert not file.exists()


def test_a_verdict_counts_where_the_host_has_decided_again_before_it_pulled(pulled: World) -> None:
    first = pulled.merge()
    pulled.promote(first, stage="trial")
    pulled.sync("a")
    second = spoiled(pulled, first)
    pulled.promote(second, stage="trial")
    assert verdict_of(pulled, "a", first) is not None, "it was asked of the first, which no decision names any more"
    pulled.sync("a")
    verdict = verdict_of(pulled, "a", second)
    assert verdict is not None
    assert not verdict.accepted
    assert pulled.pull().news == []


def test_what_is_judged_again_after_it_was_declined_replaces_the_verdict(
    pulled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    with monkeypatch.context() as patch:
        patch.setattr(following, "MAX_DRIFT", -1.0)  # as if the device held back more
        patch.setattr(following, "worse", lambda judged: list(judged))
        pulled.sync("a")
    verdict = verdict_of(pulled, "a", merged)
    assert verdict is not None
    assert not verdict.accepted
    pulled.promote(merged)
    assert pulled.sync("a").followed.news == "installed"
    verdict = verdict_of(pulled, "a", merged)
    assert verdict is not None
    assert verdict.accepted


@pytest.mark.parametrize("to_all", [True, False])
def test_a_decision_that_was_told_is_remembered_though_the_host_was_cut(
    pulled: World, monkeypatch: pytest.MonkeyPatch, to_all: bool
) -> None:
    merged, device = pulled.merge(), pulled.device("a").state().device_id
    with monkeypatch.context() as patch:
        patch.setattr(promoting, "remember", cut)
        with pytest.raises(CutError):
            pulled.promote(merged, *([] if to_all else [device]))
    assert pulled.sync("a").followed.news == "installed"
    pulled.pull()
    known = pulled.fleet.state().for_all if to_all else pulled.fleet.devices()[device].decision
    assert known is not None
    assert (known.manifest, known.serial) == (merged, 1)
    assert [each.digest for each in overview(pulled.fleet).promoted] == [merged]
    assert pulled.promote(merged, stage="withdrawn") == 2


def test_a_decision_that_was_not_told_is_not_remembered(pulled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = pulled.merge()
    with monkeypatch.context() as patch:
        patch.setattr(promoting, "_tell", cut)
        with pytest.raises(CutError):
            pulled.promote(merged)
    pulled.pull()
    state = pulled.fleet.state()
    assert (state.for_all, state.last, state.serial) == (None, None, 1)
    assert pulled.promote(merged) == 2, "its number is not given again"
    pulled.pull()
    assert pulled.fleet.state().for_all is not None
