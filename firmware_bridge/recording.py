"""One file of a recording: written so that a crash loses little, read also where it was cut (RECORDING.md)."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Header, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from numpy.typing import NDArray

from edge_cmcl.errors import DataError
from edge_cmcl.version import SOFTWARE
from firmware_bridge.hello import Hello

PROFILE = "edge-cmcl"
CHUNK_BYTES = 64 << 10
MAX_RECORD_BYTES = 16 << 20
"""Of a record that is read: far more than is ever written, and no more memory than a device has."""
MAX_HEADER_BYTES = 4096
COUNTS = "edge-cmcl/counts"

_SCHEMAS = {
    "edge_cmcl/msg/Samples": (
        "uint64 device_time_us\nuint32 boot\nuint32 sequence\nuint32 channels\nfloat32[] values\n"
    ),
    "edge_cmcl/msg/Exchange": (
        "uint64 sent_ns\nuint64 arrived_ns\nuint64 received_us\nuint64 answered_us\nuint32 boot\nstring link\n"
    ),
    "edge_cmcl/msg/Label": "string label\n",
}
_CDR = b"\x00\x01\x00\x00"  # little-endian, plain
_SAMPLES = struct.Struct("<4sQIIII")
_EXCHANGE = struct.Struct("<4sQQQQII")
_LABEL = struct.Struct("<4sI")


@dataclass(frozen=True)
class StreamInfo:
    """Where a stream came from and what it is.

    Attributes:
        link: the link's address, as the user gave it.
        stream: its number on that link.
        hello: what the firmware said of it.
    """

    link: str
    stream: int
    hello: Hello


@dataclass(frozen=True)
class Samples:
    """The samples of one frame.

    Attributes:
        stream: what they are samples of.
        arrived_ns: host clock.
        boot: of the firmware.
        sequence: of the frame in its stream.
        device_time_us: device clock at the first sample.
        values: (samples, channels) float32, in the unit of the stream.
    """

    stream: StreamInfo
    arrived_ns: int
    boot: int
    sequence: int
    device_time_us: int
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Exchange:
    """One TIME exchange (SPEC.md, section "TIME").

    Attributes:
        link: the link's address.
        boot: of the firmware.
        sent_ns: host clock when the ping went.
        arrived_ns: host clock when the answer came.
        received_us: device clock when the ping came.
        answered_us: device clock when the answer went.
    """

    link: str
    boot: int
    sent_ns: int
    arrived_ns: int
    received_us: int
    answered_us: int


@dataclass(frozen=True)
class Label:
    """What is going on from `since_ns` of the host clock on; "" where that is not known."""

    since_ns: int
    label: str


Event = Samples | Exchange | Label


class RecordingWriter:
    """Writes one file of a recording into `file`, which is open for writing and stays open.

    Nothing that was written before the last `flush` is lost, whatever comes.

    Raises:
        OSError: the file system refused; what was flushed before is intact.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer = Writer(file, chunk_size=CHUNK_BYTES, compression=CompressionType.LZ4)
        self._writer.start(profile=PROFILE, library=SOFTWARE)
        self._schemas = {
            name: self._writer.register_schema(name, "ros2msg", text.encode()) for name, text in _SCHEMAS.items()
        }
        self._channels: dict[StreamInfo | str, int] = {}

    def write(self, event: Event) -> None:
        """Add `event`."""
        if isinstance(event, Samples):
            channel, data, time_ns = self._stream(event.stream), _samples_bytes(event), event.arrived_ns
            sequence = event.sequence
        elif isinstance(event, Exchange):
            channel, data, time_ns = self._topic("/clock", "Exchange"), _exchange_bytes(event), event.arrived_ns
            sequence = 0
        else:
            channel, data, time_ns = self._topic("/label", "Label"), _label_bytes(event), event.since_ns
            sequence = 0
        self._writer.add_message(channel, log_time=time_ns, data=data, publish_time=time_ns, sequence=sequence)

    def flush(self) -> None:
        """End the chunk under way and bring everything to the disk."""
        self._writer.flush()
        os.fsync(self._file.fileno())

    def finish(self, counts: Mapping[str, Any]) -> None:
        """Write `counts`, the index and the footer, and bring everything to the disk."""
        self._writer.flush()
        self._writer.add_metadata(COUNTS, {"json": json.dumps(counts, sort_keys=True)})
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())

    def _stream(self, stream: StreamInfo) -> int:
        if stream not in self._channels:
            topic, schema = f"/{stream.hello.name}", self._schemas["edge_cmcl/msg/Samples"]
            self._channels[stream] = self._writer.register_channel(topic, "cdr", schema, _metadata(stream))
        return self._channels[stream]

    def _topic(self, topic: str, schema: str) -> int:
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(
                topic, "cdr", self._schemas[f"edge_cmcl/msg/{schema}"]
            )
        return self._channels[topic]


