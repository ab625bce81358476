"""Records what comes over links: reads them, keeps their clocks known, writes, and tells how it goes.

One thread reads each link; all else happens in the thread that calls `record`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_cmcl.errors import EdgeCmclError, RemoteError, StorageError
from firmware_bridge.host_clock import HostClock
from firmware_bridge.links import KeptLink, Link, LinkEnd
from firmware_bridge.recording import Exchange, Label, Samples
from firmware_bridge.segments import Segments
from firmware_bridge.source import Source

QUEUED_READS = 512
"""Reads that wait to be written: while the disk is busy, this and the system's own buffers hold what comes."""
_READ_TIMEOUT_S = 0.1
_PING_S = 0.5
_ASK_S = 1.0  # while a link has announced nothing
_TELL_S = 0.25


@dataclass(frozen=True)
class Settings:
    """How to record.

    Attributes:
        fsync_s: what is older than this is on the disk.
        rotate_bytes: see `Segments`.
        min_free_bytes: see `Segments`.
        seconds: how long; None for until it is stopped, or all links have ended.
        label: what is going on at the start; "" where that is not known.
        script: (seconds after the start, label) of what will be going on.
        speed: seconds that pass in a real one, see `HostClock`.
    """

    fsync_s: float = 1.0
    rotate_bytes: int = 256_000_000
    min_free_bytes: int = 64_000_000
    seconds: float | None = None
    label: str = ""
    script: Sequence[tuple[float, str]] = ()
    speed: float = 1.0


@dataclass
class Feed:
    """One link that is recorded.

    Attributes:
        link: carries the bytes.
        source: makes sense of them.
        exchanges: the newest ones, to tell the clock by.
        ended: whether no more can come.
    """

    link: KeptLink
    source: Source
    exchanges: list[Exchange] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class Progress:
    """How a recording goes.

    Attributes:
        seconds: since it began.
        label: what is going on.
        feeds: the links.
        folder: of the recording.
        bytes: written.
        free_bytes: left on the file system.
    """

    seconds: float
    label: str
    feeds: Sequence[Feed]
    folder: Path
    bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Recorded:
    """What was recorded.

    Attributes:
        folder: of the recording.
        files: in it.
        bytes: of these.
        seconds: from begin to end.
        counts: of each link, by address.
        stopped: why it ended: "asked", "seconds" or "links ended".
    """

    folder: Path
    files: int
    bytes: int
    seconds: float
    counts: Mapping[str, Any]
    stopped: str


