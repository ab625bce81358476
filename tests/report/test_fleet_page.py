"""The page of a fleet as it is written; `test_fleet_page_in_chromium` looks at it as it is drawn."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_samples import digest, make_fleet
from test_page import HOSTILE, Page

from edge_cmcl.errors import MissingExtraError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.overview import overview
from edge_cmcl.report import is_page
from edge_cmcl.report.fleet import FleetOverview, pair_rows
from edge_cmcl.report.fleet_page import MAX_MARKS, age_text, render_fleet, share_text, write_fleet_page
from edge_cmcl.report.page import _library


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> FleetOverview:
    return overview(make_fleet(tmp_path_factory.mktemp("fleet") / "fleet", devices=30))


@pytest.fixture(scope="module")
def page(found: FleetOverview) -> Page:
    return Page(render_fleet(found))


def test_every_device_stands_in_the_table_with_what_it_has_in_use(found: FleetOverview, page: Page) -> None:
    for device in found.devices:
        assert device.device_id in page.text
        assert device.digest[7:19] in page.text
        assert device.seen[:16].replace("T", " ") in page.text
    states = {device.state for device in found.devices}
    assert states == {"confirmed", "on trial", "reverted"}


def test_the_page_of_a_hundred_devices_with_a_long_history_is_under_two_megabytes(tmp_path: Path) -> None:
    found = overview(make_fleet(tmp_path / "fleet", devices=100, generations=63, pairs=2))
    size = write_fleet_page(found, tmp_path / "page.html")
    assert size == (tmp_path / "page.html").stat().st_size < 2_000_000
    assert is_page(tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    shown = page.data["devices"]
    marks = sum(1 + len(rows) for device in shown for *_, rows in device["history"])
    assert 0.8 * MAX_MARKS < marks <= MAX_MARKS
    for device, drawn in zip(found.devices, shown, strict=True):
        assert drawn["history"][-1][0] == device.history[-1].counter, "the latest are kept"
    assert re.search(
        r"The charts hold the latest \d+ generations of each device; \d+ older ones are left out", page.text
    )


def test_each_score_says_whose_word_it_is(found: FleetOverview, page: Page) -> None:
    of = {whose: [score for score in found.scores if score.whose == whose] for whose in ("device", "offer", "host")}
    assert all(of.values())
    assert all(bool(score.device) == (score.whose != "host") for score in found.scores)
    others = page.data["others"]
    assert [each[0] for each in others].count("offer") == len(of["offer"])
    assert [each[0] for each in others].count("host") == len(of["host"]) == 2
    for words in ("the device's word, of what it had in use", "of what it was offered", "the host's word"):
        assert words in page.text


def test_the_accuracy_that_the_host_finds_is_what_devices_call_r_at_1(found: FleetOverview) -> None:
    (labels,) = [row for row in pair_rows(found) if row.pair == "gyro - text"]
    assert labels.host is not None
    assert labels.host.metrics == {"recall_at_1": 0.81}
    assert labels.host.gallery == 25


def test_a_pair_has_the_median_of_what_devices_have_in_use_and_names_the_lowest(found: FleetOverview) -> None:
    for row in pair_rows(found):
        told = {d.device_id: s.metrics["mrr"] for d in found.devices for s in d.now if s.pair == row.pair}
        assert row.devices == len(told)
        assert (row.lowest, row.highest) == (min(told.values()), max(told.values()))
        assert told[row.lowest_device] == row.lowest
        assert row.lowest <= row.medians["mrr"] <= row.highest


def test_what_was_refused_is_listed_with_the_reason_and_what_was_found(found: FleetOverview, page: Page) -> None:
    assert {refusal.kind for refusal in found.refusals} == {"declined", "reverted"}
    declined = next(refusal for refusal in found.refusals if refusal.kind == "declined")
    assert declined.reason in page.text
    assert f"{share_text(declined.scores[0].before)} before" in page.text


def test_what_is_promoted_tells_what_devices_did(found: FleetOverview, page: Page) -> None:
    (decision,) = found.promoted
    assert (decision.digest, decision.for_all, decision.stage) == (digest("merged"), True, "trial")
    assert set(decision.answers) == {device.device_id for device in found.devices}
    assert set(decision.answers.values()) == {"on trial", "declined", "not taken yet"}
    assert re.search(r"Generation 12 .* is to be tried by all devices: .*8 on trial", page.text)


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    loading = [(tag, name, value) for tag, attrs in page.elements for name, value in attrs.items()
               if name in ("src", "href", "srcset", "action", "data", "poster", "background")]  # fmt: skip
    assert loading == [("link", "href", "data:,")]
    assert not re.search(r"url\(|@import", "".join(page.styles))


def test_texts_of_devices_cannot_become_elements_or_scripts(tmp_path: Path, page: Page) -> None:
    found = overview(make_fleet(tmp_path / "fleet", devices=12, reason=HOSTILE, file=HOSTILE))
    scores = [replace(score, pair=HOSTILE, origin=HOSTILE) for score in found.measured]
    devices = [replace(device, software=HOSTILE) for device in found.devices]
    found = replace(found, remote=HOSTILE, measured=tuple(scores), devices=tuple(devices))
    hostile = Page(render_fleet(found))
    assert not {tag for tag, _ in hostile.elements} - {tag for tag, _ in page.elements}
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on")]
    assert len(hostile.scripts) == len(page.scripts) == 3
    assert hostile.scripts[1:] == page.scripts[1:], "only the data differ"
    assert hostile.text.count(HOSTILE) >= 4
    assert HOSTILE in hostile.data["pairs"]


def test_an_empty_fleet_says_so(tmp_path: Path) -> None:
    Fleet.create(tmp_path / "fleet")
    page = Page(render_fleet(overview(Fleet(tmp_path / "fleet"))))
    assert "No device has been seen yet" in page.text
    assert "This fleet is empty" in page.text
    assert page.data["devices"] == []


def test_shares_and_ages_are_read_easily() -> None:
    assert [share_text(share) for share in (None, 0.0, 0.1234, 1.0, 0.00041)] == ["-", "0.0", "12.3", "100.0", "0.041"]
    now = "2026-02-01T00:00:00Z"
    times = ("2026-01-31T23:55:00Z", "2026-01-31T21:00:00Z", "2026-01-20T00:00:00Z", "2026-02-01T00:00:09Z")
    assert [age_text(then, now) for then in times] == ["5 min", "3 h", "12 d", "0 min"]


def test_without_the_host_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, found: FleetOverview
) -> None:
    _library.cache_clear()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError) as caught:
        render_fleet(found)
    assert ".[host]" in caught.value.hint


def test_the_command_writes_the_page_of_a_fleet(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    make_fleet(tmp_path / "fleet", devices=3)
    shown = run_cli("report", "--fleet", "fleet", "--out", "page.html")
    assert (shown.code, shown.stderr) == (0, "")
    assert "3 devices: 2 confirmed, 1 on trial." in shown.stdout
    done = run_cli(
        "report", "--fleet", "--out", "page.html", "--json", env={"EDGE_CMCL_FLEET": str(tmp_path / "fleet")}
    )
    assert done.code == 0
    assert done.json["bytes"] == (tmp_path / "page.html").stat().st_size
    assert len(done.json["devices"]) == 3


def test_the_command_says_what_is_missing(run_cli: Callable[..., Any]) -> None:
    assert run_cli("report", "--out", "page.html").code == 2
    assert run_cli("report", "--fleet", "nowhere", "--out", "page.html").code == 3
    assert run_cli("report", "--fleet", "--out", "page.html", "--csv", "csv").code == 2
