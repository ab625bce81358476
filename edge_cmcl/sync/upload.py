"""Blobs to a registry: small ones in one request, others in chunks that can be gone on with after a cut.

Debian's docker-registry (distribution 2.8), measured: what arrived of a chunk before a cut is kept, and then the
upload cannot be gone on with, because its address holds a signed offset that is no longer right. So on a slow link a
chunk is one TLS record, which a registry gets whole or not at all; on a fast link, where waiting for the answer to each
would take most of the time and beginning again costs little, chunks grow.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.reading import missing_blob, open_regular
from edge_cmcl.durable import storage_errors
from edge_cmcl.errors import DigestError, RemoteError
from edge_cmcl.sync.answers import nonsense, words_of
from edge_cmcl.sync.link import Link
from edge_cmcl.sync.sessions import Sessions
from edge_cmcl.sync.web import Web

RECORD_BYTES = 1 << 14
"""The most that TLS puts into one record (RFC 8446, 5.1)."""
MAX_CHUNK_BYTES = 4 << 20
_LEAST_WAIT_S = 0.01
_MAX_STARTS = 20
_MAX_WRONG = 2
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,12})")
_GONE = (400, 404, 416)


@dataclass
class Session:
    """An upload that the registry knows.

    Attributes:
        url: where the next bytes go.
        offset: bytes that the registry has acknowledged.
        sure: whether nothing failed since.
        least: smallest chunk that the registry takes, other than the last.
    """

    url: str
    offset: int = 0
    sure: bool = True
    least: int = 0


class Chunks:
    """How large chunks are: as small as they can be without waiting for answers longer than sending.

    Args:
        most: bytes that may be sent at once.

    Attributes:
        size: bytes of the next one.
    """

    def __init__(self, most: float = MAX_CHUNK_BYTES) -> None:
        self.size = RECORD_BYTES
        self._most = max(RECORD_BYTES, int(min(most, MAX_CHUNK_BYTES)))

    def took(self, count: int, seconds: float, wait_s: float) -> None:
        """Note what a chunk of `count` bytes took, where a request without one takes `wait_s`."""
        wait_s = max(wait_s, _LEAST_WAIT_S)
        sending = seconds - wait_s
        if sending < wait_s and count == self.size:
            self.size = min(2 * self.size, self._most)
        elif sending > 4 * wait_s:
            self.size = max(self.size // 2, RECORD_BYTES)

    def failed(self) -> None:
        """After a cut, be careful again."""
        self.size = RECORD_BYTES


class Upload:
    """Sends one blob to one repository, step by step; a step that fails may be called again.

    Args:
        web: the connection.
        link: patience and caps.
        uploads: path at the registry that begins an upload.
        sessions: where unfinished uploads are remembered.
        chunks: how large chunks are, shared by all blobs of a connection.
        blob: what is sent.
        file: where it lies, opened.
        has: asks whether the registry has it: of a failure, the answer alone may be what was lost.
    """

    def __init__(
        self,
        web: Web,
        link: Link,
        uploads: str,
        sessions: Sessions,
        chunks: Chunks,
        blob: Descriptor,
        file: BinaryIO,
        has: Callable[[Descriptor], bool],
    ) -> None:
        self._web, self._link, self._uploads = web, link, uploads
        self._sessions, self._chunks = sessions, chunks
        self._blob, self._file, self._has = blob, file, has
        self._session = self._kept()
        self._starts = self._wrong = 0

    @property
    def acknowledged(self) -> int:
        """Bytes that the registry says it has."""
        return self._session.offset if self._session is not None else 0

    def step(self) -> bool:
        """Send one chunk, after whatever is needed to know where to go on; return whether it was the last.

        Raises:
            AwayError: it may work later.
            RemoteError: the registry refuses, is full, or loses every upload.
            DigestError: it says that what it got is another blob.
        """
        if self._session is not None and not self._session.sure:
            self._chunks.failed()
            if self._has(self._blob):
                return self._finished()
            self._session = self._asked(self._session)
        session = self._session = self._session or self._begun()
        count = min(max(self._chunks.size, session.least), self._blob.size - session.offset)
        data = self._read(session.offset, count)
        self._link.send(count)
        session.sure = False
        began = time.monotonic()
        last = session.offset + count == self._blob.size
        taken = self._completed(session, data) if last else self._patched(session, data)
        self._chunks.took(count, time.monotonic() - began, self._web.wait_s)
        if not taken:
            self._session = None
            self._sessions.drop(self._blob.digest)
            return False
        return self._finished() if last else False

    def _begun(self) -> Session:
        self._starts += 1
        if self._starts > _MAX_STARTS:
            raise RemoteError(
                f"{self._link.name} loses every upload of blob {self._blob.digest[:19]}",
                expected="an upload that gets through",
                got=f"{_MAX_STARTS} that were cut off",
                hint="try again on a better link",
            )
        with self._web.open("POST", self._uploads, (202,), body=b"", scope="pull,push") as response:
            url, least = self._next(response), response.headers.get("oci-chunk-min-length", "")
        return Session(url, least=min(int(least[:9]), 1 << 28) if least.isascii() and least.isdigit() else 0)

    def _asked(self, session: Session) -> Session | None:
        """Return the session as the registry knows it; None where it does not."""
        with self._web.open("GET", session.url, (200, 204, *_GONE), scope="pull,push") as response:
            found = _RANGE.fullmatch(response.headers.get("range", "")[:64])
            if response.status_code in _GONE or found is None:
                return None
            offset = int(found[1]) + 1 if int(found[1]) else 0
            url = self._next(response) if "location" in response.headers else session.url
        return Session(url, offset, least=session.least) if offset <= self._blob.size else None

    def _patched(self, session: Session, data: bytes) -> bool:
        end = session.offset + len(data)
        headers = self._headers(data) | {"Content-Range": f"{session.offset}-{end - 1}"}
        with self._web.open(
            "PATCH", session.url, (202, 204, *_GONE), headers=headers, body=data, scope="pull,push"
        ) as response:
            if response.status_code in _GONE:
                return False
            found = _RANGE.fullmatch(response.headers.get("range", "")[:64])
            session.url = self._next(response)
        if found is not None and int(found[1]) + 1 != end:
            return False
        session.offset, session.sure = end, True
        self._sessions.keep(self._blob.digest, {"url": session.url, "offset": end})
        return True

    def _completed(self, session: Session, data: bytes) -> bool:
        url = f"{session.url}{'&' if '?' in session.url else '?'}digest={self._blob.digest.replace(':', '%3A')}"
        headers = self._headers(data)
        with self._web.open("PUT", url, (201, 204, *_GONE), headers=headers, body=data, scope="pull,push") as response:
            if response.status_code not in _GONE:
                return True
            said = words_of(response)
        self._wrong += "DIGEST" in said
        if self._wrong > _MAX_WRONG:
            hint = "the registry or the link changes bytes: do not use it"
            raise DigestError(
                f"{self._link.name} got another blob than we sent", expected=self._blob.digest, got=said, hint=hint
            )
        return False

    def _headers(self, data: bytes) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}

    def _next(self, response: httpx.Response) -> str:
        place = response.headers.get("location", "")
        if not place or len(place) > 4096:
            raise nonsense(self._web.name, "the answer to an upload", "a Location", f"{len(place)} characters")
        return str(response.url.join(place))

    def _read(self, offset: int, count: int) -> bytes:
        with storage_errors(Path(str(self._file.name))):
            self._file.seek(offset)
            return self._file.read(count)

    def _kept(self) -> Session | None:
        kept = self._sessions.get(self._blob.digest) or {}
        url, offset = kept.get("url"), kept.get("offset")
        if not isinstance(url, str) or not isinstance(offset, int) or not 0 <= offset <= self._blob.size:
            return None
        return Session(url, offset, sure=False)

    def _finished(self) -> bool:
        self._sessions.drop(self._blob.digest)
        return True


def send_blob(
    make: Callable[[BinaryIO], Upload], link: Link, blob: Descriptor, path: Path, moved: Callable[[int], None]
) -> None:
    """Send the blob in the file `path` with the `Upload` that `make` returns; see `Remote.upload`.

    Raises:
        DigestError: the file is missing or has another size.
    """
    with open_regular(path, missing_blob(str(path.parent), blob.digest)) as file:
        size = os.fstat(file.fileno()).st_size
        if size != blob.size:
            got = f"{size} bytes"
            raise DigestError(f"blob {blob.digest} is damaged", expected=f"{blob.size} bytes", got=got)
        upload, told = make(file), 0
        while not link.step(f"cannot send blob {blob.digest[:19]}", upload.step):
            moved(max(0, upload.acknowledged - told))
            told = max(told, upload.acknowledged)
        moved(blob.size - told)
