"""Carries a micro model down to a firmware, over any cut, reset, loss and repetition (SPEC.md, section "ADAPTER")."""

from __future__ import annotations

import hashlib
import time
import zlib
from dataclasses import dataclass

from edge_cmcl.errors import DataError, DigestError, ModelError, PlatformError, RefusedError, RemoteError
from edge_cmcl.progress import Progress, silent
from firmware_bridge import messages
from firmware_bridge.host_clock import HostClock
from firmware_bridge.links import KeptLink, LinkEnd
from firmware_bridge.messages import CHUNK_OVERHEAD, ID_BYTES, Answer, State
from firmware_bridge.source import Source

ANSWER_S = 0.5
"""How long an answer is waited for before the question is put again."""
PATIENCE_S = 60.0
"""How long nothing may move before it is given up; what the firmware has, it keeps."""
MAX_BAD_CRC = 3


@dataclass(frozen=True)
class Sent:
    """What it took.

    Attributes:
        id: of the model, 16 hexadecimal digits.
        bytes: of the model.
        sent_bytes: of it, with all repetitions.
        seconds: that it took.
        reconnects: how often the link came back.
        already: whether the firmware had it in use before.
    """

    id: str
    bytes: int
    sent_bytes: int
    seconds: float
    reconnects: int
    already: bool


class Sender:
    """Sends `blob` over `link`, once.

    Args:
        link: to the firmware.
        blob: the micro model.
        progress: told how many bytes the firmware has.
        patience_s: how long nothing may move before it is given up.
    """

    def __init__(
        self, link: KeptLink, blob: bytes, progress: Progress = silent, patience_s: float = PATIENCE_S
    ) -> None:
        self._link, self._blob, self._progress = link, blob, progress
        self._id = hashlib.sha256(blob).digest()[:ID_BYTES]
        self._source = Source(link.address)
        self._clock = HostClock()
        self._patience_s = patience_s
        self._sent_bytes = 0

    def send(self) -> Sent:
        """Send it, and return when the firmware uses it.

        Raises:
            DataError: there is nothing to send.
            RemoteError: the firmware does not answer, or nothing moves; to send it again goes on where it was.
            RefusedError: the firmware has no room for it.
            ModelError: the firmware cannot run it.
            PlatformError: its flash failed.
            DigestError: it arrived damaged, every time.
        """
        if not self._blob:
            raise DataError("an empty model cannot be sent", expected="a micro model", got="0 bytes")
        began_s = time.monotonic()
        self._link.write(self._source.ask_for_hello())
        answer = self._ask(self._begin())
        already = self._is_used(answer)
        bad_crc = 0
        while not self._is_used(answer):
            if answer.state == State.BAD_CRC and bad_crc < MAX_BAD_CRC:
                bad_crc += 1
                answer = self._ask(self._begin())
            self._check(answer)
            answer = self._step(answer)
            self._progress("send", min(answer.next, len(self._blob)), len(self._blob))
        seconds = round(time.monotonic() - began_s, 3)
        return Sent(self._id.hex(), len(self._blob), self._sent_bytes, seconds, self._link.reconnects, already)

    def _begin(self) -> bytes:
        return messages.begin(self._id, len(self._blob), zlib.crc32(self._blob))

    def _is_used(self, answer: Answer) -> bool:
        return answer.state == State.ACTIVE and answer.id == self._id

    def _step(self, answer: Answer) -> Answer:
        """Send what the firmware wants next."""
        if answer.state == State.BUSY:
            time.sleep(ANSWER_S)
            return self._ask(self._begin())
        if answer.state != State.RECEIVING or answer.id != self._id or answer.next > len(self._blob):
            return self._ask(self._begin())  # it was reset, or has been sent another one meanwhile
        if answer.next == len(self._blob):
            return self._ask(messages.commit(self._id))
        size = max(1, self._source.max_payload - CHUNK_OVERHEAD)
        data = self._blob[answer.next : answer.next + size]
        self._sent_bytes += len(data)
        return self._ask(messages.chunk(self._id, answer.next, data))

    def _ask(self, request: bytes) -> Answer:
        """Return the answer to a request; while there is none, ask what the firmware has.

        A lost answer and a lost request look the same from here, so what is put again is BEGIN: its answer says where
        to go on, and no chunk goes twice that has arrived.
        """
        until_s = time.monotonic() + self._patience_s
        while time.monotonic() < until_s:
            if self._link.write(self._source.ask(request)):
                answer = self._newest_answer()
                if answer is not None:
                    return answer
            else:
                self._read(ANSWER_S)
            request = self._begin()
        raise RemoteError(
            f"{self._link.address} does not answer",
            expected=f"an answer within {self._patience_s:g} s",
            got=self._link.away or f"{self._source.decoder.bytes} bytes, none of them an answer",
            hint="send it again: the firmware goes on where it was",
        )

    def _newest_answer(self) -> Answer | None:
        """Return the last answer that has come, waiting for one for a while; older ones are overtaken by it."""
        newest: Answer | None = None
        until_s = time.monotonic() + ANSWER_S
        while newest is None and time.monotonic() < until_s:
            for answer in self._read(0.05):
                newest = answer
        return newest

    def _read(self, timeout_s: float) -> list[Answer]:
        try:
            data = self._link.read(timeout_s)
        except LinkEnd:
            raise RemoteError(f"{self._link.address} cannot be sent to", expected="a firmware", got="a file") from None
        return [told for told in self._source.take(self._clock.now_ns(), data) if isinstance(told, Answer)]

    def _check(self, answer: Answer) -> None:
        """Raise what the firmware says is wrong with the model."""
        if answer.id not in (self._id, bytes(ID_BYTES)):
            return
        size = f"{len(self._blob)} bytes"
        if answer.state == State.TOO_LARGE:
            raise RefusedError(
                "the firmware has no room for this model", expected="one that fits its slots", got=size,
                hint="make a narrower one: edge-cmcl blob --width, or --precision int8",
            )  # fmt: skip
        if answer.state == State.BAD_MODEL:
            raise ModelError(
                "the firmware cannot run this model", expected="a micro model of its own format version", got=size,
                hint="flash a firmware with this version of the C library",
            )  # fmt: skip
        if answer.state == State.FLASH:
            raise PlatformError(
                "the firmware could not write its flash", expected="flash that takes it", got="an error"
            )
        if answer.state == State.BAD_CRC:
            raise DigestError(
                "the model arrives damaged", expected=f"CRC-32 {zlib.crc32(self._blob):08x}", got="another"
            )
