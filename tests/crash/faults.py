"""One fault at one file-system call of one command: a kill, or an error that the kernel gives back.

A point has an id, COMMAND:CALL:N:SEED for a kill and COMMAND:CALL:N:SEED:ERROR for an error, that replays it: the Nth
CALL of the process (after its imports) is hit. strace kills before the call is done, so the points of all calls, and
the one after the last, are all states that a kill can leave on the disk.
"""

from __future__ import annotations

import functools
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calls import MUTATING, Call, listed
from forks import Ended, restarted, run_command, run_installed
from situations import COMMANDS, Command, Situations
from soundness import EMPTY, Summary, debris, garbage, named, summary

KILL = "KILL"
ERRORS = ("ENOSPC", "EIO", "EROFS")

LAST = Call("exit_group", 1, "after the last call", scratch=False)
"""The point after everything was done, before the process ends."""


@dataclass(frozen=True)
class Point:
    """A command, a call of it and what happens there."""

    command: Command
    call: Call
    seed: int
    fault: str = KILL

    @property
    def id(self) -> str:
        """What replays it."""
        text = f"{self.command.name}:{self.call.name}:{self.call.n}:{self.seed}"
        return text if self.fault == KILL else f"{text}:{self.fault}"


@dataclass
class Found:
    """What the points of one command showed.

    Attributes:
        calls: mutating calls below the store in a run that nothing disturbs, those on scratch files included.
        scratch: how many of them only touch scratch files.
        struck: points that were tried.
        old, new, partly: in which state they left the store.
        failed: what was wrong, by the id of the point.
    """

    calls: int = 0
    scratch: int = 0
    struck: int = 0
    old: int = 0
    new: int = 0
    partly: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Undisturbed:
    """A command's run without a fault: its calls, and the store before and after (`soundness.summary`).

    Attributes:
        calls: its calls that change something below the store.
        garbage: blobs in the store before that nothing needs.
        old, new: the store before and after.
    """

    calls: tuple[Call, ...]
    garbage: tuple[str, ...]
    old: Summary
    new: Summary


class Harness:
    """Strikes points of commands on a store below `folder`, with strace's log below `logs`.

    The commands run in forked processes (`forks`), or as `installed`; a point of one is no point of the other.
    """

    def __init__(self, situations: Situations, folder: Path, logs: Path, *, installed: bool = False) -> None:
        self._runner = run_installed if installed else run_command
        self.situations, self.store, self.log = situations, folder / "store", logs / "strace.log"
        for each in (folder, logs):
            each.mkdir(parents=True, exist_ok=True)

    @functools.cache  # noqa: B019
    def undisturbed(self, command: Command) -> Undisturbed:
        """Run `command` without a fault, and list its calls."""
        self.situations.copied(command.begins, self.store)
        old, left = restarted(lambda: (summary(self.store), garbage(self.store)))
        done = self._run(command, ["-y", "-s", "0", "-e", "trace=" + ",".join(f"?{name}" for name in MUTATING)])
        assert done.acknowledged, done
        calls = tuple(listed(self.log, done.process, self.store))
        assert calls, "strace lists no call that changes the store"
        return Undisturbed(calls, tuple(left), old, named(restarted(lambda: summary(self.store)), old))

    def strike(self, point: Point) -> str:
        """Let the fault of `point` happen, start again, and return which state is there: old, new or partly.

        Raises:
            AssertionError: the store is not sound, holds neither state, or lost what was acknowledged; or the fault did
                not happen where it should.
        """
        self.undisturbed(point.command)
        self.situations.copied(point.command.begins, self.store)
        done = self._run(point.command, self._injection(point))
        self._check_hit(point, done)
        return self.judge(point.command, done)

    def judge(self, command: Command, done: Ended) -> str:
        """Start again after `command` has `done` something, and return which state is there; raises as `strike`."""
        usual, found = self.undisturbed(command), restarted(self._look)
        state = self._state(command, usual, found["summary"])
        if done.acknowledged:
            assert state == "new" or not command.changes, f"acknowledged, but the state is {state}"
        elif done.code is not None:
            self._check_error(command, done, state)
            left = set(found["garbage"]) - set(usual.garbage)
            assert state != "old" or not left, f"the error left blobs that nothing needs: {sorted(left)[:3]}"
        if command.again and (state == "old" or command.partly):
            self._do_again(command, usual)
        return state

    def _do_again(self, command: Command, usual: Undisturbed) -> None:
        done = run_command(self.situations.arguments(command, self.store))
        assert done.code == 0, f"it cannot be done again: {done}"
        found = named(restarted(lambda: summary(self.store)), usual.old)
        assert found == usual.new, f"done again, it ends differently: {_difference(found, usual.new)}"
        assert not command.partly or not garbage(self.store), "done again, it left something to remove"
        assert not (left := restarted(lambda: debris(self.store))), f"done again, there is debris: {left}"

    def _run(self, command: Command, options: Sequence[str]) -> Ended:
        return self._runner(self.situations.arguments(command, self.store), ["-o", str(self.log), *options])

    def _injection(self, point: Point) -> list[str]:
        name, what = point.call.name, f"signal={KILL}" if point.fault == KILL else f"error={point.fault}"
        return ["-y", "-s", "0", "-e", f"trace={name}", "-e", f"inject={name}:{what}:when={point.call.n}"]

    def _check_hit(self, point: Point, done: Ended) -> None:
        if point.fault == KILL:
            assert done.code is None, f"it was not killed: {done}"
        if point.call == LAST:
            return
        hit = [call for call in listed(self.log, done.process, self.store) if call.n == point.call.n]
        found = hit[0].what if hit else "no call below the store"
        assert found == point.call.what, f"another call was hit than planned: {point.call.what}, but {found}"

    def _look(self) -> dict[str, Any]:
        before = summary(self.store)
        left = debris(self.store)
        assert not left, f"debris after the next start: {left}"
        assert summary(self.store) == before
        return {"summary": before, "garbage": garbage(self.store)}

    def _state(self, command: Command, usual: Undisturbed, found: Summary) -> str:
        seen = named(found, usual.old)
        if seen == usual.new:
            return "new"
        if seen == usual.old:
            return "old"
        if command.partly and seen != EMPTY and _between(usual.old, seen, usual.new):
            return "partly"
        raise AssertionError(f"neither the old state nor the new one: {_difference(seen, usual.old)}")

    def _check_error(self, command: Command, done: Ended, state: str) -> None:
        assert "Traceback" not in done.stderr, done
        assert done.code == 7, f"exit code {done.code}: {done}"
        error = json.loads(done.stdout)["error"]
        assert error["message"], done
        assert error["to_do"], done
        told = f"it failed ({error['message']}: {error['got']})"
        assert state == "old" or command.partly, f"{told}, but the state is {state}"


