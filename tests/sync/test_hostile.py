"""A registry that lies, floods or leads astray: a clear error each time, in bounded memory; no credentials leak."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from liar import Request, lying
from servers import write_certificates
from sync_samples import blob_of

from edge_cmcl.bundle.limits import MAX_BUNDLE_BYTES, MAX_DOCUMENT_BYTES
from edge_cmcl.bundle.media_types import BUNDLE, GENERATION, OCI_MANIFEST, SKETCH
from edge_cmcl.errors import DigestError, EdgeCmclError, FormatError, RemoteError
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.remote import Remote
from edge_cmcl.sync.settings import LinkSettings

SETTINGS = LinkSettings(plain_http=True, patience_s=0.5)
BLOB = blob_of(b"what was promised")
OTHER = "sha256:" + "0" * 64
PIECE = b"x" * 65536

pytestmark = pytest.mark.usefixtures("credentials")


def manifest_of(size: int, count: int = 1, **fields: Any) -> bytes:
    layer = {"mediaType": SKETCH, "size": size}
    layers = [{**layer, "digest": f"sha256:{number:064x}"} for number in range(count)]
    config = {"mediaType": GENERATION, "digest": OTHER, "size": 2}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": BUNDLE,
        "config": config,
        "layers": layers,
    }
    return json.dumps({**document, **fields}).encode()


def serves(data: bytes, digest: str = "", kind: str = OCI_MANIFEST) -> Callable[[Request], None]:
    """Answer every request for a manifest with `data`."""
    shown = digest or blob_of(data).digest
    return lambda request: request.respond(200, data, content_type=kind, docker_content_digest=shown)


LIES: dict[str, tuple[Callable[[Request], None], Callable[[Remote, Path], object], type[EdgeCmclError], str]] = {
    "another manifest than its digest says": (
        serves(b"{}"),
        lambda remote, path: remote.manifest(OTHER),
        DigestError,
        "is not what it should be",
    ),
    "another manifest than the answer says": (
        serves(b"{}", OTHER),
        lambda remote, path: remote.manifest("tag"),
        DigestError,
        "is not what it should be",
    ),
    "another digest than asked for": (
        serves(b"{}", OTHER),
        lambda remote, path: remote.head(BLOB.digest),
        DigestError,
        "is not what it should be",
    ),
    "no digest at all": (
        serves(b"{}", "../../etc/passwd"),
        lambda remote, path: remote.head("tag"),
        FormatError,
        "breaks its format",
    ),
    "a manifest that never ends": (
        lambda request: request.stream(200, PIECE),
        lambda remote, path: remote.manifest("tag"),
        FormatError,
        "breaks its format",
    ),
    "a manifest that claims to be huge": (
        lambda request: request.respond(200, b"", content_length=10**15, docker_content_digest=OTHER),
        lambda remote, path: remote.head("tag"),
        FormatError,
        "breaks its format",
    ),
    "a manifest with a length that is no number": (
        lambda request: request.respond(200, b"", content_length=None, docker_content_digest=OTHER, connection="close"),
        lambda remote, path: remote.head("tag"),
        DigestError,
        "is not what it should be",
    ),
    "a compressed manifest": (
        lambda request: request.respond(200, b"\x1f\x8b", content_encoding="gzip"),
        lambda remote, path: remote.manifest("tag"),
        FormatError,
        "breaks its format",
    ),
    "a blob that never ends": (
        lambda request: request.stream(200, PIECE),
        lambda remote, path: remote.download(BLOB, path / "blob"),
        DigestError,
        "is longer than it should be",
    ),
    "a blob that claims to be huge": (
        lambda request: request.respond(200, b"", content_length=10**15),
        lambda remote, path: remote.download(BLOB, path / "blob"),
        DigestError,
        "is not what it should be",
    ),
    "another blob of the right size": (
        lambda request: request.respond(200, b"?" * BLOB.size),
        lambda remote, path: remote.download(BLOB, path / "blob"),
        DigestError,
        "is not what it should be",
    ),
    "another part of a blob": (
        lambda request: request.respond(206, b"?" * BLOB.size, content_range="bytes 5-20/30"),
        lambda remote, path: remote.download(BLOB, path / "blob"),
        FormatError,
        "breaks its format",
    ),
    "a list of tags that is no JSON": (
        lambda request: request.respond(200, b"<html>Welcome to the hotel</html>"),
        lambda remote, path: remote.tags(),
        FormatError,
        "breaks its format",
    ),
    "a list of tags that is deep": (
        lambda request: request.respond(200, b"[" * 100_000),
        lambda remote, path: remote.tags(),
        FormatError,
        "breaks its format",
    ),
    "tags with paths in them": (
        lambda request: request.respond(200, json.dumps({"tags": ["ok", "../../etc/passwd"]}).encode()),
        lambda remote, path: remote.tags(),
        FormatError,
        "breaks its format",
    ),
    "pages of tags in a circle": (
        lambda request: request.respond(200, b'{"tags": ["a"]}', link='</v2/x/tags/list?n=1>; rel="next"'),
        lambda remote, path: remote.tags(),
        FormatError,
        "breaks its format",
    ),
    "redirects in a circle": (
        lambda request: request.respond(307, location=request.path),
        lambda remote, path: remote.manifest("tag"),
        RemoteError,
        "sends us in circles",
    ),
    "a redirect to a file": (
        lambda request: request.respond(307, location="file:///etc/passwd"),
        lambda remote, path: remote.manifest("tag"),
        RemoteError,
        "a place without TLS",
    ),
    "a redirect to nowhere": (
        lambda request: request.respond(307, location="http://[::1:80/x"),
        lambda remote, path: remote.manifest("tag"),
        RemoteError,
        "is away",
    ),
    "no place to send an upload to": (
        lambda request: request.respond(404 if request.command == "HEAD" else 202),
        lambda remote, path: _upload(remote, path),
        FormatError,
        "breaks its format",
    ),
    "an upload that is never taken": (
        lambda request: request.respond({"POST": 202}.get(request.command, 404), location="/v2/x/blobs/uploads/1"),
        lambda remote, path: _upload(remote, path),
        RemoteError,
        "loses every upload",
    ),
    "a blob that is said to be another one": (
        lambda request: request.respond(
            {"POST": 202, "PUT": 400}.get(request.command, 404),
            b'{"errors": [{"code": "DIGEST_INVALID"}]}' if request.command == "PUT" else b"",
            location="/v2/x/blobs/uploads/1",
        ),
        lambda remote, path: _upload(remote, path),
        DigestError,
        "got another blob than we sent",
    ),
    "a refusal with an endless reason": (
        lambda request: request.stream(403, PIECE),
        lambda remote, path: remote.tags(),
        RemoteError,
        "refuses GET",
    ),
    "errors that last": (
        lambda request: request.respond(503, b"{}", retry_after="never"),
        lambda remote, path: remote.tags(),
        RemoteError,
        "is away",
    ),
    "a wait of days": (
        lambda request: request.respond(429, retry_after=10**9),
        lambda remote, path: remote.tags(),
        RemoteError,
        "is away",
    ),
    "an index instead of a bundle": (
        serves(b"{}", kind="application/vnd.oci.image.index.v1+json"),
        lambda remote, path: fetch(remote, "tag", None, path / "pulled"),
        FormatError,
        "is no bundle",
    ),
    "an image of something else": (
        serves(manifest_of(1, artifactType="application/x")),
        lambda remote, path: fetch(remote, "tag", None, path / "pulled"),
        FormatError,
        "is something else",
    ),
    "a bundle larger than any": (
        serves(manifest_of(MAX_BUNDLE_BYTES // 10, count=11)),
        lambda remote, path: fetch(remote, "tag", None, path / "pulled", suffixes=()),
        FormatError,
        "offers too much",
    ),
    "a blob larger than any": (
        serves(manifest_of(2**40)),
        lambda remote, path: fetch(remote, "tag", None, path / "pulled", suffixes=()),
        FormatError,
        "breaks its format",
    ),
}


def _upload(remote: Remote, path: Path) -> None:
    (path / "source").write_bytes(b"what was promised")
    remote.upload(BLOB, path / "source")


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_a_clear_error_in_bounded_memory(lie: str, tmp_path: Path) -> None:
    answer, action, kind, words = LIES[lie]
    tracemalloc.start()
    try:
        with lying(answer) as liar, connect(liar.url, SETTINGS) as remote, pytest.raises(kind) as caught:
            action(remote, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert words in caught.value.message
    assert peak < 8 * MAX_DOCUMENT_BYTES
    assert not (tmp_path / "blob").exists() or (tmp_path / "blob").stat().st_size <= BLOB.size
    assert not (tmp_path / "pulled" / "index.json").exists()


def test_a_signature_of_another_manifest_is_refused(tmp_path: Path) -> None:
    bundle = manifest_of(1)
    foreign = manifest_of(1, subject={"mediaType": OCI_MANIFEST, "digest": OTHER, "size": 1})
    known = {blob_of(data).digest: data for data in (bundle, foreign)}

    def answer(request: Request) -> None:
        ref = request.path.rpartition("/")[2]
        serves(known.get(ref, foreign if ref.endswith(".sig") else bundle))(request)

    with (
        lying(answer) as liar,
        connect(liar.url, SETTINGS) as remote,
        pytest.raises(FormatError, match="is about another manifest"),
    ):
        fetch(remote, "tag", None, tmp_path / "pulled")


def test_credentials_do_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    data = b"what was promised"
    with lying(lambda request: request.respond(200, data)) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.server_port}/data"

        def answer(request: Request) -> None:
            if "Authorization" not in request.headers:
                request.respond(401, www_authenticate='Basic realm="x"')
            else:
                request.respond(307, location=place)

        with lying(answer) as liar, connect(liar.url, SETTINGS) as remote:
            remote.download(BLOB, tmp_path / "blob")
        assert [headers.get("Authorization", "") != "" for _, _, headers in liar.asked] == [False, True]
        ((_, path, headers),) = elsewhere.asked
        assert path == "/data"
        assert "authorization" not in {name.lower() for name in headers}


def test_tls_is_not_left_on_the_way(tmp_path: Path) -> None:
    write_certificates(tmp_path, "127.0.0.1")
    settings = LinkSettings(ca_file=tmp_path / "ca.crt")
    with lying(lambda request: request.respond(200, b"{}")) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.server_port}"

        def redirects(request: Request) -> None:
            request.respond(307, location=f"{place}/x")

        def asks_for_a_token(request: Request) -> None:
            request.respond(401, www_authenticate=f'Bearer realm="{place}/token"')

        for answer in (redirects, asks_for_a_token):
            with (
                lying(answer, tmp_path) as liar,
                connect(liar.url, settings) as remote,
                pytest.raises(RemoteError, match="a place without TLS"),
            ):
                remote.manifest("tag")
        assert elsewhere.asked == []


def test_an_upload_to_another_host_takes_no_credentials_along(tmp_path: Path) -> None:
    with lying(lambda request: request.respond(201)) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.server_port}/bucket?signed=1"

        def answer(request: Request) -> None:
            if "Authorization" not in request.headers:
                request.respond(401, www_authenticate='Basic realm="x"')
            else:
                request.respond(202 if request.command == "POST" else 404, location=place)

        with lying(answer) as liar, connect(liar.url, SETTINGS) as remote:
            _upload(remote, tmp_path)
        ((method, path, headers),) = elsewhere.asked
    assert (method, path) == ("PUT", f"/bucket?signed=1&digest={BLOB.digest.replace(':', '%3A')}")
    assert "authorization" not in {name.lower() for name in headers}


def test_a_token_is_fetched_where_the_registry_says_and_shown_to_it_alone() -> None:
    def answer(request: Request) -> None:
        realm = f"http://127.0.0.1:{request.server.server_port}/token"
        if request.path.startswith("/token"):
            request.respond(200, b'{"token": "abc"}')
        elif request.headers.get("Authorization") != "Bearer abc":
            request.respond(401, www_authenticate=f'Bearer realm="{realm}",service="here",scope="whatever"')
        else:
            request.respond(200, b'{"tags": ["a"]}')

    with lying(answer) as liar, connect(liar.url, SETTINGS) as remote:
        assert remote.tags() == ["a"]
        assert remote.tags() == ["a"]
    asked = [path for _, path, _ in liar.asked]
    assert asked[1] == "/token?scope=repository%3Ax%3Apull&service=here"
    assert len(asked) == 4
    assert liar.asked[1][2]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("answered", [b"[]", b'{"token": 5}', b'{"token": "a\\nb"}', b"x" * 100_000])
def test_a_token_that_is_none_is_refused(answered: bytes) -> None:
    def answer(request: Request) -> None:
        if request.path.startswith("/token"):
            request.respond(200, answered)
        else:
            request.respond(401, www_authenticate=f'Bearer realm="http://127.0.0.1:{request.server.server_port}/token"')

    with lying(answer) as liar, connect(liar.url, SETTINGS) as remote, pytest.raises(FormatError):
        remote.tags()


def test_what_fails_for_a_moment_is_tried_again_and_what_says_no_is_not() -> None:
    answers = iter([(503, {}), (429, {"retry_after": "0"}), (200, {})])

    def answer(request: Request) -> None:
        status, headers = next(answers)
        request.respond(status, b'{"tags": ["a"]}', **headers)

    settings = LinkSettings(plain_http=True, patience_s=20)
    with lying(answer) as liar, connect(liar.url, settings) as remote:
        assert remote.tags() == ["a"]
    assert len(liar.asked) == 3
    with lying(lambda request: request.respond(403)) as liar, connect(liar.url, settings) as remote:
        with pytest.raises(RemoteError, match="refuses"):
            remote.tags()
        assert len(liar.asked) == 1


def test_a_server_that_falls_silent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_cmcl.sync.web.SILENCE_S", 0.3)
    silent = threading.Event()
    with lying(lambda request: silent.wait(10) and None) as liar, connect(liar.url, SETTINGS) as remote:
        began = time.monotonic()
        with pytest.raises(RemoteError, match="is away") as caught:
            remote.tags()
        silent.set()
    assert time.monotonic() - began < 3
    assert "ReadTimeout" in caught.value.got


def test_tags_come_from_every_page() -> None:
    def answer(request: Request) -> None:
        first = "last=" not in request.path
        more = {"link": '</v2/x/tags/list?n=1&last=b>; rel="next"'} if first else {}
        request.respond(200, json.dumps({"tags": ["b", "a"] if first else ["c"]}).encode(), **more)

    with lying(answer) as liar, connect(liar.url, SETTINGS) as remote:
        assert remote.tags() == ["a", "b", "c"]


def test_a_registry_without_tls_is_not_spoken_to_unless_asked() -> None:
    with (
        lying(lambda request: request.respond(200, b'{"tags": []}')) as liar,
        connect(liar.url, LinkSettings(patience_s=0.2)) as remote,
        pytest.raises(RemoteError, match="is away"),
    ):
        remote.tags()
    assert liar.asked == []