@dataclass
class RecordingFile:
    """Reads one file of a recording.

    Attributes:
        path: the file.
        cut: why it ends before its end, "" where it does not; known once `events` has ended.
        counts: as at its end; empty where it was cut.
    """

    path: Path
    cut: str = ""
    counts: dict[str, Any] = field(default_factory=dict)

    def events(self) -> Iterator[Event]:
        """Yield what was recorded, in the order in which it arrived; of a cut file, all whole chunks.

        Raises:
            DataError: the file cannot be read, or was not made by edge-cmcl.
        """
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise DataError(f"{self.path} cannot be read", got=error.strerror or str(error)) from None
        with file:
            if not self.path.stat().st_size:
                self.cut = "it is empty"
                return
            yield from self._read(file)

    def _read(self, file: BinaryIO) -> Iterator[Event]:
        records = StreamReader(file, validate_crcs=True, record_size_limit=MAX_RECORD_BYTES).records
        schemas: set[int] = set()
        channels: dict[int, Channel] = {}
        streams: dict[int, StreamInfo] = {}
        counts: dict[str, Any] = {}
        while True:
            try:
                record = next(records)
                if isinstance(record, Schema):
                    schemas.add(record.id)
                elif isinstance(record, Channel):
                    _check_schema(record, schemas)
                    channels[record.id] = record
                elif isinstance(record, Metadata) and record.name == COUNTS:
                    counts = _read_counts(record)
                if not isinstance(record, Message):
                    continue
                channel = channels[record.channel_id]
            except StopIteration:
                self.counts = counts
                return
            except _DAMAGE as error:
                self.cut = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                return
            yield _event(self.path, channel, record, streams)


# What the library raises for bytes that are no MCAP, or too few of them.
_DAMAGE = (
    McapError,
    ValueError,
    OverflowError,
    EOFError,
    struct.error,
    RuntimeError,
    KeyError,
    MemoryError,
    UnicodeError,
)


def _event(path: Path, channel: Channel, message: Message, streams: dict[int, StreamInfo]) -> Event:
    try:
        if channel.topic == "/clock":
            return _exchange(message.data)
        if channel.topic == "/label":
            return Label(message.log_time, _text(message.data, _LABEL))
        if channel.id not in streams:
            streams[channel.id] = _stream_info(channel)
        return _samples(message, streams[channel.id])
    except (struct.error, ValueError, KeyError, IndexError, UnicodeError) as error:
        raise DataError(
            f"{path} is no recording of edge-cmcl",
            expected="an MCAP file by `edge-cmcl record`",
            got=f"topic {channel.topic!r}: {error}",
        ) from None


def _metadata(stream: StreamInfo) -> dict[str, str]:
    hello = stream.hello
    return {
        "unit": hello.unit, "scale": repr(hello.scale), "rate_hz": repr(hello.rate_hz), "channels": str(hello.channels),
        "dtype": str(hello.dtype), "kind": hello.kind, "firmware": hello.firmware, "link": stream.link,
        "stream": str(stream.stream),
    }  # fmt: skip


