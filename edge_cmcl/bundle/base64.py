"""Base64 with one spelling per value when written, and no tolerance when read (RFC 4648)."""

from __future__ import annotations

import base64
import binascii

from edge_cmcl.errors import FormatError

_URL_SAFE = str.maketrans("-_", "+/")


def encode(data: bytes) -> str:
    """Return `data` as standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str, name: str) -> bytes:
    """Return the bytes of base64 in either alphabet (DSSE asks readers for both); `name` says in errors whose it is.

    Raises:
        FormatError: it is not base64, lacks its padding, or has bits beyond its end.
    """
    standard = text.translate(_URL_SAFE)
    try:
        data = base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{name} is not base64", expected="RFC 4648 with padding", got=str(error)) from None
    if encode(data) != standard:
        raise FormatError(f"{name} is not base64", expected="no bits beyond the end", got="another spelling")
    return data
