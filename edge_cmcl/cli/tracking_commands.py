"""`edge-cmcl fleet mlflow`: what a host knows of its devices, in MLflow."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_cmcl.cli.console import progress, show
from edge_cmcl.cli.fleet_commands import Folder, fleet, open_fleet
from edge_cmcl.cli.options import Json

app = typer.Typer()


@fleet.command(epilog="Example: edge-cmcl fleet mlflow --tracking-uri http://localhost:5000")
def mlflow(
    tracking_uri: Annotated[
        str, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="The MLflow server.")
    ],
    experiment: Annotated[str, typer.Option("--experiment", help="Name of it. [default: the project's]")] = "",
    model: Annotated[str, typer.Option("--model", help="Name of the registered model. [default: the project's]")] = "",
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Log generations to MLflow, as runs and as model versions.

    Aliases say what is promoted: `release`, `trial`, and `for-DEVICE` for one device alone. A second call adds only
    what is new. Needs the extra `mlflow`.
    """
    from edge_cmcl.host.fleet.mlflow_log import log

    opened = open_fleet(folder)
    with progress() as told:
        done = log(opened, tracking_uri, experiment, model, told)
    points = ", ".join(f"{alias} is version {version}" for alias, version in done.aliases.items())
    text = (
        f"added: {done.runs} runs, {done.metrics} figures, {done.versions} versions; {done.known} runs were there\n"
        f"experiment {done.experiment}, model {done.model}{f': {points}' if points else ''}"
    )
    show(done.as_json(), text, json=json)
