"""JSON with one spelling per document, and a reader that trusts nothing (FORMAT.md, "JSON").

A document is named by the digest of its bytes, so two spellings of it would be two documents. The reader refuses
what JSON parsers disagree about: repeated keys, numbers that are not finite or not exact, absurd nesting.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, NoReturn

from edge_cmcl.bundle.limits import MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_INTEGER, MAX_MEMBERS, MAX_VALUES
from edge_cmcl.errors import FormatError


def digest_of(data: bytes) -> str:
    """Return the digest "sha256:HEX" of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(document: Any) -> bytes:
    """Return `document` as UTF-8 JSON with sorted keys and no white space.

    Raises:
        FormatError: it holds a number that is not finite, or something that is not JSON.
    """
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(
            "a document cannot be written as JSON", expected="finite JSON values", got=str(error)
        ) from error


def parse(data: bytes, name: str, limit: int = MAX_DOCUMENT_BYTES) -> Any:
    """Parse the JSON document `data`; `name` says in errors which one it is.

    Raises:
        FormatError: it is larger than `limit` bytes, not UTF-8, not JSON, nested deeper than 32, has too many values,
            repeats a key, or holds a number that is not finite or an integer beyond 2^53 - 1.
    """
    if len(data) > limit:
        raise FormatError(f"{name} is too large", expected=f"at most {limit} bytes", got=f"{len(data)} bytes")
    try:
        _check_count(data)
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_not_finite,
        )
        _check_depth(document)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{name} is not a valid JSON document",
            expected=f"UTF-8 JSON of at most {MAX_VALUES} values, {MAX_DEPTH} deep, no repeated keys, finite numbers",
            got=str(error) or type(error).__name__,
            hint="it is damaged or was not written by edge-cmcl: get it again from where it came",
        ) from error
    return document


def _check_count(data: bytes) -> None:
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} commas and opening brackets")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object repeats a key")
    return members


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {text[:24]} is beyond 2^53 - 1")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:24]} is too large")
    return value


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _children(node: Any) -> list[Any]:
    children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    if len(children) > MAX_MEMBERS:
        raise ValueError(f"an array or object of {len(children)} members, more than {MAX_MEMBERS}")
    return children