class Recorder:
    """Records from `links` into a new folder.

    Args:
        folder: of the recording.
        links: open links, each with how to open it again; they are closed in the end.
        settings: how to record.
        tell: called a few times a second with how it goes.

    Raises:
        UsageError: the folder has something in it.
        StorageError: the file system refused.
    """

    def __init__(
        self,
        folder: Path,
        links: Sequence[tuple[Link, Callable[[], Link]]],
        settings: Settings,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._clock = HostClock(settings.speed)
        self._feeds = [Feed(KeptLink(link, reopen), Source(link.address)) for link, reopen in links]
        try:
            self._segments = Segments(
                folder, rotate_bytes=settings.rotate_bytes, min_free_bytes=settings.min_free_bytes
            )
        except BaseException:
            self._close_links()
            raise
        self._reads: queue.Queue[tuple[Feed, int, bytes | EdgeCmclError | None]] = queue.Queue(QUEUED_READS)
        self._labels: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._label = ""
        self._names: dict[str, Feed] = {}
        self._began_ns = self._clock.now_ns()
        self._due: dict[str, float] = dict.fromkeys(("ping", "ask", "flush", "tell"), 0.0)

    def stop(self) -> None:
        """Let `record` end soon; may be called from any thread or a signal handler."""
        self._stop.set()

    def label(self, text: str) -> None:
        """Say what is going on from now on; may be called from any thread."""
        self._labels.put(text)

    def record(self) -> Recorded:
        """Record until the time is over, all links have ended, or `stop` is called.

        An interruption (Ctrl-C) ends the file under way as it should be, and goes on.

        Raises:
            RemoteError: no sample came; nothing is left behind.
            StorageError: the file system refused or is nearly full; what was flushed is there.
            DataError: a replayed file cannot be read.
        """
        with self._reading():
            try:
                stopped = self._run()
            except StorageError:
                self._segments.abandon()
                raise
            except BaseException:
                self._segments.finish(self._counts())
                raise
            self._segments.finish(self._counts())
        if not any(feed.source.samples for feed in self._feeds):
            self._segments.discard()
            raise self._nothing_came()
        seconds = self._elapsed_s()
        return Recorded(
            self._segments.folder, self._segments.files, self._segments.bytes, seconds, self._counts(), stopped
        )

    def _run(self) -> str:
        script = sorted(self._settings.script)
        if self._settings.label:
            self.label(self._settings.label)
        while True:
            if self._stop.is_set():
                return "asked"
            if self._settings.seconds is not None and self._elapsed_s() >= self._settings.seconds:
                return "seconds"
            if all(feed.ended for feed in self._feeds) and self._reads.empty():
                return "links ended"
            while script and self._elapsed_s() >= script[0][0]:
                self.label(script.pop(0)[1])
            self._write_labels()
            self._take(0.05)
            self._keep_up()

    def _take(self, timeout_s: float) -> None:
        """Write what has come, for a while."""
        try:
            feed, arrived_ns, data = self._reads.get(timeout=timeout_s)
            for _ in range(QUEUED_READS):
                if isinstance(data, EdgeCmclError):
                    raise data
                if data is None:
                    feed.ended = True
                else:
                    self._write(feed, arrived_ns, data)
                feed, arrived_ns, data = self._reads.get_nowait()
        except queue.Empty:
            return

    def _write(self, feed: Feed, arrived_ns: int, data: bytes) -> None:
        for event in feed.source.take(arrived_ns, data):
            if isinstance(event, Samples):
                if self._names.setdefault(event.stream.hello.name, feed) is feed:
                    self._segments.write(event)
                else:
                    feed.source.faults["name_taken"] += 1
            elif isinstance(event, Exchange):
                feed.exchanges = [*feed.exchanges[-119:], event]
                self._segments.write(event)

    def _write_labels(self) -> None:
        while not self._labels.empty():
            self._label = self._labels.get()
            self._segments.write(Label(self._clock.now_ns(), self._label))

    def _keep_up(self) -> None:
        """Do what is due: ask for time and streams, bring to the disk, tell."""
        if self._is_due("ping", _PING_S):
            for feed in self._feeds:
                feed.link.write(feed.source.ask_for_time(self._clock.now_ns()))
        if self._is_due("ask", _ASK_S):
            for feed in self._feeds:
                if not feed.source.streams:
                    feed.link.write(feed.source.ask_for_hello())
        if self._is_due("flush", self._settings.fsync_s / 2):
            self._segments.flush(self._counts())
        if self._is_due("tell", _TELL_S):
            segments = self._segments
            self._tell(
                Progress(
                    self._elapsed_s(), self._label, self._feeds, segments.folder, segments.bytes, segments.free_bytes
                )
            )

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due[what]:
            return False
        self._due[what] = now_s + every_s
        return True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read all links meanwhile, each in a thread of its own."""
        threads = [threading.Thread(target=self._read, args=[feed], daemon=True) for feed in self._feeds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._close_links()
            self._drain()
            for thread in threads:
                thread.join(timeout=2.0)

    def _read(self, feed: Feed) -> None:
        while not self._stop.is_set():
            try:
                data: bytes | EdgeCmclError | None = feed.link.read(_READ_TIMEOUT_S)
            except LinkEnd:
                data = None
            except EdgeCmclError as error:
                data = error
            if data == b"":
                continue
            self._reads.put((feed, self._clock.now_ns(), data))
            if not isinstance(data, bytes):
                return

    def _close_links(self) -> None:
        for feed in self._feeds:
            feed.link.close()

    def _drain(self) -> None:
        """Let go of what waits, so that no reader hangs on a full queue."""
        while not self._reads.empty():
            self._reads.get_nowait()

    def _counts(self) -> dict[str, Any]:
        return {feed.link.address: {**feed.source.counts(), "reconnects": feed.link.reconnects} for feed in self._feeds}

    def _elapsed_s(self) -> float:
        return (self._clock.now_ns() - self._began_ns) / 1e9

    def _nothing_came(self) -> RemoteError:
        got = "; ".join(f"{feed.link.address}: {_what_came(feed)}" for feed in self._feeds)
        return RemoteError(
            "no sample was recorded", expected="a firmware that announces a stream and sends it", got=got,
            hint="check the address, the speed of the line, and that the firmware runs",
        )  # fmt: skip


def _what_came(feed: Feed) -> str:
    source = feed.source
    if feed.link.away:
        return feed.link.away
    if not source.decoder.bytes:
        return "no bytes"
    faults = ", ".join(f"{count} {name}" for name, count in source.all_faults.items())
    streams = ", ".join(info.hello.name for info in source.streams.values()) or "none"
    parts = [
        f"{source.decoder.bytes} bytes, {source.decoder.frames} frames, streams: {streams}",
        faults,
        source.bad_hello,
    ]
    return "; ".join(part for part in parts if part)
