from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_samples import STRATEGIES, comparison, document, parsed

from edge_cmcl.errors import MissingExtraError
from edge_cmcl.report import is_page, save, write_page
from edge_cmcl.report.page import _library, render

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<!--"


class Page(HTMLParser):
    """The elements of a page, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "style":
            self.styles.append(data)
        else:
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page draws."""
        value = json.loads(self.scripts[0])
        assert isinstance(value, dict)
        return value


@pytest.fixture(scope="module")
def html() -> str:
    return render(comparison())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_is_one_file_under_two_megabytes(tmp_path: Path, html: str) -> None:
    size = write_page(comparison(), tmp_path / "page.html")
    assert size == (tmp_path / "page.html").stat().st_size == len(html.encode())
    assert size < 2_000_000


def test_the_same_result_gives_the_same_page(html: str) -> None:
    assert render(comparison()) == html


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    loading = [(tag, name, value) for tag, attrs in page.elements for name, value in attrs.items()
               if name in ("src", "href", "srcset", "action", "data", "poster", "background")]  # fmt: skip
    assert loading == [("link", "href", "data:,")]
    assert not re.search(r"url\(|@import", "".join(page.styles))
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval", policy)


def test_every_strategy_stands_in_the_table_with_its_figures(page: Page) -> None:
    for title, source, *_ in STRATEGIES.values():
        assert title in page.text
        assert source in page.text
    for drawn in page.data["strategies"]:
        figures = drawn["summary"]["recall_at_10"]
        for shown in (figures["final_text"], figures["backward_transfer_text"], drawn["bytes_text"]):
            assert shown in page.text


def test_the_command_versions_machine_and_settings_are_shown(page: Page) -> None:
    for shown in ("streams/retrieval.toml --seeds 3 --out 'my results'", "torch 2.13.0+cpu", "AMD EPYC 9B14"):
        assert shown in page.text
    assert "25.3 GB of memory" in page.text
    assert "learning_rate=0.001" in page.text


def test_the_best_continual_strategy_alone_is_marked(html: str) -> None:
    marked = re.findall(r'<tr class="best">.*?class="name">([^<]*)<', html, re.DOTALL)
    assert marked == ["edge-cmcl"]


def test_the_best_figures_are_bold_and_references_never(html: str) -> None:
    rows = re.findall(r'class="name">([^<]*)<.*?</tr>', html, re.DOTALL)
    assert len(rows) == len(STRATEGIES)
    joint = re.search(r'class="name">Joint<.*?</tr>', html, re.DOTALL)
    ours = re.search(r'class="name">edge-cmcl<.*?</tr>', html, re.DOTALL)
    assert joint is not None
    assert ours is not None
    assert (joint[0].count('class="top"'), ours[0].count('class="top"')) == (0, 3)


def test_texts_of_the_result_file_cannot_become_elements_or_scripts(page: Page) -> None:
    value = document(["joint", "ours"], seeds=2, steps=2)
    value["stream"]["name"] = HOSTILE
    value["command"] = ["edge-cmcl", HOSTILE]
    value["machine"]["cpu"] = value["versions"]["torch"] = HOSTILE
    for i, step in enumerate(value["stream"]["steps"]):
        step.update(name=f"{HOSTILE}{i}", modalities=[HOSTILE, f"{HOSTILE}{i}"])
    for cell in value["cells"]:
        cell.update(title=HOSTILE + cell["strategy"], source=HOSTILE, settings={HOSTILE: HOSTILE})
        cell["certificate"] = [{"modality": HOSTILE, "origin": HOSTILE, "bound": 0.1, "relative": 0.1}]
    hostile = Page(render(parsed(value)))
    assert not {tag for tag, _ in hostile.elements} - {tag for tag, _ in page.elements} - {"img"}
    assert "img" not in [tag for tag, _ in hostile.elements]
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on")]
    assert len(hostile.scripts) == len(page.scripts) == 3
    assert hostile.scripts[1:] == page.scripts[1:], "only the data differ"
    assert hostile.text.count(HOSTILE) >= 10
    assert hostile.data["steps"] == [f"{HOSTILE}0", f"{HOSTILE}1"]
    assert hostile.data["strategies"][0]["title"].startswith(HOSTILE)


