"""What turns a valid input into a hostile one: every mutation is a function of a random generator and the bytes.

Blind changes of bytes rarely get past a length or a checksum, so each kind of document also has a mutation that changes
what is inside and mends what is around it.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

MAX_BYTES = 1 << 16
"""Inputs stay below 64 kB: the limit of one second (targets.py) is for as many."""

_NUMBERS = (0, 1, -1, 2, 16, 255, 4096, 65536, 1 << 31, 1 << 32, (1 << 53) - 1, 1 << 53, 1 << 63, 1 << 64, 10**40)
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    *(0.5, 1e-300, 1e300, -0.0, True, False, None, "", "a", "\x00", "\ud800", "\u202e", "sha256:" + 64 * "0", "../x"),
    *({}, [], [[]], {"": None}, "x" * 300, ["x"] * 70, {str(n): n for n in range(70)}),
)


def blind(chance: random.Random, data: bytes) -> bytes:
    """Flip, overwrite, insert, remove, repeat or cut bytes somewhere."""
    out = bytearray(data or b"\0")
    at = chance.randrange(len(out))
    end = min(len(out), at + chance.choice((1, 1, 2, 4, 16, 256)))
    kind = chance.randrange(6)
    if kind == 0:
        out[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        out[at] = chance.choice((0, 1, 9, 10, 32, 34, 91, 92, 123, 127, 128, 255, chance.randrange(256)))
    elif kind == 2:
        out[at:at] = chance.randbytes(chance.choice((1, 2, 8)))
    elif kind == 3:
        del out[at:end]
    elif kind == 4:
        out[at:at] = out[at:end] * chance.choice((1, 2, 8, 64, 1024))
    else:
        del out[at:]
    return bytes(out)


def words(*known: bytes) -> Mutation:
    """Return a mutation that writes one of the format's words somewhere."""

    def mutate(chance: random.Random, data: bytes) -> bytes:
        at, word = chance.randrange(len(data) + 1), chance.choice(known)
        return data[:at] + word * chance.choice((1, 1, 1, 2, 500)) + data[at + chance.choice((0, len(word))) :]

    return mutate


def in_json(chance: random.Random, data: bytes) -> bytes:
    """Change one value or key anywhere in a JSON document, and write it as canonical JSON again."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return blind(chance, data)
    return dumped(changed(chance, document))


def dumped(document: Any) -> bytes:
    """Return canonical JSON; what UTF-8 cannot hold stays escaped."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with suppress(UnicodeEncodeError):
        return text.encode()
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def changed(chance: random.Random, document: Any) -> Any:
    """Return `document` with one place changed: another value, or a key or an element removed, added or repeated."""
    places = list(_places(document))
    if not places:
        return chance.choice(_VALUES)
    container, key = chance.choice(places)
    kind = chance.randrange(8)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, list):
        container[key:key] = [container[key]] * chance.choice((1, 2, 70))
    elif kind == 2 and isinstance(container, dict):
        container[chance.choice(("", "later", "schema", "__metadata__", str(key).upper()))] = container[key]
    elif kind == 3:
        container[key] = _another(chance, places)
    else:
        container[key] = _near(chance, container[key]) if kind < 6 else chance.choice(_VALUES)
    return document


def in_base64(chance: random.Random, data: bytes) -> bytes:
    """Change what a base64 string somewhere in a JSON document holds, or only how it is spelt."""
    try:
        document = json.loads(data)
        container, key = chance.choice([(c, k) for c, k in _places(document) if _is_base64(c[k])])
    except (ValueError, RecursionError, IndexError):
        return blind(chance, data)
    text = container[key]
    inside = base64.b64decode(text)
    other = in_json(chance, inside) if inside[:1] == b"{" else blind(chance, inside)
    respelt = (text.replace("+", "-").replace("/", "_"), text.rstrip("="), text + "=", text[:-1] + "A", text + "\n")
    container[key] = base64.b64encode(other).decode() if chance.random() < 0.7 else chance.choice(respelt)
    return dumped(document)


def _is_base64(value: Any) -> bool:
    """Whether it is base64 of as many bytes as a key has, or more."""
    try:
        return isinstance(value, str) and len(base64.b64decode(value, validate=True)) >= 32
    except ValueError:
        return False


def in_safetensors(chance: random.Random, data: bytes) -> bytes:
    """Change the header of a safetensors file, or the JSON inside its metadata, and mend the header's length."""
    try:
        start = 8 + struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8:start])
        metadata = header["__metadata__"]
        key = chance.choice(sorted(metadata))
        if chance.random() < 0.5:
            metadata[key] = dumped(changed(chance, json.loads(metadata[key]))).decode("utf-8", "replace")
        else:
            header = changed(chance, header)
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError, struct.error):
        return blind(chance, data)
    text = dumped(header)
    text += b" " * (-len(text) % 8)
    length = len(text) if chance.random() < 0.95 else chance.choice((0, 1, 8, 1 << 20, 1 << 40, (1 << 64) - 1))
    return struct.pack("<Q", length) + text + data[start:]


def in_tar(chance: random.Random, data: bytes) -> bytes:
    """Change the fields of one tar header, and mend its checksum."""
    out = bytearray(data)
    heads = [at for at in range(0, len(out) - 511, 512) if out[at + 257 : at + 262] == b"ustar"]
    if not heads:
        return blind(chance, data)
    at = chance.choice(heads)
    start, size = chance.choice(((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
    numbers = (b"\x80" + bytes(size - 1), b"\xff" * size, b"7" * size, b"0" * size, b"-1", b"x path=../../y\n")
    field = chance.choice(
        (*numbers, chance.randbytes(1), bytes(out[at + start : at + start + size]) + b"/", b"5", b"x")
    )
    out[at + start : at + start + size] = field[:size].ljust(size, b"\0")
    block = bytes(out[at : at + 512])
    with suppress(ValueError):
        out[at + 148 : at + 156] = b"%06o\0 " % tarfile.calc_chksums(block)[0]  # type: ignore[attr-defined]
    return bytes(out)


def mutated(chance: random.Random, seeds: Sequence[bytes], mutations: Sequence[Mutation]) -> bytes:
    """Return one of `seeds` after one to eight of `mutations`, at most 64 kB."""
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        data = chance.choice(mutations)(chance, data)[:MAX_BYTES]
    return data


def _places(node: Any) -> list[tuple[Any, Any]]:
    places, waiting = [], [node]
    while waiting:
        found = waiting.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
        places += [(found, key) for key in keys]
        waiting += [found[key] for key in keys]
    return places


def _another(chance: random.Random, places: Sequence[tuple[Any, Any]]) -> Any:
    """Return a copy of a value from elsewhere in the document."""
    container, key = chance.choice(places)
    return json.loads(json.dumps(container[key]))


def _near(chance: random.Random, value: Any) -> Any:
    """Return a value of the same type that is nearly the same."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        half = value / 2 if abs(value) < 1 << 64 else 0.5
        return chance.choice((value + 1, value - 1, -value, value * 2, half, str(value), *_NUMBERS))
    if isinstance(value, str):
        return blind(chance, value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return [value] if chance.random() < 0.5 else value
