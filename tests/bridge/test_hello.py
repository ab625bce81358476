"""HELLO: what registers a stream and what is refused."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cmcl.errors import DataError
from firmware_bridge.hello import Hello, parse_hello

SHORTEST: dict[str, Any] = {
    "name": "gyro", "unit": "rad/s", "scale": 0.5, "rate": 50, "channels": 3, "dtype": 3, "firmware": ""
}  # fmt: skip


def test_what_a_firmware_says_comes_out_as_it_went_in() -> None:
    hello = Hello("gyro", "rad/s", 0.25, 50.0, 3, 3, "example 1.0", "embedding", 1024)
    assert parse_hello(hello.to_bytes()) == hello


def test_optional_keys_have_defaults_and_unknown_ones_are_ignored() -> None:
    hello = parse_hello(cbor2.dumps({**SHORTEST, "colour": "red"}))
    assert hello == Hello("gyro", "rad/s", 0.5, 50.0, 3, 3, "", "sensor", 256)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "Gyro"), ("name", ""), ("name", "a" * 33), ("name", "a-b"), ("name", "text"), ("name", "clock"),
        ("name", 3), ("name", "../x"), ("unit", ""), ("unit", "a\n"), ("unit", "x" * 65), ("scale", 0.0),
        ("scale", -1.0), ("scale", float("nan")), ("scale", float("inf")), ("scale", True), ("rate", 0), ("rate", 1e7),
        ("channels", 0), ("channels", 1025), ("channels", 3.0), ("channels", True), ("dtype", 0), ("dtype", 7),
        ("firmware", "x" * 65),
        ("kind", "other"), ("kind", 1), ("max_payload", 63), ("max_payload", 4097),
    ],
)  # fmt: skip
def test_a_field_that_is_not_allowed_is_named(key: str, value: object) -> None:
    with pytest.raises(DataError, match=key):
        parse_hello(cbor2.dumps({**SHORTEST, key: value}))


@pytest.mark.parametrize("key", SHORTEST)
def test_a_field_that_is_missing_is_named(key: str) -> None:
    with pytest.raises(DataError, match=key):
        parse_hello(cbor2.dumps({name: value for name, value in SHORTEST.items() if name != key}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        cbor2.dumps([1]),
        cbor2.dumps({1: 2}),
        cbor2.dumps(SHORTEST) + b"\0",
        cbor2.dumps({**SHORTEST, "deep": {"er": 1}}),
        cbor2.dumps({**SHORTEST, "kind": ["sensor"]}),
        cbor2.dumps({**SHORTEST, "scale": 1 << 2000}),
        b"\xbf" + cbor2.dumps(SHORTEST)[1:] + b"\xff",
        b"\xa2\x61a\x01\x61a\x02",
        cbor2.dumps({**SHORTEST, "x": "y" * 512}),
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_what_is_no_flat_map_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError, match="HELLO"):
        parse_hello(payload)


def test_a_sample_that_does_not_fit_into_a_frame_is_refused() -> None:
    parse_hello(cbor2.dumps({**SHORTEST, "channels": 1024, "dtype": 6}))
    with pytest.raises(DataError):
        Hello("x", "g", 1.0, 1.0, 1025, 1).to_bytes()


@given(st.binary(max_size=600))
def test_any_bytes_give_a_hello_or_a_clear_error(payload: bytes) -> None:
    try:
        parse_hello(payload)
    except DataError:
        return
