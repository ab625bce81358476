from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_cmcl.cli.console import plain, progress, table
from edge_cmcl.cli.options import default_store


def test_numpy_paths_tuples_and_numbers_without_json_become_plain() -> None:
    value = {
        "array": np.array([[1.5, np.nan]], np.float32),
        "number": np.float64(2.0),
        "flag": np.bool_(True),
        "path": Path("a/b"),
        "tuple": (1, float("inf"), None, "x"),
        3: {},
    }
    expected = {
        "array": [[1.5, None]],
        "number": 2.0,
        "flag": True,
        "path": "a/b",
        "tuple": [1, None, None, "x"],
        "3": {},
    }
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def test_a_table_aligns_text_left_and_numbers_right() -> None:
    shown = table(["pair", "R@10"], [["acc-gyro", 46.43219], ["a", 5], ["none", None]])
    assert shown.splitlines() == [
        "pair       R@10",
        "--------  -----",
        "acc-gyro  46.43",
        "a             5",
        "none          -",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["a", "bc"], []).splitlines() == ["a  bc", "-  --"]


def test_progress_off_a_terminal_is_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as told:
        for stage, total in [("encode", 3), ("train", 2), ("encode", 3)]:
            for done in range(1, total + 1):
                told(stage, done, total)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split(" in ")[0] for line in shown.err.splitlines()] == ["encode: 3", "train: 2", "encode: 3"]


def test_progress_on_a_terminal_draws_a_bar_on_stderr_only() -> None:
    code = "from edge_cmcl.cli.console import progress\nwith progress() as p:\n  p('encode', 1, 2); p('encode', 2, 2)"
    script = ["script", "-qec", f'{sys.executable} -c "{code}" >/dev/null', "/dev/null"]
    try:
        done = subprocess.run(script, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `script` here to make a terminal")
    assert done.returncode == 0
    assert "encode" in done.stdout
    assert "2/2" in done.stdout


def test_with_json_what_libraries_print_stays_off_stdout() -> None:
    code = (
        "import os; from edge_cmcl.cli.console import claim_stdout, show; claim_stdout();"
        "print('from Python'); os.write(1, b'from C'); show({'a': 1}, '', json=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    assert "from Python" in done.stderr
    assert "from C" in done.stderr


@pytest.mark.parametrize(
    ("data_home", "expected"),
    [
        ("/data", "/data/edge-cmcl/store"),
        ("", "/me/.local/share/edge-cmcl/store"),
        ("relative", "/me/.local/share/edge-cmcl/store"),
    ],
)
def test_the_default_store_is_in_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, data_home: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.setenv("XDG_DATA_HOME", data_home)
    assert default_store() == Path(expected)
