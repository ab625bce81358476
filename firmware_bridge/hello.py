"""HELLO: how a firmware registers a stream, with nothing configured on the host (SPEC.md, section "HELLO")."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import numpy as np

from edge_cmcl.data import pairs_format
from edge_cmcl.errors import DataError
from firmware_bridge.frames import DTYPES, MAX_PAYLOAD

MAX_BYTES = 512
MAX_CHANNELS = 1024
MAX_TEXT = 64
MAX_RATE_HZ = 1e6
MIN_MAX_PAYLOAD, DEFAULT_MAX_PAYLOAD = 64, 256
KINDS = ("sensor", "embedding", "label")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
RESERVED = pairs_format.RESERVED | {"clock"}
"""Names that mean something else in pairs files or recordings."""


@dataclass(frozen=True)
class Hello:
    """What a stream is.

    Attributes:
        name: the modality.
        unit: of a value after scaling.
        scale: value = raw x scale.
        rate_hz: nominal.
        channels: of a sample.
        dtype: code of the raw samples' type, a key of `frames.DTYPES`.
        firmware: name and version, for the log.
        kind: one of `KINDS`; only sensors are paired.
        max_payload: longest payload in bytes that this firmware takes.
    """

    name: str
    unit: str
    scale: float
    rate_hz: float
    channels: int
    dtype: int
    firmware: str = ""
    kind: str = "sensor"
    max_payload: int = DEFAULT_MAX_PAYLOAD

    def to_bytes(self) -> bytes:
        """Return it as the payload of a HELLO frame.

        Raises:
            DataError: a field that SPEC.md does not allow.
        """
        fields = {
            "name": self.name, "unit": self.unit, "scale": float(self.scale), "rate": float(self.rate_hz),
            "channels": self.channels, "dtype": self.dtype, "firmware": self.firmware, "kind": self.kind,
            "max_payload": self.max_payload,
        }  # fmt: skip
        _check(fields)
        return cbor2.dumps(fields)


def parse_hello(payload: bytes) -> Hello:
    """Return what the payload of a HELLO frame says.

    Raises:
        DataError: it is no such map, or a field is missing or not allowed.
    """
    fields = _map(payload)
    fields.setdefault("kind", "sensor")
    fields.setdefault("max_payload", DEFAULT_MAX_PAYLOAD)
    _check(fields)
    return Hello(
        name=fields["name"], unit=fields["unit"], scale=float(fields["scale"]), rate_hz=float(fields["rate"]),
        channels=fields["channels"], dtype=fields["dtype"], firmware=fields["firmware"], kind=fields["kind"],
        max_payload=fields["max_payload"],
    )  # fmt: skip


def _map(payload: bytes) -> dict[str, Any]:
    """Return the flat CBOR map of `payload`."""
    expected = f"one CBOR map of at most {MAX_BYTES} bytes"
    if len(payload) > MAX_BYTES:
        raise DataError("a HELLO is too long", expected=expected, got=f"{len(payload)} bytes")
    stream = io.BytesIO(payload)
    try:
        fields = cbor2.load(stream, max_depth=1, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise DataError("a HELLO cannot be read", expected=expected, got=str(error)) from None
    if not isinstance(fields, dict) or stream.read(1) or not all(isinstance(key, str) for key in fields):
        raise DataError("a HELLO cannot be read", expected=expected, got=repr(fields)[:200])
    return fields


def _check(fields: dict[str, Any]) -> None:
    for key, (allowed, expected) in _RULES.items():
        if key not in fields or not allowed(fields[key]):
            got = repr(fields[key])[:200] if key in fields else "nothing"
            raise DataError(f"a HELLO has no valid {key}", expected=expected, got=got)
    sample = fields["channels"] * DTYPES[fields["dtype"]].itemsize
    if sample > MAX_PAYLOAD:
        raise DataError(
            "a sample does not fit into a frame", expected=f"at most {MAX_PAYLOAD} bytes", got=f"{sample} bytes"
        )


def _text(shortest: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and shortest <= len(value) <= MAX_TEXT and value.isprintable()


def _positive(most: float) -> Callable[[object], bool]:
    def allowed(value: object) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and 0 < value <= most  # type: ignore[arg-type,operator]

    return allowed


def _whole(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "name": (
        lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None and value not in RESERVED,
        f"1 to 32 of a-z 0-9 _, beginning with a letter, and none of {', '.join(sorted(RESERVED))}",
    ),
    "unit": (_text(1), f"1 to {MAX_TEXT} printable characters"),
    "scale": (_positive(float(np.finfo(np.float32).max)), "a finite number above 0"),
    "rate": (_positive(MAX_RATE_HZ), f"samples per second, above 0, at most {MAX_RATE_HZ:g}"),
    "channels": (_whole(1, MAX_CHANNELS), f"1 to {MAX_CHANNELS}"),
    "dtype": (_whole(min(DTYPES), max(DTYPES)), f"{min(DTYPES)} to {max(DTYPES)}"),
    "firmware": (_text(0), f"at most {MAX_TEXT} printable characters"),
    "kind": (lambda value: isinstance(value, str) and value in KINDS, f"one of {', '.join(KINDS)}"),
    "max_payload": (_whole(MIN_MAX_PAYLOAD, MAX_PAYLOAD), f"{MIN_MAX_PAYLOAD} to {MAX_PAYLOAD}"),
}
