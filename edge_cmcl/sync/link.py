"""What all steps of one remote share: patience with a link that fails, a limit in time, a cap on the bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from edge_cmcl.errors import RemoteError
from edge_cmcl.sync.settings import LinkSettings

T = TypeVar("T")

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
_BURST_S = 0.25


class AwayError(Exception):
    """A step failed in a way that may be over soon. It never leaves this room.

    Args:
        reason: what happened.
        after_s: seconds that the remote asks us to wait, 0 where it says nothing.
        hint: what the user can do about it if it lasts.
    """

    def __init__(self, reason: str, *, after_s: float = 0.0, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s
        self.hint = hint or "check the link and the address; the same command goes on where this one stopped"


class Link:
    """The link to one remote.

    Args:
        name: of the remote, for errors.
        settings: limits.

    Attributes:
        sent: bytes of payloads sent so far.
        received: bytes of payloads received so far.
        burst_bytes: what may be sent at once under the cap.
    """

    def __init__(self, name: str, settings: LinkSettings) -> None:
        self.name = name
        self.sent = 0
        self.received = 0
        self._patience_s = settings.patience_s
        self._limit_s = settings.time_limit_s
        self._began = time.monotonic()
        self._rate = settings.bytes_per_s
        self._free_at = self._began
        self.burst_bytes = float("inf") if self._rate is None else self._rate * _BURST_S

    def step(self, what: str, action: Callable[[], T]) -> T:
        """Return what `action` returns; while it raises AwayError, it is called again, later and later, with jitter.

        Args:
            what: the step, as errors call it: "cannot send a blob".
            action: may be called many times.

        Raises:
            RemoteError: patience or time ran out.
        """
        patience = tenacity.stop_before_delay(self._patience_s)
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(AwayError),
            wait=_wait,
            stop=lambda state: patience(state) or self._out_of_time(state),
            reraise=True,
        )
        self.check_time(what)
        try:
            return waiting(action)
        except AwayError as error:
            tries, seconds = waiting.statistics["attempt_number"], time.monotonic() - self._began
            raise RemoteError(
                f"{what}: {self.name} is away",
                expected="an answer",
                got=f"{error.reason} ({tries} {'try' if tries == 1 else 'tries'}, {seconds:.0f} s in all)",
                hint=error.hint,
            ) from error

    def check_time(self, what: str) -> None:
        """Raise RemoteError where the limit in time is reached."""
        if self._limit_s is not None and time.monotonic() - self._began >= self._limit_s:
            raise RemoteError(
                f"{what}: the time is up",
                expected=f"at most {self._limit_s:g} s for {self.name}",
                got=f"{self.sent} bytes sent, {self.received} received",
                hint="the same command goes on where this one stopped; allow it more time",
            )

    def send(self, count: int) -> None:
        """Wait until `count` bytes may be sent under the cap, and count them."""
        self._pass(count)
        self.sent += count

    def receive(self, count: int) -> None:
        """Wait until `count` bytes more may be received under the cap, and count them."""
        self._pass(count)
        self.received += count

    def _pass(self, count: int) -> None:
        self.check_time("the transfer stops")
        if self._rate is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _BURST_S) + count / self._rate
        time.sleep(max(0.0, self._free_at - now))

    def _out_of_time(self, state: tenacity.RetryCallState) -> bool:
        waiting = time.monotonic() - self._began + state.upcoming_sleep
        return self._limit_s is not None and waiting >= self._limit_s


_jitter = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)


def _wait(state: tenacity.RetryCallState) -> float:
    """Full jitter, so that a fleet does not come back at one instant; never earlier than the remote asks for."""
    error = state.outcome.exception() if state.outcome else None
    return max(_jitter(state), error.after_s if isinstance(error, AwayError) else 0.0)
