from __future__ import annotations

from pathlib import Path

import pytest

from edge_cmcl.host.graph_cache import cache_folder, kept


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def counted(calls: list[int]) -> bytes:
    calls.append(1)
    return b"graph"


def test_a_graph_is_made_once_and_read_by_the_next_process() -> None:
    calls: list[int] = []

    def make() -> bytes:
        return counted(calls)

    first, next_process = kept(make), kept(make)
    assert [first(), first(), next_process()] == [b"graph"] * 3
    assert len(calls) == 1
    assert first.__wrapped__() == b"graph"  # type: ignore[attr-defined]
    assert len(calls) == 2


def test_a_damaged_file_is_not_used_and_is_mended() -> None:
    calls: list[int] = []

    def make() -> bytes:
        return counted(calls)

    kept(make)()
    (path,) = cache_folder().iterdir()
    path.write_bytes(b"grapf")
    assert kept(make)() == b"graph"
    assert len(calls) == 2
    assert path.read_bytes() == b"graph"


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    def make() -> bytes:
        return b"graph"

    assert kept(make)() == b"graph"
