"""The body of a request: read within its bounds, and made into pairs. A body is a pairs file, or the same as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from edge_cmcl import tensors
from edge_cmcl.data import Pairs, pairs_in_memory
from edge_cmcl.data.pairs_format import FORMAT, VERSION
from edge_cmcl.errors import DataError
from edge_cmcl.service.problems import Problem
from edge_cmcl.service.settings import BODY_S

JSON = "application/json"
BINARY = "application/octet-stream"
WHERE = "the request"
SIDES = ("query", "gallery")
_KEYS = ("windows", "valid", "time", "rate_hz", "units")

Arrays = dict[str, NDArray[Any]]


def kind_of(request: Request) -> str:
    """Return the media type of the body.

    Raises:
        Problem: 415, it is neither `JSON` nor `BINARY`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, BINARY):
        hint = f"name it in Content-Type; {BINARY} is a pairs file as it is"
        expected = f"{JSON} or {BINARY}"
        raise Problem(415, "the body is of a kind that is not read here", expected=expected, got=kind, hint=hint)
    return kind


def largest(kind: str, most: int) -> int:
    """Return how large a body of a kind may be: as JSON a quarter, since what it is made into takes many times that."""
    return most // 4 if kind == JSON else most


def size_of(request: Request, most: int) -> int:
    """Return how many bytes the body may have: those declared, or `most` where nothing is.

    Raises:
        Problem: 413, more than `most` are declared.
    """
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else most
    if size > most:
        raise _too_large(most, f"{size} bytes")
    return size


async def read_body(request: Request, most: int) -> bytes:
    """Return the body, of at most `most` bytes.

    Raises:
        Problem: 413, it is larger; 408, it did not come in time.
    """
    try:
        return await asyncio.wait_for(_read(request, most), BODY_S)
    except asyncio.TimeoutError:
        raise Problem(408, "the body did not come in time", expected=f"all of it within {BODY_S:.0f} s") from None


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise _too_large(most, "more")
    return bytes(body)


def _too_large(most: int, got: str) -> Problem:
    hint = "send fewer windows at a time, or start the service with a larger --max-body"
    return Problem(413, "the body is too large", expected=f"at most {most} bytes", got=got, hint=hint)


def pairs_of(kind: str, body: bytes) -> Pairs:
    """Return the pairs in a body of one recording.

    Raises:
        DataError: it breaks a rule of the format.
        Problem: 400, it is not JSON.
    """
    if kind == JSON:
        return pairs_in_memory(WHERE, *_from_document(_parsed(body), WHERE))
    return pairs_in_memory(WHERE, *tensors.from_bytes_with_metadata(body, WHERE))


def sides_of(kind: str, body: bytes) -> tuple[Pairs, Pairs]:
    """Return query and gallery of a body of two recordings.

    As JSON they are the values of two keys. In binary every tensor's name begins with "query." or "gallery."; a name of
    the metadata may, and what does not is for both.

    Raises:
        DataError, Problem: as `pairs_of`.
    """
    sides = _sides_from_document(_parsed(body)) if kind == JSON else _sides_from_bytes(body)
    query, gallery = (pairs_in_memory(f"{side} of {WHERE}", *sides[side]) for side in SIDES)
    return query, gallery


def _sides_from_document(document: Any) -> dict[str, tuple[Arrays, dict[str, str]]]:
    if not isinstance(document, dict) or set(document) != set(SIDES):
        raise _not_what("the body", "an object with query and gallery", document)
    return {side: _from_document(document[side], f"{side} of {WHERE}") for side in SIDES}


def _sides_from_bytes(body: bytes) -> dict[str, tuple[Arrays, dict[str, str]]]:
    arrays, metadata = tensors.from_bytes_with_metadata(body, WHERE)
    for name in arrays:
        if not name.startswith(tuple(f"{side}." for side in SIDES)):
            expected = "names that begin with query. or gallery."
            raise DataError(f"{WHERE} has a tensor of no side", expected=expected, got=name)
    common = {name: text for name, text in metadata.items() if "." not in name}
    return {side: (_of(side, arrays), {**common, **_of(side, metadata)}) for side in SIDES}


def _of(side: str, named: dict[str, Any]) -> dict[str, Any]:
    start = f"{side}."
    return {name.removeprefix(start): value for name, value in named.items() if name.startswith(start)}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "the body is not JSON", expected="one JSON object", got=str(error)[:200]) from error


def _from_document(document: Any, where: str) -> tuple[Arrays, dict[str, str]]:
    """Return the tensors and metadata of a pairs file that a JSON object stands for."""
    if not isinstance(document, dict) or "windows" not in document or not set(document) <= set(_KEYS):
        raise _not_what(where, f"an object with windows and, where known, {', '.join(_KEYS[1:])}", document)
    for key in set(document) - {"time"}:
        if not isinstance(document[key], dict):
            raise _not_what(f"{key} of {where}", "an object with a key for each sensor", document[key])
    arrays = {name: _numbers(f"{where}: {name}", rows, np.float32) for name, rows in document["windows"].items()}
    for name, flags in document.get("valid", {}).items():
        arrays[f"valid.{name}"] = _flags(f"{where}: valid of {name}", flags)
    if "time" in document:
        arrays["time"] = _numbers(f"{where}: time", document["time"], np.float64)
    described = {key: json.dumps(document[key]) for key in ("rate_hz", "units") if key in document}
    return arrays, {"format": FORMAT, "version": VERSION, **described}


def _numbers(where: str, values: Any, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    array = _array(where, values)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where} holds something else than numbers", expected="nested lists of numbers")
    with np.errstate(over="ignore"):  # an infinity is refused as such
        return array.astype(dtype)


def _flags(where: str, values: Any) -> NDArray[np.uint8]:
    array = _array(where, values)
    if array.dtype.kind not in "biu" or (array.size and (array.min() < 0 or array.max() > 1)):
        raise DataError(f"{where} is wrong", expected="0 or 1 for each window", got=str(values)[:80])
    return array.astype(np.uint8)


def _array(where: str, values: Any) -> NDArray[Any]:
    if not isinstance(values, list):
        raise _not_what(where, "nested lists of numbers", values)
    try:
        return np.asarray(values)
    except ValueError as error:
        expected = "lists of one length at each depth"
        raise DataError(f"{where} is not regular", expected=expected, got=str(error)[:200]) from error


def _not_what(where: str, expected: str, got: Any) -> DataError:
    shown = f"an object with {', '.join(map(str, got))}" if isinstance(got, dict) else str(got)
    return DataError(f"{where} is not what is read here", expected=expected, got=shown[:80])
