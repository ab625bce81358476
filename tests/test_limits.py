"""What a bundle has no room for is refused where the user hands it in, as bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edge_cmcl import limits
from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.data.import_spec import parse_sensor
from edge_cmcl.data.importing import import_recordings
from edge_cmcl.data.pairs_format import FORMAT, VERSION, TensorLayout, check_layout
from edge_cmcl.errors import DataError, ProjectError, UsageError
from edge_cmcl.project import load_project

PROJECT = """\
name = "bench"
[modality.acc]
{window}
rate_hz = 50.0
window_s = {window_s}
unit = "{unit}"
[modality.gyro]
channels = 3
rate_hz = 50.0
window_s = 2.0
[[pair]]
modalities = ["acc", "gyro"]
train = ["train.safetensors"]
"""


def check_pairs(shape: tuple[int, ...] = (20, 16, 3), unit: str = "g", labels: list[str] | None = None) -> None:
    described = {"labels": json.dumps(labels or []), "units": json.dumps({"acc": unit})}
    check_layout("pairs", {"acc": TensorLayout(shape, "F32")}, {"format": FORMAT, "version": VERSION, **described})


BEYOND: dict[str, dict[str, Any]] = {
    "70,000 channels": {"shape": (20, 16, 70_000)},
    "frame side of 9000": {"shape": (20, 16, 9000, 4)},
    "window of 64 MiB and more": {"shape": (20, (1 << 24) // 64 + 1, 64)},
    "unit of 65 characters": {"unit": "g" * 65},
    "unit that is no text": {"unit": "\udcff"},
    "label of 201 characters": {"labels": ["walk", "x" * 201]},
    "label that is no text": {"labels": ["walk", "\ud800"]},
    "4097 labels": {"labels": [str(n) for n in range(4097)]},
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_pairs_file_beyond_the_limits_is_bad_data(what: str) -> None:
    with pytest.raises(DataError) as caught:
        check_pairs(**BEYOND[what])
    assert caught.value.exit_code == 3
    assert "at most" in caught.value.expected
    caught.value.expected.encode()


def test_a_pairs_file_at_the_limits_is_taken() -> None:
    check_pairs((20, 16, limits.MAX_CHANNELS), "g" * 64, [f"{n:200d}" for n in range(4096)])
    check_pairs((20, 16, limits.MAX_FRAME_SIDE, 4))
    check_pairs((20, (1 << 24) // 64, 64))


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "g" * 65},
        {"window": "frame = [9000, 4]"},
        {"window_s": "1e20"},
        {"window_s": "1e308"},
        {"window": "channels = 4000", "window_s": "100.0"},
    ],
    ids=str,
)
def test_a_project_beyond_the_limits_is_a_project_error(tmp_path: Path, change: dict[str, str]) -> None:
    text = PROJECT.format(**{"window": "channels = 3", "window_s": "2.0", "unit": "g", **change})
    (tmp_path / "edge-cmcl.toml").write_text(text)
    with pytest.raises(ProjectError) as caught:
        load_project(tmp_path)
    assert caught.value.exit_code == 3


def test_a_project_at_the_limits_is_taken(tmp_path: Path) -> None:
    text = PROJECT.format(window="frame = [8192, 4]", window_s="2.0", unit="g" * 64)
    (tmp_path / "edge-cmcl.toml").write_text(text)
    assert load_project(tmp_path).modality["acc"].frame == (8192, 4)


def test_a_bundle_takes_what_the_limits_allow_and_no_more() -> None:
    fields = {
        "encoder": "conv",
        "encoder_blob": "sha256:" + "0" * 64,
        "width": 12,
        "adapter_blob": "sha256:" + "1" * 64,
    }
    most = {"channels": limits.MAX_CHANNELS, "unit": "g" * limits.MAX_UNIT_LENGTH}
    ModalityRecord.model_validate({"kind": "series", **fields, **most})
    for more in ({"channels": limits.MAX_CHANNELS + 1}, {"unit": "g" * (limits.MAX_UNIT_LENGTH + 1)}):
        with pytest.raises(ValidationError):
            ModalityRecord.model_validate({"kind": "series", **fields, **most, **more})


@pytest.mark.parametrize("window_s", [1e20, 1e308])
def test_an_import_with_an_endless_window_is_a_usage_error(tmp_path: Path, window_s: float) -> None:
    np.savetxt(tmp_path / "run.csv", np.zeros((9, 2)), delimiter=",", header="t,x", comments="")
    sensor = parse_sensor(f"acc={tmp_path}/run.csv:t:x@50")
    with pytest.raises(UsageError, match="too long"):
        import_recordings(tmp_path / "out.safetensors", [sensor], window_s=window_s)
