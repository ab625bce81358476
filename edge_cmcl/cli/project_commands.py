"""`edge-cmcl init`: the project file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import show
from edge_cmcl.cli.options import Json

app = typer.Typer()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or a folder for it.")] = Path("edge-cmcl.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a commented project file to start from."""
    from edge_cmcl.project import FILE_NAME, write_template

    target = path / FILE_NAME if path.is_dir() else path
    write_template(target, force=force)
    show(
        {"project": target}, f"wrote {target}; describe your sensors in it, then `edge-cmcl train {target}`", json=json
    )
