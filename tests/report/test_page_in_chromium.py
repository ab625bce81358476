"""The page as a browser draws it. Skipped where there is no Chromium; .ci/run installs one."""

from __future__ import annotations

from pathlib import Path

import pytest
from headless import Tab
from report_samples import STRATEGIES, comparison, document, parsed

from edge_cmcl.report import write_page

PAUSE = "new Promise((done) => setTimeout(done, 500))"
READY = "document.documentElement?.dataset.drawn"
CHARTS = 1 + 11 + 3 + len(STRATEGIES)  # the average, one per pair, three planes, one heat map per strategy

DRAWN = """[...document.querySelectorAll("[data-chart]")].filter((figure) => {
  const box = figure.querySelector("svg")?.getBoundingClientRect();
  return box && box.width > 100 && box.height > 100 && box.right <= innerWidth &&
    figure.querySelectorAll(".mark-symbol path, .mark-rect path").length > 0;
}).length"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(comparison(), path)
    return path


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_chart_is_drawn_without_errors_or_scrolling_sideways(
    tab: Tab, path: Path, width: int, dark: bool
) -> None:
    tab.problems.clear()
    tab.requests.clear()
    tab.open(path, width, dark=dark, ready=READY)
    assert tab.evaluate(DRAWN) == CHARTS
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert tab.problems == []
    assert tab.requests == [path.as_uri()]


def test_dark_and_light_have_their_own_colours(tab: Tab, path: Path) -> None:
    found = []
    for dark in (False, True):
        tab.open(path, 1280, dark=dark, ready=READY)
        label = "document.querySelector('[data-chart] svg .role-axis-label text')"
        found.append(tab.evaluate(f"[getComputedStyle(document.body).backgroundColor, getComputedStyle({label}).fill]"))
    assert found == [["rgb(255, 255, 255)", "rgb(86, 93, 102)"], ["rgb(20, 23, 27)", "rgb(163, 171, 181)"]]


def test_metric_and_colours_can_be_chosen(tab: Tab, path: Path) -> None:
    tab.problems.clear()
    tab.open(path, 1280, ready=READY)
    numbers = "[...document.querySelectorAll('[data-strategy=ours] .mark-text text')].map((t) => t.textContent).join()"
    name = "[...document.querySelectorAll('[data-chart=cost] .names text')].find((t) => t.textContent === 'edge-cmcl')"
    colour = f"getComputedStyle({name}).fill"
    before = tab.evaluate(numbers)
    assert tab.evaluate(colour) == "rgb(228, 87, 46)"
    tab.evaluate("document.querySelector('#picked input[value=ours]').click()")
    tab.evaluate("(metric.value = 'recall_at_1', metric.dispatchEvent(new Event('change')))")
    tab.evaluate(PAUSE)
    after = tab.evaluate(numbers)
    assert before.startswith("62")
    assert after.startswith("14")
    assert tab.evaluate(colour) == "rgb(86, 93, 102)"
    assert tab.problems == []


def test_a_page_of_one_step_and_one_strategy_draws(tab: Tab, tmp_path: Path) -> None:
    tab.problems.clear()
    write_page(parsed(document(["vanilla"], seeds=1, steps=1)), tmp_path / "small.html")
    tab.open(tmp_path / "small.html", 390, ready=READY)
    assert tab.evaluate(DRAWN) == 1 + 1 + 3 + 1
    assert tab.problems == []


def test_a_page_with_no_continual_strategy_draws_all_but_the_plane_of_stability(tab: Tab, tmp_path: Path) -> None:
    tab.problems.clear()
    write_page(parsed(document(["joint"], seeds=1, steps=2)), tmp_path / "joint.html")
    tab.open(tmp_path / "joint.html", 390, ready=READY)
    assert tab.evaluate(DRAWN) == 1 + 2 + 2 + 1
    assert tab.problems == []


def test_nothing_in_colour_draws_too(tab: Tab, path: Path) -> None:
    tab.problems.clear()
    tab.open(path, 1280, ready=READY)
    tab.evaluate("document.querySelectorAll('#picked input:checked').forEach((box) => box.click())")
    tab.evaluate(PAUSE)
    assert tab.evaluate(DRAWN) == CHARTS
    assert tab.problems == []


def test_hostile_names_are_text(tab: Tab, tmp_path: Path) -> None:
    value = document(["joint", "ours"], seeds=1, steps=2)
    hostile = "</script><script>document.hit = 1</script><img src=x onerror='document.hit = 1'>" + "x" * 300
    value["stream"]["name"] = value["stream"]["steps"][0]["name"] = hostile
    for cell in value["cells"]:
        cell["title"] = hostile + cell["strategy"]
    write_page(parsed(value), tmp_path / "hostile.html")
    tab.problems.clear()
    tab.open(tmp_path / "hostile.html", 390, ready=READY)
    assert tab.evaluate("document.hit ?? 'not hit'") == "not hit"
    assert tab.evaluate("document.querySelector('h1').textContent").startswith(hostile)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.problems == []


def test_an_error_of_the_page_would_be_noticed(tab: Tab, tmp_path: Path) -> None:
    tab.problems.clear()
    (tmp_path / "broken.html").write_text("<script>console.error('one'); throw Error('two')</script>")
    tab.open(tmp_path / "broken.html", 390, ready="document.readyState === 'complete'")
    assert len(tab.problems) == 2
    tab.problems.clear()
