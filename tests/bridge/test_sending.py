"""A model on its way down: over loss, resets and repetition, and what a firmware refuses."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from live_boards import board, ramp

from edge_cmcl.errors import DataError, EdgeCmclError, ModelError, RefusedError, RemoteError
from firmware_bridge import messages
from firmware_bridge.frames import FrameFault
from firmware_bridge.links import KeptLink, open_link
from firmware_bridge.messages import Answer, State
from firmware_bridge.sending import Sender, Sent
from firmware_bridge.virtual import Faults, python_board
from firmware_bridge.virtual.board import ModelSlots
from firmware_bridge.virtual.serve import SocketEndpoint

BLOB = os.urandom(20_000)


def anything(data: bytes) -> bool:
    """A board that runs whatever it is sent."""
    return True


def send(address: str, blob: bytes = BLOB, patience_s: float = 5.0) -> Sent:
    link = KeptLink(open_link(address), lambda: open_link(address))
    try:
        return Sender(link, blob, patience_s=patience_s).send()
    finally:
        link.close()


def _failure(address: str) -> EdgeCmclError | None:
    try:
        send(address, patience_s=1.0)
    except EdgeCmclError as error:
        return error
    return None


def tcp() -> SocketEndpoint:
    return SocketEndpoint.tcp("127.0.0.1", 0)


def test_a_model_arrives_and_is_used_and_is_not_sent_again() -> None:
    slots = ModelSlots(is_model=anything)
    with board(tcp(), [ramp(seconds=60)], boot=python_board(Faults(), slots)) as address:
        sent = send(address)
    assert slots.active == BLOB
    assert (sent.bytes, sent.sent_bytes, sent.already) == (len(BLOB), len(BLOB), False)
    with board(tcp(), [ramp(seconds=60)], boot=python_board(Faults(), slots)) as address:
        again = send(address)
    assert (again.sent_bytes, again.already) == (0, True)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(loss=0.1, seed=1),
        Faults(bit_errors=0.1, duplicates=0.2, seed=2),
        Faults(reboot_every_s=0.3, loss=0.02, seed=3),
    ],
    ids=["loss", "noise and repetition", "reboots"],
)
def test_a_model_arrives_over_loss_noise_and_reboots(faults: Faults) -> None:
    slots = ModelSlots(is_model=anything)
    with board(tcp(), [ramp(seconds=600)], faults, boot=python_board(faults, slots)) as address:
        sent = send(address)
    assert slots.active == BLOB
    assert sent.sent_bytes < 1.2 * len(BLOB)


def test_a_transfer_that_was_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    slots, half = ModelSlots(is_model=anything), threading.Event()
    failed: list[EdgeCmclError | None] = []
    place = tmp_path / "board"
    real = slots.answer

    def answer(payload: bytes) -> Answer:
        told = real(payload)
        if told.next > len(BLOB) // 2 and not half.is_set():
            half.set()
            raise FrameFault("the power fails")
        return told

    slots.answer = answer  # type: ignore[method-assign]
    with board(SocketEndpoint.unix(place), [ramp(seconds=60)], boot=python_board(Faults(), slots)) as address:
        thread = threading.Thread(target=lambda: failed.append(_failure(address)))
        thread.start()
        assert half.wait(10)
    thread.join()
    assert isinstance(failed[0], RemoteError)
    with board(SocketEndpoint.unix(place), [ramp(seconds=60)], boot=python_board(Faults(), slots)) as address:
        sent = send(address)
    assert slots.active == BLOB
    assert sent.sent_bytes < 0.6 * len(BLOB)


@pytest.mark.parametrize(
    ("slots", "error"),
    [
        (ModelSlots(size=1000, is_model=anything), RefusedError),
        (ModelSlots(is_model=lambda blob: False), ModelError),
    ],
)
def test_what_a_firmware_refuses_is_told_and_the_old_model_stays(slots: ModelSlots, error: type[EdgeCmclError]) -> None:
    slots.active = b"old"
    with board(tcp(), [ramp(seconds=60)], boot=python_board(Faults(), slots)) as address, pytest.raises(error):
        send(address)
    assert slots.active == b"old"


def test_a_firmware_that_does_not_answer_is_told(tmp_path: Path) -> None:
    endpoint = tcp()
    with pytest.raises(RemoteError, match="does not answer"):
        send(endpoint.address, patience_s=1.2)
    endpoint.close()
    (tmp_path / "line.bin").write_bytes(b"")
    with pytest.raises(RemoteError, match="cannot be sent to"):
        send(f"file://{tmp_path}/line.bin")
    with pytest.raises(DataError, match="empty"), board(tcp(), [ramp()]) as address:
        send(address, b"")


def test_a_damaged_model_is_not_used() -> None:
    slots = ModelSlots(is_model=anything)
    id_ = b"12345678"
    slots.answer(messages.begin(id_, 4, 12345))
    slots.answer(messages.chunk(id_, 0, b"abcd"))
    assert slots.answer(messages.commit(id_)).state == State.BAD_CRC
    assert slots.active is None


@pytest.mark.parametrize("payload", [b"", b"\0" * 4, b"\1", messages.begin(bytes(8), 1, 1)[:-1]])
def test_what_is_no_request_is_told(payload: bytes) -> None:
    with pytest.raises(FrameFault):
        ModelSlots(is_model=anything).answer(payload)
