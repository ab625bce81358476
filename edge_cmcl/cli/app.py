"""The `edge-cmcl` program: the list of its commands, and what surrounds every one of them.

To add a command, write it in the file of its group, and add a new file to `_GROUPS` below:

    app = typer.Typer()

    @app.command()
    def status(store: Store = None, json: Json = False) -> None:
        \"""Show what is installed.\"""
        from edge_cmcl.device import open_store        # rooms are imported here: --help stays fast

        state = open_store(store or default_store()).state()
        show(state.as_json(), table(["modality", "pairs"], state.rows()), json=json)

Parse, call a room, print. Errors of `edge_cmcl.errors` pass through to `main`, which prints them and exits with
their code; `Store`, `Json` and other shared options are in `cli.options`, `show`, `table` and `progress` in
`cli.console`. Every command takes `--json` and stands in README.md (tests/cli/test_help.py).
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from edge_cmcl.cli import (
    assess_commands,
    benchmark_commands,
    blob_commands,
    compare_commands,
    data_commands,
    demo_commands,
    device_commands,
    doctor_commands,
    fleet_commands,
    forget_commands,
    generation_commands,
    host_commands,
    interruption,
    key_commands,
    leaving_commands,
    pair_commands,
    project_commands,
    record_commands,
    report_commands,
    send_commands,
    serve_commands,
    sync_commands,
    tracking_commands,
    update_commands,
    use_commands,
)
from edge_cmcl.cli.console import show_failure, show_warnings
from edge_cmcl.cli.failures import Terminated, describe

_GROUPS = [
    project_commands.app,
    data_commands.app,
    pair_commands.app,
    host_commands.app,
    device_commands.app,
    doctor_commands.app,
    record_commands.app,
    send_commands.app,
    assess_commands.app,
    update_commands.app,
    benchmark_commands.app,
    forget_commands.app,
    blob_commands.app,
    generation_commands.app,
    use_commands.app,
    serve_commands.app,
    key_commands.app,
    compare_commands.app,
    report_commands.app,
    sync_commands.app,
    fleet_commands.app,
    leaving_commands.app,
    tracking_commands.app,
    demo_commands.app,
]

# Plain help: drawing it with rich takes longer than everything else that `--help` does.
app = typer.Typer(name="edge-cmcl", rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"edge-cmcl {version('edge-cmcl')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Let a deployed edge device learn a new sensor by itself, without forgetting what it knew."""


for _group in _GROUPS:
    app.add_typer(_group)


def main() -> NoReturn:
    """Run the command in `sys.argv` and exit with its code (design.md section 5)."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it on import; it is on by default
    interruption.watch()
    show_warnings()
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(prog_name="edge-cmcl", standalone_mode=False)
    except (Exception, KeyboardInterrupt, Terminated) as error:
        failure = describe(error, sys.argv)
    else:
        if code != 130:  # this is how typer reports Ctrl-C
            return code or 0
        failure = describe(KeyboardInterrupt(), sys.argv)
    show_failure(failure, json="--json" in sys.argv)
    return failure.exit_code
