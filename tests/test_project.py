from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_cmcl.data.pairs_format import MIN_SAMPLES as PAIRS_MIN_SAMPLES
from edge_cmcl.data.pairs_format import check_name
from edge_cmcl.errors import DataError, ProjectError, StorageError
from edge_cmcl.project import MIN_SAMPLES, Project, load_project, write_project

PROJECT = """\
name = "bench"

[modality.acc]
channels = 3
rate_hz = 50
window_s = 2.56

[modality.depth]
frame = [60, 80]
rate_hz = 15
window_s = 4.0
encoder = "onnx:models/depth.onnx"

[[pair]]
modalities = ["acc", "depth"]
train = ["train.safetensors"]

[[pair]]
modalities = ["acc", "text"]
train = ["train.safetensors", "more.safetensors"]
tensors = ["acceleration", "text"]
"""


def load(folder: Path, text: str) -> Project:
    path = folder / "edge-cmcl.toml"
    path.write_text(text, encoding="utf-8")
    return load_project(path)


def test_a_project_gives_what_the_file_says_and_defaults_for_the_rest(tmp_path: Path) -> None:
    project = load(tmp_path, PROJECT)
    assert (project.name, project.embedding_dim, project.width) == ("bench", 256, 1800)
    assert list(project.modality) == ["acc", "depth"]
    assert project.modality["acc"].window_shape == (128, 3)
    assert project.modality["depth"].window_shape == (60, 60, 80)
    assert (project.modality["acc"].encoder, project.modality["acc"].scale) == ("universal", 1.0)
    assert [pair.name for pair in project.pair] == ["acc-depth", "acc-text"]
    assert [pair.tensor_names for pair in project.pair] == [("acc", "depth"), ("acceleration", "text")]
    assert project.train.precision == "auto"


def test_a_folder_stands_for_the_project_file_in_it(tmp_path: Path) -> None:
    load(tmp_path, PROJECT)
    assert load_project(tmp_path).name == "bench"


def test_paths_are_relative_to_the_file_and_missing_ones_are_told_on_request(tmp_path: Path) -> None:
    project = load(tmp_path, PROJECT)
    assert project.encoder_path("depth") == tmp_path / "models" / "depth.onnx"
    assert project.encoder_path("acc") is None
    expected = [tmp_path / "models" / "depth.onnx", tmp_path / "train.safetensors", tmp_path / "more.safetensors"]
    assert project.missing_files() == expected
    with pytest.raises(ProjectError, match="names 3 missing file"):
        project.check_files()
    for path in expected:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert project.missing_files() == []
    project.check_files()


