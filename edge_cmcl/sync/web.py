"""Requests to a registry over one kept connection: TLS, credentials, redirects; answers bounded, failures named.

Credentials go to the registry's own origin and, for a token, to the place it names; never to where it redirects. TLS is
never left on the way.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx

from edge_cmcl.bundle import limits
from edge_cmcl.errors import RemoteError, UsageError
from edge_cmcl.sync.address import Address
from edge_cmcl.sync.answers import failure, nonsense, parse_json, refusal, unwelcome
from edge_cmcl.sync.credentials import find_credentials, parse_challenge
from edge_cmcl.sync.link import AwayError, Link
from edge_cmcl.sync.settings import CONNECT_S, SILENCE_S, LinkSettings
from edge_cmcl.version import SOFTWARE

PIECE_BYTES = 1 << 16
_MAX_REDIRECTS = 5
_MAX_TOKEN_BYTES = 64 * 1024
_DOCUMENT_S = 120.0
_MAX_REST_BYTES, _REST_S = 16384, 2.0
_RESET_WHEN_CLOSED = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""What has not left this machine when its process ends is thrown away: a chunk that arrives whole, and whose answer
nobody reads, costs the upload of its blob."""

Body = bytes | Iterable[bytes] | None


class Web:
    """The connection to one registry.

    Args:
        address: of the registry.
        settings: TLS and limits.
        link: names the registry.

    Attributes:
        wait_s: seconds that a request without a body takes on a connection that stands, the last ones most.

    Raises:
        UsageError: http without TLS was not allowed, or `ca_file` cannot be read.
    """

    def __init__(self, address: Address, settings: LinkSettings, link: Link) -> None:
        self._address = address
        self.name = link.name
        plain = settings.plain_http
        self._plain = plain
        host = f"[{address.host}]" if ":" in address.host else address.host
        port = "" if address.port is None else f":{address.port}"
        self.origin = httpx.URL(f"{'http' if plain else 'https'}://{host}{port}")
        self.wait_s = 0.0
        self._connected = False
        self._credentials = find_credentials(address.host, address.port)
        self._authorization: str | None = None
        transport = httpx.HTTPTransport(
            verify=True if plain else _context(settings),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None),
            socket_options=[_RESET_WHEN_CLOSED],
        )
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        self._client = httpx.Client(transport=transport, timeout=timeout, follow_redirects=False)
        self._client.headers = httpx.Headers({"User-Agent": SOFTWARE.replace(" ", "/")})

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        accepted: Iterable[int],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        scope: str = "pull",
    ) -> Iterator[httpx.Response]:
        """Yield the answer to one request, its body unread, where its status is in `accepted`.

        Args:
            method: of HTTP.
            url: whole, or a path at the registry.
            accepted: statuses that are no error.
            headers: beside those of every request.
            body: bytes, or pieces of them that can be walked through again.
            scope: what a token has to allow: "pull" or "pull,push".

        Raises:
            AwayError: it may work later.
            RemoteError: the registry refuses, or is full.
        """
        try:
            with self._answer(method, self._whole(url), headers or {}, body, scope) as response:
                if response.status_code not in accepted:
                    raise refusal(response, method, self.name)
                yield response
        except httpx.InvalidURL as error:
            raise nonsense(self.name, "an address in an answer", "a URL", str(error)[:200]) from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise failure(error, self.name) from error

    def read(self, response: httpx.Response, most: int, what: str) -> bytes:
        """Return the body of an answer.

        Raises:
            FormatError: it is longer than `most` bytes, or compressed although we asked for it as it is.
        """
        self.check_plain(response)
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > most:
            raise nonsense(self.name, what, f"at most {most} bytes", f"{length[:20]} bytes")
        data, deadline = bytearray(), time.monotonic() + _DOCUMENT_S
        for piece in response.iter_raw(PIECE_BYTES):
            data += piece
            if len(data) > most:
                raise nonsense(self.name, what, f"at most {most} bytes", "more")
            if time.monotonic() > deadline:
                raise AwayError(f"{what} did not arrive within {_DOCUMENT_S:g} s")
        return bytes(data)

    def check_plain(self, response: httpx.Response) -> None:
        """Refuse an answer that is compressed: a few bytes could become any number."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise nonsense(
                self.name, "an answer", "an answer that is not compressed", f"Content-Encoding {encoding[:80]}"
            )

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _whole(self, url: str) -> httpx.URL:
        return self.origin.join(url)

    @contextmanager
    def _answer(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Body, scope: str
    ) -> Iterator[httpx.Response]:
        """Yield the answer at the end of redirects, credentials shown where they were asked for."""
        asked = False
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_place(url)
            response = self._send(method, url, headers, body)
            try:
                status = response.status_code
                if status == 401 and not asked and self._is_own(url):
                    asked = True
                    challenge = response.headers.get("www-authenticate", "")
                    self.read(response, limits.MAX_DOCUMENT_BYTES, "an error")
                    self._authorization = self._answer_to(challenge, scope)
                    continue
                if status in (307, 308) or (status in (301, 302, 303) and method in ("GET", "HEAD")):
                    url = url.join(response.headers.get("location", ""))
                    continue
                yield response
                return
            finally:
                _finish(response)
                self._client.cookies.clear()
        raise RemoteError(
            f"{self.name} sends us in circles",
            expected=f"at most {_MAX_REDIRECTS} redirects",
            got=f"the last one to {url.host}",
            hint="check the address, and the proxy before the registry if there is one",
        )

    def _send(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Body) -> httpx.Response:
        sent = {"Accept-Encoding": "identity", **headers}
        if self._authorization is not None and self._is_own(url):
            sent["Authorization"] = self._authorization
        request = self._client.build_request(method, url, headers=sent, content=body)
        began, connected = time.monotonic(), self._connected
        self._connected = False
        response = self._client.send(request, stream=True)
        self._connected = True
        if connected and not body:
            took = time.monotonic() - began
            self.wait_s = took if self.wait_s == 0 else (self.wait_s + took) / 2
        return response

    def _is_own(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self.origin.scheme, self.origin.host, self.origin.port)

    def _check_place(self, url: httpx.URL) -> None:
        if url.scheme == "https" or (url.scheme == "http" and self._plain):
            return
        raise RemoteError(
            f"{self.name} sends us to a place without TLS",
            expected="https",
            got=f"{url.scheme}://{url.host}",
            hint="the registry's own address in its configuration is wrong, or somebody is in between",
        )

    def _answer_to(self, challenge: str, scope: str) -> str:
        """Return what to show a registry that asks for credentials."""
        scheme, parameters = parse_challenge(challenge)
        if scheme == "basic" and self._credentials is not None and self._authorization is None:
            return self._credentials.basic()
        if scheme == "bearer" and "realm" in parameters:
            return "Bearer " + self._token(parameters, scope)
        raise unwelcome(self.name, "no user" if self._credentials is None else "the user and password were refused")

    def _token(self, parameters: Mapping[str, str], scope: str) -> str:
        realm = self._whole(parameters["realm"])
        self._check_place(realm)
        query = {"scope": f"repository:{self._address.path}:{scope}"}
        if "service" in parameters:
            query["service"] = parameters["service"]
        shown = {} if self._credentials is None else {"Authorization": self._credentials.basic()}
        request = self._client.build_request("GET", realm.copy_merge_params(query), headers=shown)
        response = self._client.send(request, stream=True)
        try:
            if response.status_code in (401, 403):
                raise unwelcome(self.name, "the place that gives out tokens refused")
            if response.status_code != 200:
                raise refusal(response, "GET", self.name)
            answer = parse_json(self.read(response, _MAX_TOKEN_BYTES, "a token"), self.name, "a token")
        finally:
            _finish(response)
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise nonsense(self.name, "a token", "a field token or access_token", type(token).__name__)
        return token


def _context(settings: LinkSettings) -> ssl.SSLContext:
    """Return a context that verifies: by the given file, else by SSL_CERT_FILE or the system's authorities."""
    chosen = settings.ca_file or os.environ.get("SSL_CERT_FILE")
    try:
        context = ssl.create_default_context(cafile=chosen)
    except (OSError, ssl.SSLError) as error:
        expected = "a file of certificates (PEM)"
        raise UsageError(f"cannot use the authorities in {chosen}", expected=expected, got=str(error)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _finish(response: httpx.Response) -> None:
    """Close an answer. What little is left of it is read first: a connection with unread bytes cannot be kept."""
    deadline, left = time.monotonic() + _REST_S, _MAX_REST_BYTES
    length = response.headers.get("content-length", "0")
    skip = response.is_stream_consumed or len(length) > len(str(left))
    with suppress(httpx.HTTPError, httpx.StreamError):
        for piece in () if skip else response.iter_raw(1024):
            left -= len(piece)
            if left < 0 or time.monotonic() > deadline:
                break
    response.close()