def _stream_info(channel: Channel) -> StreamInfo:
    told = channel.metadata
    hello = Hello(
        channel.topic.removeprefix("/"), told["unit"], float(told["scale"]), float(told["rate_hz"]),
        int(told["channels"]), int(told["dtype"]), told["firmware"], told["kind"],
    )  # fmt: skip
    hello.to_bytes()  # checks it
    return StreamInfo(told["link"], int(told["stream"]), hello)


def _samples_bytes(samples: Samples) -> bytes:
    values = np.ascontiguousarray(samples.values, "<f4")
    head = _SAMPLES.pack(_CDR, samples.device_time_us, samples.boot, samples.sequence, values.shape[1], values.size)
    return head + values.tobytes()


def _samples(message: Message, stream: StreamInfo) -> Samples:
    _, time_us, boot, sequence, channels, size = _SAMPLES.unpack_from(message.data)
    values = np.frombuffer(message.data, "<f4", count=size, offset=_SAMPLES.size)
    if channels != stream.hello.channels:
        raise ValueError(f"{channels} channels, {stream.hello.channels} announced")
    return Samples(stream, message.log_time, boot, sequence, time_us, values.reshape(-1, channels))


def _exchange_bytes(exchange: Exchange) -> bytes:
    link = exchange.link.encode() + b"\0"
    head = _EXCHANGE.pack(
        _CDR,
        exchange.sent_ns,
        exchange.arrived_ns,
        exchange.received_us,
        exchange.answered_us,
        exchange.boot,
        len(link),
    )
    return head + link


def _exchange(data: bytes) -> Exchange:
    _, sent, arrived, received, answered, boot, _ = _EXCHANGE.unpack_from(data)
    return Exchange(_text(data, _EXCHANGE), boot, sent, arrived, received, answered)


def _label_bytes(label: Label) -> bytes:
    text = label.label.encode() + b"\0"
    return _LABEL.pack(_CDR, len(text)) + text


def _text(data: bytes, head: struct.Struct) -> str:
    """Return the CDR string whose length ends `head`."""
    length = head.unpack_from(data)[-1]
    text = data[head.size : head.size + length]
    if len(text) != length or not text.endswith(b"\0"):
        raise ValueError("a string that is cut off")
    return text[:-1].decode()


def _check_schema(channel: Channel, schemas: set[int]) -> None:
    if channel.schema_id != 0 and channel.schema_id not in schemas:
        raise McapError(f"no schema record found with id {channel.schema_id}")


def _read_counts(record: Metadata) -> dict[str, Any]:
    """Return the counters at the end of a file; none where they are damaged, for they are only told."""
    try:
        counts = json.loads(record.metadata["json"])
    except (ValueError, KeyError, RecursionError):
        return {}
    return counts if isinstance(counts, dict) else {}


def files_of(recording: Path | str) -> list[Path]:
    """Return the files of a recording, a folder or one file, in their order.

    Raises:
        DataError: there are none.
    """
    path = Path(recording)
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(
            f"{path} is no recording", expected="an .mcap file, or a folder of them", got="nothing of the kind"
        )
    return files


def is_recording(path: Path | str) -> bool:
    """Return whether `path` looks like a recording and not like a pairs file."""
    path = Path(path)
    return path.suffix == ".mcap" or (path.is_dir() and any(path.glob("*.mcap")))


def is_ours(path: Path | str) -> bool:
    """Return whether `path` begins as a recording that edge-cmcl wrote."""
    try:
        with Path(path).open("rb") as file:
            header = next(iter(StreamReader(file, record_size_limit=MAX_HEADER_BYTES).records), None)
    except (OSError, *_DAMAGE):
        return False
    return isinstance(header, Header) and header.profile == PROFILE
