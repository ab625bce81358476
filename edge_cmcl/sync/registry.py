"""A registry that speaks the OCI distribution protocol (specification 1.1), as far as Debian's docker-registry does."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import TAG, Descriptor
from edge_cmcl.bundle.media_types import OCI_INDEX, OCI_MANIFEST
from edge_cmcl.errors import DigestError, FormatError
from edge_cmcl.sync.address import Address
from edge_cmcl.sync.answers import nonsense, parse_json, words_of
from edge_cmcl.sync.link import AwayError, Link
from edge_cmcl.sync.partial import Partial, arrive
from edge_cmcl.sync.remote import BlobMissingError, Remote
from edge_cmcl.sync.sessions import Sessions
from edge_cmcl.sync.settings import LinkSettings
from edge_cmcl.sync.upload import Chunks, Upload, send_blob
from edge_cmcl.sync.web import PIECE_BYTES, Web

MAX_TAGS = 1 << 16
_PAGE = 1000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NEXT = re.compile(r'<([^<>]{1,2048})>\s*;\s*rel="?next"?')
_RANGE = re.compile(r"bytes (\d{1,12})-\d{1,12}/(\d{1,12}|\*)")
_ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}


class Registry(Remote):
    """One repository of a registry (see `Remote`).

    Args:
        address: of the repository.
        settings: limits, TLS, and where unfinished uploads are remembered.
    """

    def __init__(self, address: Address, settings: LinkSettings) -> None:
        self.name = address.url
        self.moved = lambda count: None
        self.link = Link(self.name, settings)
        self._web = Web(address, settings, self.link)
        self._root = f"/v2/{address.path}"
        self._sessions = Sessions(settings.work, self.name)
        self._chunks = Chunks(self.link.burst_bytes)

    def head(self, ref: str) -> Descriptor | None:
        """See `Remote.head`."""
        return self.link.step(f"cannot look up {ref[:80]}", lambda: self._head(ref))

    def _head(self, ref: str) -> Descriptor | None:
        with self._web.open("HEAD", self._manifest_path(ref), (200, 404), headers=_ACCEPT) as response:
            if response.status_code == 404:
                return None
            found, size = _claimed(response), response.headers.get("content-length", "")
        if not found or not size.isdigit():  # some proxies drop them
            data = self._manifest(ref)
            return None if data is None else self._descriptor(OCI_MANIFEST, digest_of(data), len(data))
        if ref.startswith("sha256:") and found != ref:
            raise self._lie(f"manifest {ref}", ref, found)
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        return self._descriptor(kind, found, int(size[:20]))

    def _descriptor(self, media_type: str, digest: str, size: int) -> Descriptor:
        if size > limits.MAX_DOCUMENT_BYTES:
            raise nonsense(self._web.name, "a manifest", f"at most {limits.MAX_DOCUMENT_BYTES} bytes", f"{size} bytes")
        try:
            return Descriptor(media_type=media_type, digest=digest, size=size)
        except ValidationError as error:
            got = f"{media_type[:80]!r}, {digest[:80]!r}"
            raise nonsense(self._web.name, "the answer about a manifest", "a media type and a sha256", got) from error

    def manifest(self, ref: str) -> bytes | None:
        """See `Remote.manifest`."""
        return self.link.step(f"cannot get the manifest {ref[:80]}", lambda: self._manifest(ref))

    def _manifest(self, ref: str) -> bytes | None:
        with self._web.open("GET", self._manifest_path(ref), (200, 404), headers=_ACCEPT) as response:
            if response.status_code == 404:
                return None
            data = self._web.read(response, limits.MAX_DOCUMENT_BYTES, f"the manifest {ref[:80]}")
            claimed = _claimed(response)
        found = digest_of(data)
        for expected in (ref if ref.startswith("sha256:") else "", claimed):
            if expected and found != expected:
                raise self._lie(f"manifest {ref[:80]}", expected, found)
        self.link.received += len(data)
        return data

    def tags(self) -> list[str]:
        """See `Remote.tags`."""
        found: set[str] = set()
        url: str | None = f"{self._root}/tags/list?n={_PAGE}"
        seen = set[str]()
        while url is not None:
            page = url
            names, url = self.link.step("cannot list the tags", partial(self._page, page))
            if url in seen or len(found) + len(names) > MAX_TAGS:
                expected = f"at most {MAX_TAGS} tags, each page once"
                raise nonsense(
                    self._web.name, "the list of tags", expected, "the same page again" if url in seen else "more"
                )
            seen.add(page)
            found.update(names)
        return sorted(found)

    def _page(self, url: str) -> tuple[list[str], str | None]:
        with self._web.open("GET", url, (200, 404)) as response:
            if response.status_code == 404:
                return [], None
            data = self._web.read(response, limits.MAX_DOCUMENT_BYTES, "the list of tags")
            following = _NEXT.search(response.headers.get("link", "")[:4096])
        answer = parse_json(data, self.name, "the list of tags")
        names = (answer.get("tags") or []) if isinstance(answer, dict) else None
        if not isinstance(names, list) or not all(isinstance(n, str) and TAG.fullmatch(n) for n in names):
            raise nonsense(self._web.name, "the list of tags", "a list of tags", repr(data[:80]))
        return names, (str(response.url.join(following[1])) if following else None)

    def has(self, blob: Descriptor) -> bool:
        """See `Remote.has`."""
        return self.link.step("cannot look up a blob", lambda: self._has(blob))

    def _has(self, blob: Descriptor) -> bool:
        with self._web.open("HEAD", self._blob_path(blob), (200, 404)) as response:
            return response.status_code == 200 and response.headers.get("content-length") in (None, str(blob.size))

    def upload(self, blob: Descriptor, path: Path) -> None:
        """See `Remote.upload`."""
        uploads = f"{self._root}/blobs/uploads/"

        def make(file: BinaryIO) -> Upload:
            return Upload(self._web, self.link, uploads, self._sessions, self._chunks, blob, file, self._has)

        send_blob(make, self.link, blob, path, self.moved)

    def download(self, blob: Descriptor, target: Path) -> None:
        """See `Remote.download`."""
        what = f"cannot get blob {blob.digest[:19]}"

        def receive(arriving: Partial) -> None:
            self.link.step(what, lambda: self._receive(arriving))

        arrive(blob, target, self.name, receive)

    def _receive(self, arriving: Partial) -> None:
        """Receive what is missing; a cut after some bytes is no failure, the next call goes on."""
        before = arriving.size
        headers = {"Range": f"bytes={before}-"} if before else {}
        try:
            with self._web.open("GET", self._blob_path(arriving.blob), (200, 206), headers=headers) as response:
                self._web.check_plain(response)
                if response.status_code == 200 and before:
                    arriving.restart()
                self._check_lengths(response, arriving)
                for piece in response.iter_raw(PIECE_BYTES):
                    self.link.receive(len(piece))
                    arriving.write(piece)
                    self.moved(len(piece))
        except AwayError:
            if arriving.size <= before:
                raise
        if arriving.size <= before and arriving.left:
            raise AwayError("it sent nothing")

    def _check_lengths(self, response: httpx.Response, arriving: Partial) -> None:
        """Refuse an answer that says itself that it is another part, or longer than what is missing."""
        found = _RANGE.fullmatch(response.headers.get("content-range", "")[:64])
        if response.status_code == 206 and (found is None or int(found[1]) != arriving.size):
            got = response.headers.get("content-range", "no Content-Range")[:80]
            raise nonsense(self._web.name, "part of a blob", f"bytes {arriving.size}-", got)
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) != arriving.left:
            raise self._lie(f"blob {arriving.blob.digest}", f"{arriving.left} bytes", f"{length[:20]} bytes")

    def put(self, ref: str, manifest: bytes, media_type: str) -> None:
        """See `Remote.put`."""
        self.link.step(f"cannot put the manifest {ref[:80]}", lambda: self._put(ref, manifest, media_type))

    def _put(self, ref: str, manifest: bytes, media_type: str) -> None:
        headers = {"Content-Type": media_type}
        self.link.send(len(manifest))
        with self._web.open(
            "PUT", self._manifest_path(ref), (200, 201, 400, 404), headers=headers, body=manifest, scope="pull,push"
        ) as response:
            if response.status_code >= 400:
                said = words_of(response)
                raise BlobMissingError(
                    f"{self.name} refuses the manifest {ref[:80]}",
                    expected="a registry that has its blobs and takes OCI manifests",
                    got=f"{response.status_code} {said}",
                )
            claimed = _claimed(response)
        if claimed and claimed != digest_of(manifest):
            raise self._lie(f"manifest {ref[:80]}", digest_of(manifest), claimed)

    def remove(self, tag: str) -> bool:
        """See `Remote.remove`. Many registries remove manifests alone, with all their tags: those keep the tag."""
        return self.link.step(f"cannot remove the tag {tag[:80]}", lambda: self._remove(tag))

    def _remove(self, tag: str) -> bool:
        refused = (400, 403, 404, 405, 501)
        with self._web.open("DELETE", self._manifest_path(tag), (200, 202, 204, *refused), scope="delete") as response:
            return response.status_code not in refused

    def settle(self) -> None:
        """See `Remote.settle`: a registry lists its tags by itself."""

    def close(self) -> None:
        """See `Remote.close`."""
        self._web.close()
        self._sessions.close()

    def _manifest_path(self, ref: str) -> str:
        if not (TAG.fullmatch(ref) or _DIGEST.fullmatch(ref)):
            raise FormatError(f"{ref[:140]!r} is neither a tag nor a digest", expected="a tag or sha256:HEX", got="")
        return f"{self._root}/manifests/{quote(ref, safe=':')}"

    def _blob_path(self, blob: Descriptor) -> str:
        return f"{self._root}/blobs/{blob.digest}"

    def _lie(self, what: str, expected: str, got: str) -> DigestError:
        hint = "the registry lies or is damaged: do not use it"
        return DigestError(f"{self.name}: {what} is not what it should be", expected=expected, got=got, hint=hint)


def _claimed(response: httpx.Response) -> str:
    return str(response.headers.get("docker-content-digest", ""))[:80]
