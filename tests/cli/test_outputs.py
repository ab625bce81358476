"""What a command may write over: never what it reads, and only files of its own kind, unless --force says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cmcl import tensors
from edge_cmcl.bundle.layout import LAYOUT_FILE
from edge_cmcl.data import open_pairs, write_pairs

CSV = "t,x\n" + "".join(f"{i / 50},{i % 7}\n" for i in range(500))
IMPORT = ("data", "import", "--sensor", "acc=run.csv:t:x@50", "--window", "2", "--label", "events.csv:t:x")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    (tmp_path / "events.csv").write_text("t,x\n0,on\n5,off\n")
    (tmp_path / "run.csv").write_text(CSV)
    return tmp_path / "run.csv"


@pytest.mark.parametrize("out", ["run.csv", "./tmp/../run.csv", "symlink", "hardlink", "events.csv"])
def test_import_never_writes_over_its_input(run_cli: Any, recording: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "symlink").symlink_to(recording)
    (tmp_path / "hardlink").hardlink_to(recording)
    events = (tmp_path / "events.csv").read_text()
    for force in ((), ("--force",)):
        failed = run_cli(*IMPORT, "--out", out, *force, "--json")
        assert (failed.code, failed.json["error"]["type"]) == (2, "UsageError")
        assert "is also what is read" in failed.json["error"]["message"]
    assert (recording.read_text(), (tmp_path / "events.csv").read_text()) == (CSV, events)
    assert (tmp_path / "symlink").is_symlink()


def test_import_replaces_an_older_pairs_file_and_others_by_force_only(
    run_cli: Any, recording: Path, tmp_path: Path
) -> None:
    write_pairs(tmp_path / "pairs.safetensors", {"old": np.ones((1, 16, 1), np.float32)})
    assert run_cli(*IMPORT, "--out", "pairs.safetensors").code == 0
    with open_pairs(tmp_path / "pairs.safetensors") as pairs:
        assert pairs.modalities == ("acc",)
    (tmp_path / "thesis.docx").write_bytes(b"three years")
    tensors.write(tmp_path / "vectors.safetensors", {"x": np.ones(3)}, {"format": "edge-cmcl/embeddings"})
    for name in ("thesis.docx", "vectors.safetensors"):
        before = (tmp_path / name).read_bytes()
        failed = run_cli(*IMPORT, "--out", name, "--json")
        assert failed.code == 2
        assert "--force" in failed.json["error"]["to_do"]
        assert (tmp_path / name).read_bytes() == before
        assert run_cli(*IMPORT, "--out", name, "--force").code == 0
        with open_pairs(tmp_path / name) as pairs:
            assert pairs.modalities == ("acc",)


def test_a_folder_that_is_missing_is_told_before_the_work(run_cli: Any, recording: Path) -> None:
    recording.unlink()  # reading it would be another error
    for out, code in (("none/pairs.safetensors", 7), ("tmp", 2), ("events.csv/pairs.safetensors", 7)):
        failed = run_cli(*IMPORT, "--out", out, "--json")
        assert failed.code == code, failed.stdout
        failed = run_cli("embed", "none.safetensors", "--out", out, "--json")
        assert failed.code == code, failed.stdout


def test_embed_never_writes_over_the_recording(run_cli: Any, tmp_path: Path) -> None:
    write_pairs(tmp_path / "x.safetensors", {"acc": np.ones((1, 16, 1), np.float32)})
    write_pairs(tmp_path / "z.safetensors", {"acc": np.ones((1, 16, 1), np.float32)})
    (tmp_path / "y.safetensors").symlink_to("x.safetensors")
    before = (tmp_path / "x.safetensors").read_bytes()
    for out in ("x.safetensors", "y.safetensors"):
        for force in ((), ("--force",)):
            failed = run_cli("embed", "x.safetensors", "--out", out, *force, "--json")
            assert failed.code == 2
            assert "is also what is read" in failed.json["error"]["message"]
    failed = run_cli("embed", "x.safetensors", "--out", "z.safetensors", "--json")
    assert "not a file that this command writes" in failed.json["error"]["message"]
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_prepare_leaves_files_of_another_kind_alone(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.safetensors").write_bytes(b"weights of another project")
    failed = run_cli("data", "prepare", "utd_mhad", "--source", "none", "--out", "out", "--json")
    assert failed.code == 2
    assert "train.safetensors exists" in failed.json["error"]["message"]


def test_export_refuses_a_place_that_it_cannot_take_before_the_work(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.tar").write_bytes(b"notes")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / LAYOUT_FILE).touch()
    for out, code in (("notes.tar", 2), ("folder", 2), ("notes.tar/base.tar", 7), ("bundle", 2), ("new/base.tar", 3)):
        failed = run_cli("export", "no-run", "--out", out, "--json")
        assert failed.code == code, failed.stdout
        assert ("no-run" in failed.json["error"]["message"]) == (code == 3)
