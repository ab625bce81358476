from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.continual.origin import Origin
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.device.calibration import united_calibration
from edge_cmcl.device.clipping import (
    MAX_CLIPPED_OUTPUTS,
    clipped_of,
    clipped_outputs_of,
    inverse_energy_of,
    lasting,
    lasting_entry,
)
from edge_cmcl.device.features import Statistics

WIDTH = 6
PLAIN = Statistics(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32))
ORIGIN = Origin("o", 0, "d", "gyro", ("acc",), "", Sketch(np.zeros((1, WIDTH), np.float32), 2, 1.0, 0.0), "")


def record(entries: object) -> ModalityRecord:
    digest = f"sha256:{0:064x}"
    return ModalityRecord(
        kind="series", channels=1, encoder="universal", encoder_blob=digest, width=WIDTH, adapter_blob=digest,
        calibration={"drift": entries},  # type: ignore[dict-item]
    )  # fmt: skip


def test_an_entry_says_how_much_was_clipped_where_and_how_long_scores_were() -> None:
    raw = np.zeros((2, WIDTH), np.float32)
    raw[0, :2], raw[1, 3] = (3.0, 4.0), -10.0
    entry = lasting_entry(raw, PLAIN)
    assert entry["clipped"] == pytest.approx(0.5 * (2 / 8) ** 2)
    assert entry["clipped_outputs"] == [3]
    assert entry["inverse_energy"] == pytest.approx(0.5 * (1 / 25 + 1 / 64))
    known = record({"o": entry})
    assert clipped_of(known, ORIGIN) == entry["clipped"]
    assert inverse_energy_of(known, ORIGIN) == entry["inverse_energy"]
    assert np.flatnonzero(clipped_outputs_of(known, ORIGIN)).tolist() == [3]


def test_a_window_without_scores_has_no_length() -> None:
    assert lasting_entry(np.zeros((2, WIDTH), np.float32), PLAIN)["inverse_energy"] == 0.0


def test_an_archive_is_as_bad_as_its_worst_member() -> None:
    entries = {
        "a": {"clipped": 0.1, "clipped_outputs": [0, 2], "inverse_energy": 0.2},
        "b": {"clipped": 0.3, "clipped_outputs": [5], "inverse_energy": 0.1},
    }
    archive = replace(ORIGIN, absorbed=(("a", 0), ("b", 0)))
    assert (clipped_of(record(entries), archive), inverse_energy_of(record(entries), archive)) == (0.3, 0.2)
    assert np.flatnonzero(clipped_outputs_of(record(entries), archive)).tolist() == [0, 2, 5]


@pytest.mark.parametrize(
    "entries", [{}, {"o": {}}, {"o": {"clipped": "much", "clipped_outputs": [WIDTH]}}, {"o": {"clipped": -1.0}}, "x"]
)
def test_what_is_not_known_is_none_and_may_be_anywhere(entries: object) -> None:
    assert clipped_of(record(entries), ORIGIN) is None
    assert inverse_energy_of(record(entries), ORIGIN) is None
    assert clipped_outputs_of(record(entries), ORIGIN).all()


def test_very_many_outputs_are_not_listed() -> None:
    width = MAX_CLIPPED_OUTPUTS + 1
    many = Statistics(np.zeros(width, np.float32), np.ones(width, np.float32))
    assert "clipped_outputs" not in lasting_entry(np.full((1, width), 9.0, np.float32), many)


def test_entries_of_very_many_devices_fit_into_a_record_without_their_lists() -> None:
    def united(devices: int) -> dict[str, dict[str, object]]:
        entry = {"clipped": 0.1, "clipped_outputs": list(range(1000, 1900)), "inverse_energy": 0.2}
        sources = [(replace(ORIGIN, id=f"o{place}"), record({f"o{place}": entry})) for place in range(devices)]
        return united_calibration(sources, moved=True)

    assert set(united(3)["o2"]) == {"clipped", "clipped_outputs", "inverse_energy"}
    assert set(united(100)["o99"]) == {"clipped", "inverse_energy"}
    assert len(united(100)) == 100


def test_thresholds_do_not_last() -> None:
    entry = {"clipped": 0.1, "clipped_outputs": [], "inverse_energy": 0.2, "thresholds": [[1, 0.5]], "shift": 0.1}
    assert lasting(entry) == {"clipped": 0.1, "clipped_outputs": [], "inverse_energy": 0.2}