def test_scores_of_the_charts_are_means_over_seeds_in_percent_and_null_where_unknown(page: Page) -> None:
    cells = comparison().strategies()["ours"]
    matrix = next(s for s in page.data["strategies"] if s["strategy"] == "ours")["matrices"]["recall_at_10"]
    scores = [cell.matrices["recall_at_10"][10][0] for cell in cells]
    assert matrix[10][0] == pytest.approx(100 * sum(s for s in scores if s is not None) / 3, abs=0.01)
    assert matrix[0][10] is None


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("strategies", [["ours"], ["joint"], ["joint", "vanilla"]])
def test_small_results_have_a_page_too(strategies: list[str], steps: int) -> None:
    page = Page(render(parsed(document(strategies, seeds=1, steps=steps))))
    assert len(page.data["strategies"]) == len(strategies)
    assert "±" not in page.text.replace("mean ± standard deviation", "")


def test_missing_seeds_are_told(page: Page) -> None:
    value = document(["vanilla", "ours"], steps=2)
    del value["cells"][0]
    assert "2 of 3 seeds" in Page(render(parsed(value))).text
    assert "of 3 seeds" not in page.text


def test_corruption_is_told(page: Page) -> None:
    value = document(["ours"], steps=2)
    value["corruption"] = {"noise_snr_db": 10, "missing_fraction": 0.25, "parts": ["train", "test"]}
    told = "Corrupted windows (train and test): noise at 10 dB, 25% missing."
    assert told in Page(render(parsed(value))).text
    assert "Corrupted" not in page.text


def test_classification_has_accuracy_and_map_instead_of_recall() -> None:
    value = document(["ours"], steps=2)
    for step in value["stream"]["steps"]:
        step["modalities"][1] = "text"
    for cell in value["cells"]:
        matrices = cell["matrices"]
        cell["matrices"] = {"accuracy": matrices["recall_at_10"], "map": matrices["mrr"]}
    page = Page(render(parsed(value)))
    assert "accuracy" in page.text
    assert "mAP" in page.text
    assert "R@10" not in page.text


def test_without_the_host_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _library.cache_clear()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError) as caught:
        render(comparison())
    assert ".[host]" in caught.value.hint


def test_the_room_is_imported_without_what_draws_and_without_torch() -> None:
    code = "import sys, edge_cmcl.report; print(sorted({'torch', 'jinja2', 'vl_convert', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_writes_page_and_csv_and_prints_the_verdict(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    save(parsed(document(["joint", "ours", "gem"], steps=3)), tmp_path / "comparison.json")
    shown = run_cli("report", tmp_path, "--out", "page.html", "--csv", "csv")
    assert (shown.code, shown.stderr) == (0, "")
    assert "edge-cmcl ends with a mean R@10" in shown.stdout
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(list((tmp_path / "csv").iterdir())) == 3 * 3 * 4


def test_the_command_prints_one_json_object(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    save(parsed(document(["joint", "ours"], steps=2)), tmp_path / "result.json")
    done = run_cli("report", "result.json", "--out", "page.html", "--json")
    assert done.code == 0
    assert done.json["bytes"] == (tmp_path / "page.html").stat().st_size
    assert [s["strategy"] for s in done.json["summaries"]] == ["joint"] * 4 + ["ours"] * 4
    assert done.json["summaries"][0]["backward_transfer"] is None


def test_the_command_refuses_a_file_that_is_no_result(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    done = run_cli("report", "result.json", "--out", "page.html")
    assert done.code == 3
    assert "result.json is not a result of this version" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_the_command_replaces_its_own_page_and_no_other_file(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    save(parsed(document(["joint", "ours"], steps=2)), tmp_path / "comparison.json")
    before = (tmp_path / "comparison.json").read_bytes()
    refused = run_cli("report", "comparison.json", "--out", "comparison.json")
    assert (refused.code, (tmp_path / "comparison.json").read_bytes()) == (2, before)
    assert run_cli("report", "comparison.json", "--out", ".").code == 2
    (tmp_path / "notes.html").write_text("<html>mine</html>")
    assert run_cli("report", "comparison.json", "--out", "notes.html").code == 2
    (tmp_path / "page.html").write_text('<!doctype html><head><meta name="generator" content="edge-cmcl report">')
    assert run_cli("report", "comparison.json", "--out", "page.html").code == 0
    assert is_page(tmp_path / "page.html")
    assert run_cli("report", "comparison.json", "--out", "notes.html", "--force").code == 0
    assert run_cli("report", "comparison.json", "--out", "away/page.html").code == 7
