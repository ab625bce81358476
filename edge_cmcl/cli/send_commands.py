"""`edge-cmcl send`: a micro model down to a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import progress, show
from edge_cmcl.cli.options import Json, need_bridge

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl send gyro.ecmm /dev/ttyACM0")
def send(
    blob: Annotated[Path, typer.Argument(help="A micro model, made by `edge-cmcl blob`.")],
    link: Annotated[str, typer.Argument(help="Where the board is: /dev/ttyACM0, tcp://HOST:PORT, unix:///PATH, ...")],
    patience: Annotated[
        float, typer.Option("--patience", min=1.0, help="Seconds to go on trying while nothing moves.")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Send a micro model to a board, which uses it from then on.

    The board keeps its old model until the new one is there and checked, whenever its power fails. A transfer that was
    cut goes on where it was.
    """
    need_bridge()
    from firmware_bridge.links import KeptLink, open_link
    from firmware_bridge.sending import Sender

    data = _read(blob)
    kept = KeptLink(open_link(link), lambda: open_link(link))
    try:
        with progress() as told:
            sent = Sender(kept, data, told, patience).send()
    finally:
        kept.close()
    what = "had it already" if sent.already else f"uses it now: {sent.bytes} bytes in {sent.seconds:.1f} s"
    show(vars(sent), f"{kept.address}: model {sent.id}: the board {what}", json=json)


def _read(path: Path) -> bytes:
    """Return the bytes of a micro model.

    Raises:
        DataError: the file cannot be read.
        FormatError: it holds none.
    """
    from edge_cmcl.errors import DataError
    from firmware_bridge import blob

    try:
        with path.open("rb") as file:
            data = file.read(blob.MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read", expected="a micro model", got=error.strerror or "") from None
    blob.read(data)
    return data