def _between(old: Summary, seen: Summary, new: Summary) -> bool:
    kept = set(seen["generations"])
    same = all(seen[key] == old[key] for key in ("current", "trial", "reverted", "highest"))
    return same and set(new["generations"]) <= kept <= set(old["generations"])


def _difference(found: Summary, expected: Summary) -> str:
    keys = sorted(found.keys() | expected.keys())
    text = "; ".join(
        f"{key} is {found.get(key)}, not {expected.get(key)}" for key in keys if found.get(key) != expected.get(key)
    )
    return re.sub(r"sha256:([0-9a-f]{8})[0-9a-f]{56}", r"\1", text)


def chosen(usual: Undisturbed, some: int | None, scratch: bool, rng: random.Random) -> list[Call]:
    """Return the calls to strike: all of them, or `some`, spread over the run, the first and the last included."""
    calls = [call for call in usual.calls if scratch or not call.scratch]
    if some is None or len(calls) <= some:
        return calls
    step = len(calls) / some
    return [calls[min(int((i + rng.random()) * step), len(calls) - 1)] for i in range(some)]


def strike_all(
    harness: Harness,
    commands: Sequence[Command],
    faults: Sequence[str],
    *,
    some: int | None,
    scratch: bool,
    tell: Callable[[str], None],
) -> dict[str, Found]:
    """Strike points of `commands` with `faults` and return what was found, by command.

    Args:
        harness: what strikes them.
        commands: which commands.
        faults: which faults at each point.
        some: how many calls of each command, None for every one.
        scratch: whether calls that only touch scratch files are struck, too.
        tell: called with a line on each failure and each command.
    """
    found = {}
    for command in commands:
        began, usual, result = time.monotonic(), harness.undisturbed(command), Found()
        result.calls, result.scratch = len(usual.calls), sum(call.scratch for call in usual.calls)
        for point in points(command, usual, harness.situations.seed, faults, some, scratch):
            result.struck += 1
            try:
                state = harness.strike(point)
                setattr(result, state, getattr(result, state) + 1)
            except AssertionError as error:
                result.failed[point.id] = str(error)
                tell(f"FAILED {point.id} ({point.call.what}): {error}")
        tell(f"{command.name}: {result.struck} points, {len(result.failed)} failed, {time.monotonic() - began:.0f} s")
        found[command.name] = result
    return found


def points(
    command: Command, usual: Undisturbed, seed: int, faults: Sequence[str], some: int | None, scratch: bool
) -> Iterator[Point]:
    """Yield the points to strike; of kills also the one after the last call. With `some`, the faults take turns."""
    rng = random.Random(f"{command.name}:{seed}")
    for i, call in enumerate(chosen(usual, some, scratch, rng)):
        for fault in faults if some is None else [faults[i % len(faults)]]:
            yield Point(command, call, seed, fault)
    if KILL in faults:
        yield Point(command, LAST, seed)


def replayed(harness: Harness, text: str) -> Point:
    """Return the point with the id `text`.

    Raises:
        ValueError: there is none.
    """
    name, call_name, n, seed, *fault = text.split(":")
    if int(seed) != harness.situations.seed:
        raise ValueError(f"{text} is of seed {seed}, not {harness.situations.seed}")
    command = next(command for command in COMMANDS if command.name == name)
    for call in (*harness.undisturbed(command).calls, LAST):
        if (call.name, call.n) == (call_name, int(n)):
            return Point(command, call, int(seed), fault[0] if fault else KILL)
    raise ValueError(f"{name} has no call {call_name}:{n} that changes the store")


def report(found: dict[str, Found]) -> dict[str, Any]:
    """Return the counts of `found` in JSON types, with their sum."""
    total = {key: sum(getattr(each, key) for each in found.values()) for key in ("struck", "old", "new", "partly")}
    failed = sum(len(each.failed) for each in found.values())
    return {"commands": {name: asdict(each) for name, each in found.items()}, **total, "failed": failed}
