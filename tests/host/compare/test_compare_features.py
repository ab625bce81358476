from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from compare_samples import write_stream

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.data.simulator import write_simulated
from edge_cmcl.errors import DataError, ProjectError
from edge_cmcl.host.compare.features import load_data
from edge_cmcl.host.compare.stream import load_stream

ONE = [("vibration", "current")]


def test_features_are_unit_and_shared_modalities_keep_the_statistics_of_their_first_step(folder: Path) -> None:
    write_simulated(folder / "later.safetensors", 30, ("vibration", "pressure"), seed=5)
    text = write_stream(folder, [("vibration", "current"), ("vibration", "pressure")]).read_text()
    first, second = text.split("[[step]]")[1:]
    stream = folder / "two.toml"
    second = second.replace("train.safetensors", "later.safetensors")
    stream.write_text(text.split("[[step]]")[0] + "[[step]]" + first + "[[step]]" + second)
    data = load_data(load_stream(stream), folder / "cache")
    again = load_data(load_stream(write_stream(folder, [("vibration", "pressure")])), folder / "cache")
    for step in data.steps:
        for side in step.features:
            np.testing.assert_allclose(np.linalg.norm(side.numpy(), axis=1), 1.0, atol=1e-5)
    # The test part is the same file; its features follow the first step's statistics in both streams.
    np.testing.assert_array_equal(data.tests[0].a, again.tests[0].a)
    np.testing.assert_array_equal(data.tests[1].a, data.tests[0].a)
    assert len(data.steps[1]) == 30


def test_features_are_those_that_the_device_computes(folder: Path) -> None:
    from edge_cmcl.device.model import Model
    from edge_cmcl.device.store import CURRENT
    from edge_cmcl.host.strategies import Settings
    from edge_cmcl.host.strategies.ours import Ours

    data = load_data(load_stream(write_stream(folder, ONE)), folder / "cache")
    with closing(Ours(Settings(dimensions=16))) as ours, open_pairs(folder / "test.safetensors") as pairs:
        list(ours.learn_stream(data.steps))
        assert ours._store is not None
        model = Model(ours._store.load(CURRENT))
        np.testing.assert_allclose(model.features("vibration", pairs.read("vibration")), data.tests[0].a, atol=1e-5)


def test_raw_features_are_encoded_once(folder: Path) -> None:
    stream = load_stream(write_stream(folder, ONE))
    told: list[str] = []
    load_data(stream, folder / "cache", lambda stage, done, total: told.append(stage))
    assert len(set(told)) == 4  # two sensors, training and test file
    before = told.copy()
    load_data(stream, folder / "cache", lambda stage, done, total: told.append(stage))
    assert told == before


def test_validation_is_cut_out_of_the_training_part_by_group(folder: Path) -> None:
    data = load_data(load_stream(write_stream(folder, [*ONE, ("vibration", "text")])), folder / "cache")
    halves = data.for_search()
    for whole, step, test in zip(data.steps, halves.steps, halves.tests, strict=True):
        assert 0 < len(test.a) < len(whole)
        assert len(step) + len(test.a) == len(whole)
        assert step.groups is not None
        known = {row.tobytes() for row in step.features[0].numpy()}
        assert not any(row.tobytes() in known for row in test.a)
    labels = halves.tests[1].labels
    assert labels is not None
    assert labels.max() < len(halves.tests[1].b)


def test_ten_training_pairs_are_too_few(folder: Path) -> None:
    write_simulated(folder / "few.safetensors", 10, ("vibration", "current"), seed=3)
    with pytest.raises(DataError, match="too few training pairs") as refused:
        load_data(load_stream(write_stream(folder, ONE, train="few.safetensors")), folder / "cache")
    assert refused.value.got == "10"


def test_a_broken_file_is_found_before_anything_is_encoded(folder: Path) -> None:
    whole = (folder / "test.safetensors").read_bytes()
    (folder / "test.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        load_data(load_stream(write_stream(folder, ONE)), folder / "cache")
    assert not list((folder / "cache").glob("*")) if (folder / "cache").exists() else True


def test_other_channels_than_in_the_first_step_are_refused(folder: Path) -> None:
    random = np.random.default_rng(0)
    windows = {"vibration": random.standard_normal((40, 64, 2), dtype=np.float32)}
    windows["current"] = random.standard_normal((40, 64, 1), dtype=np.float32)
    write_pairs(folder / "narrow.safetensors", windows)
    with pytest.raises(DataError, match="another shape") as refused:
        load_data(load_stream(write_stream(folder, ONE, test="narrow.safetensors")), folder / "cache")
    assert "(2,)" in str(refused.value.got)


def test_labels_that_are_not_taught_are_refused(folder: Path) -> None:
    with open_pairs(folder / "test.safetensors") as pairs:
        names = [f"new {name}" for name in pairs.label_names]
        windows = {"vibration": pairs.read("vibration")}
        write_pairs(folder / "other.safetensors", windows, labels=pairs.labels, label_names=names)
    stream = write_stream(folder, [("vibration", "text")], test="other.safetensors")
    with pytest.raises(DataError, match="labels that"):
        load_data(load_stream(stream), folder / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "step-0"', 'name = "a b"'), "not valid"),
        (('"current"', '"vibration"'), "not valid"),
        (("train =", "trian ="), "unknown key"),
        (('test = "test.safetensors"', 'test = "nowhere.safetensors"'), "missing file"),
        (("width = 48", "width = 50"), "not valid"),
        (("[[step]]", "[[stap]]"), "unknown key|missing"),
    ],
)
def test_a_wrong_stream_file_is_explained(folder: Path, change: tuple[str, str], message: str) -> None:
    path = write_stream(folder, ONE)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ProjectError, match=message):
        load_stream(path)


def test_steps_of_one_name_are_refused(folder: Path) -> None:
    path = write_stream(folder, [*ONE, ("vibration", "pressure")])
    path.write_text(path.read_text().replace("step-1", "step-0"))
    with pytest.raises(ProjectError, match="not valid") as refused:
        load_stream(path)
    assert "step-0" in str(refused.value.expected)
