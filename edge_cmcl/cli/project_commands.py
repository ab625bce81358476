"""`edge-cmcl init`: the project file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import show, warned
from edge_cmcl.cli.options import Json

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl init --from base.safetensors --name my-machine")
def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or a folder for it.")] = Path("edge-cmcl.toml"),
    files: Annotated[
        list[Path] | None, typer.Option("--from", help="A pairs file to train on; repeat. Its sensors are filled in.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The project's name, with --from.")] = "my-machine",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a commented project file to start from."""
    from edge_cmcl.project import FILE_NAME, write_project

    target = path / FILE_NAME if path.is_dir() else path
    if not files:
        write_project(target, force=force)
        text = f"wrote {target}; describe your sensors in it, then `edge-cmcl train {target}`"
        show({"project": target}, text, json=json)
        return
    from edge_cmcl.host.propose import propose

    with warned() as warnings:
        write_project(target, propose(files, target.parent, name), force=force)
    text = f"wrote {target}, with the sensors of {', '.join(map(str, files))}; next, `edge-cmcl train {target}`"
    show({"project": target, "warnings": warnings}, text, json=json)
