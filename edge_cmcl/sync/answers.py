"""What the answers of a registry mean that are no success: worth another try, a refusal, a full disk, nonsense."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from edge_cmcl.bundle.canonical import parse
from edge_cmcl.errors import FormatError, RemoteError
from edge_cmcl.sync.link import AwayError

_MAX_REASON_BYTES = 8192
_MAX_WORDS = 300
_MAX_RETRY_AFTER_S = 3600.0
_FULL = ("no space left", "quota", "disk full", "insufficient storage", "'err': 28}", "'err': 122}")
"""In words; the last two are how distribution 2.8 tells ENOSPC and EDQUOT where it could not even begin an upload."""


def refusal(response: httpx.Response, method: str, name: str) -> Exception:
    """Return what an answer that nobody accepts means."""
    status = response.status_code
    reason = f"{status} {response.reason_phrase}".strip()
    words = _all_words_of(response)
    said, full = _shortened(words), status == 507 or any(word in words.lower() for word in _FULL)
    if full:
        hint = "free space at the registry; the same command goes on where this one stopped"
        return RemoteError(f"{name} is full", expected="space", got=f"{reason} {said}", hint=hint)
    if status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        return AwayError(f"it answers {reason} {said}".strip(), after_s=_retry_after(response))
    if status == 401:
        return unwelcome(name, f"{reason} {said}")
    hint = "ask whoever runs the registry whether this user may do that" if status in (403, 405) else ""
    return RemoteError(f"{name} refuses {method}", expected="success", got=f"{reason} {said}", hint=hint)


def words_of(response: httpx.Response) -> str:
    """Return the words of an error as registries write them, shortened; "" where there are none."""
    return _shortened(_all_words_of(response))


def _shortened(words: str) -> str:
    """Leave out the middle of a long text: a path before the reason, as a rule."""
    return words if len(words) <= _MAX_WORDS else f"{words[: _MAX_WORDS // 2]} ... {words[-_MAX_WORDS // 2 :]}"


def _all_words_of(response: httpx.Response) -> str:
    data = bytearray()
    with suppress(httpx.HTTPError, httpx.StreamError):
        for piece in response.iter_raw(1024):
            data += piece
            if len(data) > _MAX_REASON_BYTES:
                break
    try:
        error = json.loads(data)["errors"][0]
        words = [str(error.get(key) or "") for key in ("code", "message", "detail")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    return " ".join(" ".join(words).split())


def failure(error: httpx.TransportError | httpx.StreamError, name: str) -> Exception:
    """Return what a broken connection means: worth another try, unless the other side is not whom it says."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return RemoteError(
            f"{name} does not prove who it is",
            expected="a certificate that a trusted authority signed for this host, valid now",
            got=getattr(cause, "verify_message", "") or str(cause),
            hint="name the certificate of its authority in SSL_CERT_FILE; a wrong clock here has this effect, too",
        )
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return nonsense(name, "an address or header in an answer", "http", str(error)[:200])
    return AwayError(f"{type(error).__name__}: {error}".removesuffix(": "))


def nonsense(name: str, what: str, expected: str, got: str) -> FormatError:
    """Return the error for an answer of the registry `name` that breaks the protocol."""
    hint = "something else than a registry answers there, or it is damaged"
    return FormatError(f"{name}: {what} breaks its format", expected=expected, got=got, hint=hint)


def unwelcome(name: str, got: str) -> RemoteError:
    """Return the error for credentials that are missing or refused."""
    hint = "set EDGE_CMCL_REGISTRY_USER and EDGE_CMCL_REGISTRY_PASSWORD, or use `docker login`"
    return RemoteError(f"{name} does not let us in", expected="valid credentials", got=got, hint=hint)


def parse_json(data: bytes, name: str, what: str) -> Any:
    """Return a JSON document of the registry `name`.

    Raises:
        FormatError: it is none, or has more values than any document may have.
    """
    try:
        return parse(data, what)
    except FormatError as error:
        raise nonsense(name, what, error.expected, error.got) from error


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")[:64]
    seconds = 0.0
    with suppress(ValueError, OverflowError, TypeError):
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(0.0, seconds), _MAX_RETRY_AFTER_S)
