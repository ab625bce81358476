"""`edge-cmcl serve`: the model of a device for other programs on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import show, told, warn
from edge_cmcl.cli.options import Json, Store, default_store, need_serve

app = typer.Typer()

PORT = 8765


@app.command(epilog="Example: edge-cmcl serve --socket /run/edge-cmcl/serve.sock")
def serve(
    socket: Annotated[
        Path | None, typer.Option("--socket", help="Listen on this unix socket, of mode 0660, and on no port.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="A loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = PORT,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let --host be an address that others can reach; no passwords.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Requests computed at once. [default: one per core]")
    ] = None,
    queue: Annotated[
        int, typer.Option("--queue", min=0, max=4096, help="Requests that may wait; beyond them 503 is answered.")
    ] = 64,
    max_body: Annotated[
        int, typer.Option("--max-body", min=1, max=1024, help="Largest body of a request, in MiB; four fit in at once.")
    ] = 16,
    store: Store = None,
    json: Json = False,
) -> None:
    """Answer embed, classify and retrieve over HTTP, on this machine.

    New generations are taken up without dropping a request. Stops on SIGTERM or Ctrl-C when it has finished what is
    there. A socket that systemd hands in is used instead of the others. Needs the extra `serve`.
    """
    need_serve()
    # One request, one thread: a library that takes more for a matrix product makes all of them slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edge_cmcl.service.running import serve as run
    from edge_cmcl.service.settings import Settings, cores

    if allow_remote:
        warn("others may be able to reach the service: it knows no passwords and no TLS")
    place = store or default_store()
    settings = Settings(place, socket, host, port, allow_remote, workers or cores(), queue, max_body << 20)
    result = run(settings, told)
    text = f"{result['answered']} requests answered, {result['refused']} turned away, in {result['seconds']:.0f} s"
    show(result, text, json=json)
