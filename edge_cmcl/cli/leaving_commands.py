"""`edge-cmcl fleet forget`: a device that is gone, or whose key is in wrong hands."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_cmcl.cli.console import show
from edge_cmcl.cli.fleet_commands import Folder, fleet, open_fleet
from edge_cmcl.cli.options import Json

app = typer.Typer()


@fleet.command(epilog="Example: edge-cmcl fleet forget 3f5a")
def forget(
    device: Annotated[str, typer.Argument(help="A device, by the start of its id.")],
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Forget a device that is gone, or whose key was stolen.

    Its keys are revoked on this host: nothing that they sign is taken any more. What it learned stays with the devices
    that it was promoted to; promote or merge it first where it is still wanted.
    """
    from edge_cmcl.host.fleet.leaving import forget as leave

    done = leave(open_fleet(folder), device)
    keys = ", ".join(key[:16] for key in done.revoked)
    show(done.as_json(), f"{done.device_id} is forgotten; nothing more is taken that {keys} signs", json=json)
