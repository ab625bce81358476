"""`edge-cmcl doctor`: is this device fit for what is asked of it?"""

from __future__ import annotations

import os

import typer

from edge_cmcl.cli.console import show, table
from edge_cmcl.cli.options import Json, Store, default_store

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl doctor")
def doctor(store: Store = None, json: Json = False) -> None:
    """Look this device over before it is relied on.

    The board, software, providers that really load, clock, store and room, each with a remedy where one is needed, and
    where each setting comes from. Nothing is changed. Exit code 7 where something must be mended first.
    """
    from edge_cmcl.device.doctor import PROBLEM, examine, worst
    from edge_cmcl.device.settings import settings

    path = store or default_store()
    findings = examine(path)
    rows = [[finding.level, finding.what, finding.found, finding.remedy] for finding in findings]
    chosen = settings(store, path, os.environ)
    text = [
        table(["", "what", "found", "to do"], rows),
        "",
        table(["setting", "value", "from"], [[*row] for row in chosen]),
    ]
    worst_level = worst(findings)
    result = {
        "worst": worst_level,
        "findings": [vars(finding) for finding in findings],
        "settings": [dict(zip(("setting", "value", "from"), row, strict=True)) for row in chosen],
    }
    show(result, "\n".join(text), json=json)
    if worst_level == PROBLEM:
        raise typer.Exit(7)
