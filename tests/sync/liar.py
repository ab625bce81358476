"""A web server that answers as a test tells it, for lies no real registry tells; it remembers what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Request(BaseHTTPRequestHandler):
    """One request; `respond` and `stream` answer it."""

    protocol_version = "HTTP/1.1"
    server: Liar

    def respond(self, status: int, body: bytes = b"", **headers: Any) -> None:
        self.send_response(status)
        given = {name.replace("_", "-").lower(): str(value) for name, value in headers.items()}
        for name, value in {"content-length": str(len(body)), **given}.items():
            if value != "None":
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, status: int, piece: bytes, **headers: Any) -> None:
        """Send `piece` again and again, as chunks, until the client is gone."""
        self.respond(status, transfer_encoding="chunked", content_length=None, **headers)
        with suppress(OSError):
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.server.streamed += len(piece)

    def _handle(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers.items())))
        self.rfile.read(int(self.headers.get("content-length") or 0))
        with suppress(OSError):
            self.server.answer(self)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Liar(ThreadingHTTPServer):
    """The server.

    Attributes:
        asked: method, path and headers of every request.
        streamed: bytes that `Request.stream` sent.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], None]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.streamed = 0

    @property
    def url(self) -> str:
        return f"oci://127.0.0.1:{self.server_port}/x"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def lying(answer: Callable[[Request], None], certificates: Path | None = None) -> Iterator[Liar]:
    """Let a liar answer, with TLS where there is a folder of `write_certificates`."""
    server = Liar(answer)
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
