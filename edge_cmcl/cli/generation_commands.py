"""The life of a generation after it was made: confirm, rollback, log, gc."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_cmcl.cli.console import show, table
from edge_cmcl.cli.device_commands import signed
from edge_cmcl.cli.options import Json, Store, default_store

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl confirm")
def confirm(store: Store = None, json: Json = False) -> None:
    """Keep the current generation: test it, and end its trial.

    What install and update make current is on trial: after three starts that do not get through its self-test, or one
    that fails, the generation confirmed last is in use again.
    """
    from edge_cmcl.device.starting import confirm as keep
    from edge_cmcl.device.store import open_store

    loaded = keep(open_store(store or default_store()))
    text = f"generation {loaded.generation.counter} is confirmed"
    show({"generation": loaded.digest, "counter": loaded.generation.counter}, text, json=json)


@app.command(epilog="Example: edge-cmcl rollback")
def rollback(
    generation: Annotated[str, typer.Argument(help="A tag, digest or number of `log`. [default: the one before]")] = "",
    store: Store = None,
    json: Json = False,
) -> None:
    """Make an older generation current again."""
    from edge_cmcl.device.generations import rollback as go_back
    from edge_cmcl.device.store import open_store

    loaded = go_back(open_store(store or default_store()), generation)
    known = sorted(loaded.generation.modalities)
    text = f"generation {loaded.generation.counter} is current: {', '.join(known)}"
    result = {"generation": loaded.digest, "counter": loaded.generation.counter, "modalities": known}
    show(result, text, json=json)


@app.command("log", epilog="Example: edge-cmcl log")
def log_(store: Store = None, json: Json = False) -> None:
    """List the generations of this device, newest first."""
    from edge_cmcl.device.generations import log
    from edge_cmcl.device.store import open_store

    found = log(open_store(store or default_store()))
    rows = [
        [
            "*" if e["current"] else "",
            e["counter"],
            e["digest"][7:19],
            " ".join(parent[7:19] for parent in e["parents"]),
            e["created"],
            e["action"],
            ", ".join(e["modalities"]),
            signed(e),
            " ".join(e["tags"]),
        ]
        for e in found
    ]
    header = ["", "generation", "digest", "parents", "created", "action", "knows", "signed by", "tags"]
    show({"generations": found}, table(header, rows), json=json)


@app.command(epilog="Example: edge-cmcl gc --keep 2")
def gc(
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest generations stay.")] = 3,
    store: Store = None,
    json: Json = False,
) -> None:
    """Remove old generations and what only they need.

    The generation in use stays, and so does what a failed trial or a rollback returns to, and what a process uses.
    """
    from edge_cmcl.device.generations import collect_garbage
    from edge_cmcl.device.store import open_store

    done = collect_garbage(open_store(store or default_store()), keep)
    lines = [f"removed {len(done.generations)} generations, {done.blobs} files, {done.bytes / 1e6:.1f} MB"]
    if done.held:
        lines.append(f"{len(done.held)} more stay because a process uses them: collect again when it has ended")
    show(vars(done), "\n".join(lines), json=json)
