from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_samples import comparison, document, parsed

from edge_cmcl.errors import DataError, StorageError
from edge_cmcl.report import load, save


def test_what_was_saved_is_loaded_again_from_the_file_and_from_its_folder(tmp_path: Path) -> None:
    made = comparison(corruption={"noise_snr_db": 10.0, "missing_fraction": 0.2, "drift_rate": None, "parts": ["test"]})
    save(made, tmp_path / "comparison.json")
    assert load(tmp_path / "comparison.json") == made
    assert load(tmp_path) == made


def test_the_file_is_the_documented_json_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(comparison(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert json.loads((tmp_path / "one").read_text()) == with_defaults(document())


def with_defaults(value: dict[str, Any]) -> dict[str, Any]:
    for cell in value["cells"]:
        cell["stored"]["bytes_by_step"] = []
    return value


def test_every_field_of_the_schema_stands_in_the_documentation() -> None:
    import edge_cmcl.report.results as results

    text = (Path(results.__file__).parent / "RESULTS.md").read_text(encoding="utf-8")
    models = [value for value in vars(results).values() if isinstance(value, type) and hasattr(value, "model_fields")]
    names = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert len(names) > 40
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_strategies_stand_in_the_order_of_their_first_cells_and_seeds_in_theirs() -> None:
    value = document(["vanilla", "ours"], steps=2)
    value["cells"].sort(key=lambda cell: (-cell["seed"], cell["strategy"]))
    found = parsed(value).strategies()
    assert list(found) == ["ours", "vanilla"]
    assert [cell.seed for cell in found["ours"]] == [0, 1, 2]


def test_a_result_may_lack_cells() -> None:
    value = document(["vanilla", "ours"], steps=2)
    del value["cells"][1]
    assert len(parsed(value).cells) == 5


@pytest.mark.parametrize(
    ("content", "message", "got"),
    [
        (None, "cannot read", "No such file"),
        (b"{", "is not JSON", "line 1"),
        (b"\xff\xfe\x00", "is not JSON", "codec"),
        (b"[" * 100_000, "is not JSON", ""),
        (b"[]", "is not a result of this version", "no schema"),
        (b'{"schema": "edge-cmcl/comparison/2"}', "is not a result of this version", "comparison/2"),
        (b'{"schema": 7}', "is not a result of this version", "7"),
    ],
)
def test_a_file_that_is_no_result_is_named_with_what_it_is(
    tmp_path: Path, content: bytes | None, message: str, got: str
) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert got in caught.value.got
    assert caught.value.hint


def test_a_result_of_a_later_version_asks_for_the_edge_cmcl_that_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"schema": "edge-cmcl/comparison/2"}')
    with pytest.raises(DataError) as caught:
        load(path)
    assert "edge-cmcl that wrote it" in caught.value.hint


Change = Callable[[dict[str, Any]], None]


def in_cell(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda value: (change(value["cells"][0]), None)[1]


def cut_column(cell: dict[str, Any]) -> None:
    for row in cell["matrices"]["mrr"]:
        row.pop()


def set_score(row: int, column: int, score: object) -> Change:
    return in_cell(lambda cell: cell["matrices"]["mrr"][row].__setitem__(column, score))


def text_step(value: dict[str, Any]) -> None:
    value["stream"]["steps"][0]["modalities"][1] = "text"


BROKEN: dict[str, tuple[Change, str]] = {
    "a row too few": (in_cell(lambda cell: cell["matrices"]["mrr"].pop()), "mrr as a 3 x 3 matrix"),
    "a column too few": (in_cell(cut_column), "mrr as a 3 x 3 matrix"),
    "a metric too few": (in_cell(lambda cell: cell["matrices"].pop("mrr")), "matrices of recall_at_1"),
    "an unknown metric": (in_cell(lambda cell: cell["matrices"].update(f1=[])), "matrices of recall_at_1"),
    "a null in the last row": (set_score(2, 0, None), "in the last row"),
    "a score in percent": (set_score(2, 0, 46.4), "less than or equal to 1"),
    "a score that is NaN": (set_score(2, 0, float("nan")), "finite number"),
    "a score that is text": (set_score(2, 0, "0.4"), "valid number"),
    "sensor metrics of a text pair": (text_step, "accuracy, map"),
    "a cell twice": (lambda value: value["cells"].append(value["cells"][0]), "each seed of the settings once"),
    "a seed that was not asked for": (in_cell(lambda cell: cell.update(seed=9)), "each seed of the settings once"),
    "two titles of a strategy": (in_cell(lambda cell: cell.update(title="x")), "one title, source and kind"),
    "seconds of two of three steps": (in_cell(lambda cell: cell["seconds"].update(steps=[1.0, 1.0])), "seconds.steps"),
    "a strategy that is a path": (in_cell(lambda cell: cell.update(strategy="../x")), "match pattern"),
    "an unknown field": (in_cell(lambda cell: cell.update(colour="red")), "Extra inputs"),
    "no cell": (lambda value: value["cells"].clear(), "at least 1 item"),
    "no step": (lambda value: value["stream"]["steps"].clear(), "at least 1 item"),
    "a missing field": (lambda value: value.pop("machine"), "Field required"),
    "a date that is none": (lambda value: value.update(created="yesterday"), "match pattern"),
    "negative bytes": (in_cell(lambda cell: cell["stored"].update(bytes=-1)), "greater than or equal to 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_result_that_breaks_the_schema_is_refused_with_what_was_expected(tmp_path: Path, name: str) -> None:
    change, expected = BROKEN[name]
    value = document(["vanilla", "ours"], steps=3)
    parsed(value)
    change(value)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError) as caught:
        load(path)
    assert expected in caught.value.expected
    assert str(path) in caught.value.message


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        save(comparison(), tmp_path / "missing" / "result.json")
