"""The page of a fleet as a browser draws it. Skipped where there is no Chromium; .ci/run installs one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fleet_samples import make_fleet
from headless import Tab
from test_page_in_chromium import DRAWN, PAUSE, READY

from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.overview import overview
from edge_cmcl.report import write_fleet_page

CHARTS = 5 + 1  # one per pair, and the certificates
IDS = "[...document.querySelectorAll('.devices tbody tr:not([hidden])')].map((row) => row.dataset.device)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Pages of fleets of 3 and of 100 devices."""
    folder = tmp_path_factory.mktemp("pages")
    for devices in (3, 100):
        fleet = make_fleet(folder / f"fleet-{devices}", devices)
        write_fleet_page(overview(fleet), folder / f"{devices}.html")
    return {devices: folder / f"{devices}.html" for devices in (3, 100)}


@pytest.mark.parametrize(("devices", "width"), [(3, 1280), (3, 390), (100, 1280), (100, 390)])
def test_every_chart_is_drawn_without_errors_or_scrolling_sideways(
    tab: Tab, pages: dict[int, Path], devices: int, width: int
) -> None:
    tab.problems.clear()
    tab.requests.clear()
    tab.open(pages[devices], width, dark=width == 390, ready=READY)
    assert tab.evaluate(DRAWN) == CHARTS
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert tab.problems == []
    assert tab.requests == [pages[devices].as_uri()]


def test_devices_can_be_sorted_and_found(tab: Tab, pages: dict[int, Path]) -> None:
    tab.problems.clear()
    tab.open(pages[100], 1280, ready=READY)
    before = tab.evaluate(IDS)
    assert len(before) == 100
    moved = "[...document.querySelectorAll('.devices tbody tr')].map((row) => Number(row.cells[7].dataset.sort))"
    tab.evaluate("document.querySelectorAll('.devices thead button')[7].click()")
    assert tab.evaluate(moved) == sorted(tab.evaluate(moved))
    tab.evaluate("document.querySelectorAll('.devices thead button')[7].click()")
    assert tab.evaluate(moved) == sorted(tab.evaluate(moved), reverse=True)
    assert tab.evaluate(IDS) != before
    box = "document.getElementById('find')"
    tab.evaluate(f"({box}.value = 'declined', {box}.dispatchEvent(new Event('input')))")
    assert len(tab.evaluate(IDS)) == 10
    assert tab.evaluate("document.getElementById('found').textContent") == "10 of 100"
    assert tab.problems == []


def test_a_device_can_be_chosen_and_the_charts_be_over_time_and_of_another_metric(
    tab: Tab, pages: dict[int, Path]
) -> None:
    tab.problems.clear()
    tab.open(pages[100], 1280, ready=READY)
    thick = "document.querySelectorAll('[data-chart=pair] .mark-line path[stroke-width=\"2.5\"]').length"
    assert tab.evaluate(thick) == 0
    tab.evaluate("document.querySelector('.devices .pick').click()")
    tab.evaluate(PAUSE)
    chosen = tab.evaluate(IDS)[0]
    assert tab.evaluate("[device.value, document.getElementById('one').textContent]") == [chosen, f"Device {chosen}"]
    assert tab.evaluate("document.querySelectorAll('#history tbody tr').length") > 5
    assert tab.evaluate(thick) == 5
    heights = (
        "[...document.querySelectorAll('[data-chart=pair] .mark-line path')].map((p) => p.getAttribute('d')).join()"
    )
    before = tab.evaluate(heights)
    tab.evaluate("(metric.value = 'recall_at_1', metric.dispatchEvent(new Event('change')), 1)")
    tab.evaluate(PAUSE)
    assert tab.evaluate(heights) != before
    tab.evaluate("(axis.value = 'time', axis.dispatchEvent(new Event('change')), 1)")
    tab.evaluate(f"new Promise(async (done) => {{ while (!({READY})) await {PAUSE}; done(1); }})")
    assert tab.evaluate(DRAWN) == CHARTS
    assert tab.evaluate(thick) == 5
    assert tab.problems == []


def test_a_pair_of_which_only_another_metric_is_told_is_named_and_not_drawn(tab: Tab, tmp_path: Path) -> None:
    found = overview(make_fleet(tmp_path / "fleet", 3, generations=3, pairs=2))
    write_fleet_page(found, tmp_path / "page.html")
    tab.problems.clear()
    tab.open(tmp_path / "page.html", 1280, ready=READY)
    assert found.pairs == ["acc - emg", "acc - gyro", "gyro - text"], "the host alone tells the accuracy of labels"
    assert tab.evaluate(DRAWN) == 2 + 1
    assert tab.evaluate("untold.innerText").endswith(": gyro - text.")
    tab.evaluate("(metric.value = 'recall_at_1', metric.dispatchEvent(new Event('change')), 1)")
    tab.evaluate(PAUSE)
    assert tab.evaluate(DRAWN) == 3 + 1
    assert tab.evaluate("untold.hidden")
    texts = "[...chart.querySelectorAll('.role-axis-label text')].map((text) => text.textContent).filter(Boolean)"
    labels = f"[...document.querySelectorAll('[data-chart=pair]')].map((chart) => {texts})"
    for shown in tab.evaluate(labels):
        assert len(set(shown)) == len(shown), "no generation stands twice on the axis"
    assert tab.problems == []


def test_an_empty_fleet_has_a_page_without_errors(tab: Tab, tmp_path: Path) -> None:
    tab.problems.clear()
    write_fleet_page(overview(Fleet.create(tmp_path / "fleet")), tmp_path / "empty.html")
    tab.open(tmp_path / "empty.html", 390, ready=READY)
    assert "This fleet is empty" in tab.evaluate("document.body.innerText")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.problems == []


def test_hostile_texts_are_text(tab: Tab, tmp_path: Path) -> None:
    hostile = "</script><script>document.hit = 1</script><img src=x onerror='document.hit = 1'>" + "x" * 300
    found = overview(make_fleet(tmp_path / "fleet", 12, reason=hostile, file=hostile))
    scores = tuple(replace(score, pair=hostile, origin=hostile) for score in found.measured)
    write_fleet_page(replace(found, measured=scores, remote=hostile), tmp_path / "hostile.html")
    tab.problems.clear()
    tab.open(tmp_path / "hostile.html", 390, ready=READY)
    tab.evaluate("document.querySelector('.devices .pick').click()")
    assert tab.evaluate("document.hit ?? 'not hit'") == "not hit"
    assert tab.evaluate("document.querySelector('figcaption').textContent").startswith("</script>")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.problems == []
