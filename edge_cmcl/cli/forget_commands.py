"""Removing what a device knows: forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edge_cmcl.cli.console import show
from edge_cmcl.cli.options import Json, Store, default_store

if TYPE_CHECKING:
    from edge_cmcl.device.forgetting import Forgotten

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl forget --modality acoustic")
def forget(
    modality: Annotated[str, typer.Option("--modality", help='The sensor to remove, or "text" for the labels.')],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Remove a sensor from what this device knows.

    It is one new generation, on trial like any other, and `edge-cmcl rollback` brings the sensor back. What the others
    learned beside it they keep.
    """
    from edge_cmcl.device.forgetting import forget as remove
    from edge_cmcl.device.store import open_store

    done = remove(open_store(store or default_store()), modality, dry_run=dry_run)
    show(done.as_json(), describe_forgotten(done), json=json)


def describe_forgotten(done: Forgotten) -> str:
    """Return what was forgotten for people."""
    pairs = ", ".join(" - ".join(pair) for pair in done.pairs)
    lines = [
        f"{done.modality}: {done.origins} learned step(s) go"
        + (f", and the pairs {pairs}" if pairs else "")
        + (f", and {done.labels} labels" if done.labels else "")
    ]
    if done.encoder not in ("universal", "text"):
        lines.append(
            f"WARNING: its {done.encoder} encoder came with the base: learned here again, it gets the universal one"
        )
    lines.append(f"{', '.join(done.remaining)} stay, and keep what they learned beside it")
    ending = "dry run: nothing was changed"
    if done.committed:
        ending = f"generation {done.counter} is current; `edge-cmcl rollback` brings {done.modality} back"
    return "\n".join([*lines, ending])