@pytest.mark.parametrize(
    ("right", "wrong", "line", "nearest"),
    [
        ('name = "bench"', 'nmae = "bench"', 1, "name"),
        ("rate_hz = 50", "rate_hs = 50", 5, "rate_hz"),
        ("frame = [60, 80]\nrate_hz = 15", "frame = [60, 80]\nrate_hz = 15\nscales = 2.0", 11, "scale"),
        ('tensors = ["acceleration"', 'tensor = ["acceleration"', 21, "tensors"),
        (
            '[[pair]]\nmodalities = ["acc", "text"]',
            '[train]\nepoch = 3\n[[pair]]\nmodalities = ["acc", "text"]',
            19,
            "epochs",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_known_one(
    tmp_path: Path, right: str, wrong: str, line: int, nearest: str
) -> None:
    assert right in PROJECT
    with pytest.raises(ProjectError) as caught:
        load(tmp_path, PROJECT.replace(right, wrong))
    assert f"line {line}: unknown key" in caught.value.message
    assert caught.value.hint == f"did you mean {nearest!r}?"
    assert nearest in caught.value.expected


@pytest.mark.parametrize(
    ("right", "wrong", "message", "expected", "got"),
    [
        ("channels = 3", 'channels = "3"', "line 4: modality.acc.channels", "integer", "'3' (string)"),
        ("channels = 3", "channels = true", "line 4: modality.acc.channels", "integer", "True (boolean)"),
        ("channels = 3", "channels = 0", "line 4: modality.acc.channels", "greater than or equal to 1", "0 (integer)"),
        ("channels = 3", "frame = [3]", "line 4: modality.acc.frame", "", ""),
        ("channels = 3\n", "", "line 3: modality.acc is not valid", "either channels", ""),
        ("rate_hz = 50", "rate_hz = nan", "line 5: modality.acc.rate_hz", "finite", "nan (float)"),
        ("window_s = 2.56", "window_s = 0.1", "modality.acc is not valid", "at least 16 samples", ""),
        ("window_s = 2.56\n", "", "modality.acc.window_s is missing", "window_s", ""),
        ('"onnx:models/depth.onnx"', '"resnet"', "line 12: modality.depth.encoder", '"onnx:PATH"', "'resnet' (string)"),
        ('"onnx:models/depth.onnx"', '"onnx: "', "line 12: modality.depth.encoder", '"onnx:PATH"', "'onnx: ' (string)"),
        ('train = ["train.safetensors"]', "train = []", "line 16: pair[0].train", "at least 1 item", "[] (array)"),
        ('["acc", "depth"]', '["acc"]', "line 15: pair[0].modalities", "", ""),
        ('["acc", "depth"]', '["acc", "text", "depth"]', "line 15: pair[0].modalities", "", ""),
        ('["acc", "depth"]', '["acc", "gyro"]', "pair 1 (acc-gyro) names a modality", "acc, depth", "gyro"),
        ('["acc", "depth"]', '["text", "acc"]', "pair 1 (text-acc) names a modality", "one of acc, depth", "text"),
        (
            '["acc", "depth"]',
            '["acc", "acc"]',
            "pair 1 (acc-acc) joins a modality with itself",
            "two different",
            "acc-acc",
        ),
        ('["acc", "depth"]', '["acc", "text"]', "no pair trains depth", "'depth'", ""),
        ("[modality.acc]", "[modality.label]", "modality is not valid", "other than", ""),
        ("[modality.acc]", "[modality.Acc]", "modality is not valid", "lower-case", ""),
        ('name = "bench"', 'name = "../up"', "line 1: name", "pattern", "'../up' (string)"),
        ('name = "bench"', 'name = "bench"\nwidth = 1000', "line 2: width", "multiple of 12", "1000 (integer)"),
        ('name = "bench"', 'name = "bench', "is not a TOML file", "TOML 1.0", "line 1"),
    ],
)
def test_a_wrong_value_says_what_was_expected_and_what_came(
    tmp_path: Path, right: str, wrong: str, message: str, expected: str, got: str
) -> None:
    assert right in PROJECT
    with pytest.raises(ProjectError) as caught:
        load(tmp_path, PROJECT.replace(right, wrong, 1))
    assert message in caught.value.message
    assert expected in caught.value.expected
    assert got in caught.value.got
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * ((1 << 20) + 1)], ids=["not text", "too large"])
def test_what_is_no_project_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edge-cmcl.toml"
    path.write_bytes(content)
    with pytest.raises(ProjectError, match=r"edge-cmcl\.toml is"):
        load_project(path)


HOSTILE = {
    "45 s of a dotted key": ('name = "bench"', ".".join(["a"] * 30_000) + " = 1"),
    "20 s of a line break in a path": ('"universal"', '"onnx:' + "a" * 60_000 + '\\n"'),
    "absurd nesting": ('name = "bench"', "name = " + "[" * 30_000),
    "nested tables": ('name = "bench"', "name = " + "{a = " * 30_000),
    "an integer of 5000 digits": ('name = "bench"', "name = " + "9" * 5_000),
    "a null character in a path": ('"more.safetensors"', r'"\u0000"'),
    "a key of 60 kB": ('name = "bench"', "a" * 60_000 + " = 1"),
    "a sensor's name of 60 kB": ("[modality.acc]", "[modality." + "a" * 60_000 + "]"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_project_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """Found by tests/fuzz: each was an internal error, or took the seconds that its name says, for 64 kB."""
    right, wrong = HOSTILE[kind]
    text = PROJECT.replace("onnx:models/depth.onnx", "universal")
    assert right in text
    start = time.process_time()
    with pytest.raises(ProjectError) as caught:
        load(tmp_path, text.replace(right, wrong, 1))
    assert time.process_time() - start < 1
    assert len(str(caught.value)) < 2000


def test_a_path_that_no_file_system_takes_is_a_missing_file(tmp_path: Path) -> None:
    project = load(tmp_path, PROJECT.replace("more.safetensors", "a" * 300))
    assert tmp_path / ("a" * 300) in project.missing_files()


def test_a_missing_project_file_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="edge-cmcl init"):
        load_project(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "name", ["acc", "a", "a_1", "Acc", "1a", "", "a" * 32, "a" * 33, "text", "label", "group", "valid"]
)
def test_a_project_and_a_pairs_file_take_the_same_modality_names(tmp_path: Path, name: str) -> None:
    def in_pairs_file() -> bool:
        try:
            check_name("here", name)
        except DataError:
            return False
        return True

    def in_project() -> bool:
        text = PROJECT.replace("[modality.acc]", f'[modality."{name}"]').replace('"acc"', f'"{name}"')
        try:
            load(tmp_path, text)
        except ProjectError:
            return False
        return True

    assert in_project() == in_pairs_file()
    assert MIN_SAMPLES == PAIRS_MIN_SAMPLES


def test_the_template_loads_and_shows_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "new" / "edge-cmcl.toml"
    write_project(path)
    project = load_project(path)
    assert project.train == Project.model_fields["train"].default
    assert (project.embedding_dim, project.width) == (256, 1800)
    written = path.read_text(encoding="utf-8")
    for table in (Project, type(project.train)):
        for key in table.model_fields:
            assert key in written


def test_the_template_replaces_a_file_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "edge-cmcl.toml"
    path.write_text("mine")
    with pytest.raises(ProjectError, match="--force"):
        write_project(path)
    assert path.read_text() == "mine"
    write_project(path, force=True)
    assert load_project(path).name == "my-machine"


def test_the_template_cannot_be_written_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_project(tmp_path / "file" / "edge-cmcl.toml")


@pytest.mark.parametrize("again", ["train.safetensors", "./data/../train.safetensors", "linked.safetensors"])
def test_a_file_that_is_trained_on_cannot_be_validated_on(tmp_path: Path, again: str) -> None:
    (tmp_path / "train.safetensors").touch()
    (tmp_path / "linked.safetensors").symlink_to("train.safetensors")
    added = PROJECT.replace('train = ["train.safetensors"]', f'train = ["train.safetensors"]\nvalidation = ["{again}"]')
    with pytest.raises(ProjectError, match="validated on by pair acc-depth and trained on by pair acc-") as refused:
        load(tmp_path, added)
    assert refused.value.got == again
    load(tmp_path, added.replace(f'validation = ["{again}"', 'validation = ["other.safetensors"'))
