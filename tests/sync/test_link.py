from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edge_cmcl.errors import RemoteError
from edge_cmcl.sync.link import AwayError, Link
from edge_cmcl.sync.sessions import Sessions
from edge_cmcl.sync.settings import LinkSettings
from edge_cmcl.sync.upload import MAX_CHUNK_BYTES, RECORD_BYTES, Chunks

SETTINGS = LinkSettings(patience_s=2)


def test_a_step_is_tried_again_until_it_works() -> None:
    tries: list[float] = []

    def action() -> str:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise AwayError("not yet")
        return "done"

    assert Link("there", replace(SETTINGS, patience_s=30)).step("cannot do it", action) == "done"
    assert len(tries) == 3


def test_patience_ends_with_what_was_tried_and_how_often() -> None:
    def action() -> None:
        raise AwayError("nobody answers", hint="go there")

    began = time.monotonic()
    with pytest.raises(RemoteError, match="cannot do it: there is away") as caught:
        Link("there", SETTINGS).step("cannot do it", action)
    assert time.monotonic() - began < 3
    assert caught.value.got.startswith("nobody answers (")
    assert "tries" in caught.value.got
    assert caught.value.hint == "go there"


def test_a_wait_that_the_remote_asks_for_is_kept_and_one_beyond_patience_ends_it_at_once() -> None:
    tries: list[float] = []

    def action() -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise AwayError("busy", after_s=0.3)
        if len(tries) == 2:
            raise AwayError("busy", after_s=60)

    with pytest.raises(RemoteError, match="is away"):
        Link("there", SETTINGS).step("cannot do it", action)
    assert len(tries) == 2
    assert tries[1] - tries[0] >= 0.3


def test_the_limit_in_time_ends_a_transfer_and_forbids_another_step() -> None:
    link = Link("there", replace(SETTINGS, time_limit_s=0.1))
    link.send(10)
    time.sleep(0.15)
    for action in (lambda: link.send(1), lambda: link.step("cannot do it", lambda: None)):
        with pytest.raises(RemoteError, match="the time is up") as caught:
            action()
    assert caught.value.got == "10 bytes sent, 0 received"


def test_a_cap_lets_its_rate_through() -> None:
    link = Link("there", replace(SETTINGS, bytes_per_s=100_000))
    began = time.monotonic()
    for _ in range(5):
        link.send(5_000)
        link.receive(5_000)
    assert 0.2 <= time.monotonic() - began < 1


def test_chunks_stay_one_record_on_a_slow_link_and_grow_on_a_fast_one() -> None:
    slow, fast = Chunks(), Chunks()
    for _ in range(20):
        slow.took(slow.size, 0.02 + slow.size / 125_000, 0.02)
        fast.took(fast.size, 0.02 + fast.size / 125_000_000, 0.02)
    assert slow.size == RECORD_BYTES
    assert fast.size == MAX_CHUNK_BYTES
    fast.failed()
    assert fast.size == RECORD_BYTES
    capped = Chunks(50_000)
    for _ in range(20):
        capped.took(capped.size, 0.0, 0.02)
    assert capped.size == 50_000


def test_chunks_shrink_again_when_the_link_turns_slow() -> None:
    chunks = Chunks()
    for _ in range(20):
        chunks.took(chunks.size, 0.0, 0.02)
    for _ in range(20):
        chunks.took(chunks.size, 0.02 + chunks.size / 125_000, 0.02)
    assert chunks.size < 4 * RECORD_BYTES


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"remote": "other", "key": "k", "offset": 5}', b"[" * 9000])
def test_a_session_is_remembered_by_another_process_and_a_damaged_one_is_none(tmp_path: Path, damage: bytes) -> None:
    def kept(remote: str) -> object:
        with closing(Sessions(tmp_path / "work", remote)) as sessions:
            return sessions.get("k")

    with closing(Sessions(tmp_path / "work", "there")) as sessions:
        sessions.keep("k", {"offset": 5})
    assert kept("there") == {"offset": 5}
    assert kept("elsewhere") is None
    (file,) = (tmp_path / "work").glob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(damage)
    assert kept("there") is None
    with closing(Sessions(tmp_path / "work", "there")) as sessions:
        sessions.drop("k")
    assert not file.exists()


def test_a_second_process_does_not_go_on_with_uploads_of_the_first(tmp_path: Path) -> None:
    with closing(Sessions(tmp_path / "work", "there")) as first:
        first.keep("k", {"offset": 5})
        with closing(Sessions(tmp_path / "work", "there")) as second:
            assert second.get("k") is None
            assert second.writer() != first.writer()
            second.keep("k", {"offset": 7})
            assert second.get("k") == {"offset": 7}
        assert first.get("k") == {"offset": 5}


def test_a_work_folder_that_cannot_be_written_costs_the_memory_of_uploads_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with closing(Sessions(tmp_path / "file" / "work", "there")) as sessions:
        sessions.keep("k", {"offset": 5})
        assert sessions.get("k") == {"offset": 5}


def test_a_device_has_one_name_as_a_writer(tmp_path: Path) -> None:
    names = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        with closing(Sessions(folder, "there")) as sessions:
            names.append(sessions.writer())
    assert names[0] == names[1] != names[2]
