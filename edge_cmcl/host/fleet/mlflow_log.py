"""A fleet in MLflow: generations as runs, and as versions of a registered model (extra `mlflow`).

What is there is read first and only what lacks is added, so that a second call adds nothing, and one that was cut off
goes on. The bundles stay where they are: a version says where that is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edge_cmcl.errors import MissingExtraError, RemoteError, UsageError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.tracked import FOR, KEY, RELEASE, TAG, TRIAL, Tracked, Tracking, tracking
from edge_cmcl.progress import Progress, silent

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000
_BATCH = 500
"""Metrics sent at once; MLflow takes 1000."""


@dataclass
class Logged:
    """What was added.

    Attributes:
        experiment: the experiment's name.
        model: the registered model's name.
        runs, metrics, versions: how many were added.
        known: runs that were there.
        aliases: the version that each alias of ours points to now.
    """

    experiment: str
    model: str
    runs: int = 0
    metrics: int = 0
    versions: int = 0
    known: int = 0
    aliases: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def log(fleet: Fleet, uri: str, experiment: str = "", model: str = "", progress: Progress = silent) -> Logged:
    """Log what is known of `fleet` to the MLflow server at `uri`.

    Args:
        fleet: the fleet; held, so that nobody else logs it at the same time.
        uri: "http://localhost:5000", or what else MLflow's tracking URI may be.
        experiment: name of the experiment, "" for the project's.
        model: name of the registered model, "" for the project's.
        progress: told how far it is.

    Raises:
        MissingExtraError: MLflow is not installed.
        UsageError: the fleet is empty and no names are given, or MLflow would not take a name.
        RemoteError: the server is away or refuses.
        StoreLockedError: another process changes the fleet.
        FormatError, DigestError: something of the fleet is damaged.
    """
    with fleet.changing():
        told = tracking(fleet)
        logged = Logged(_name(experiment or told.project, "experiment"), _name(model or told.project, "model"))
        with _answers(uri):
            client = _client(uri)
            runs = _log_runs(client, told.runs, logged, progress)
            _log_versions(client, told, runs, logged, progress)
    return logged


def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's own 7 take minutes
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise MissingExtraError(
            "logging a fleet to MLflow needs the mlflow extra",
            expected="mlflow-skinny, or mlflow",
            got=str(error),
            hint="pip install '.[mlflow]' in a checkout of edge-cmcl",
        ) from error
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _answers(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into an error of ours."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):
            raise
        raise RemoteError(
            "the MLflow server does not do it",
            expected=f"an MLflow server at {uri}",
            got=str(error),
            hint="is it running, and is this its address? The same command goes on where this one ended",
        ) from error


def _log_runs(client: MlflowClient, runs: Sequence[Tracked], logged: Logged, progress: Progress) -> dict[str, str]:
    """Log every run that is not there, and what the others lack; return the ids of runs by key."""
    found = client.get_experiment_by_name(logged.experiment)
    experiment = found.experiment_id if found else client.create_experiment(logged.experiment)
    known = {run.data.tags[KEY]: run for run in _pages(client.search_runs, [experiment]) if KEY in run.data.tags}
    logged.known = len(known.keys() & {run.key for run in runs})
    ids = {}
    for done, run in enumerate(runs):
        old = known.get(run.key)
        ids[run.key] = old.info.run_id if old else _new_run(client, experiment, run)
        logged.runs += old is None
        logged.metrics += _complete(client, ids[run.key], run, old)
        progress("runs", done + 1, len(runs))
    return ids


def _new_run(client: MlflowClient, experiment: str, run: Tracked) -> str:
    made = client.create_run(experiment, start_time=_milliseconds(run.at), tags=run.tags, run_name=run.name)
    return str(made.info.run_id)


def _complete(client: MlflowClient, run_id: str, run: Tracked, old: Any) -> int:
    """Log the metrics and tags that a run lacks, and end it; return the number of metrics."""
    from mlflow.entities import Metric, RunTag

    has = old.data.metrics if old else {}
    lacking = [
        Metric(each.key, each.value, _milliseconds(each.at), each.step)
        for each in run.metrics.values()
        if each.key not in has or not math.isclose(has[each.key], each.value, rel_tol=1e-9, abs_tol=1e-12)
    ]
    tags = {name: value for name, value in run.tags.items() if old and old.data.tags.get(name) != value}
    for start in range(0, len(lacking), _BATCH):
        client.log_batch(run_id, metrics=lacking[start : start + _BATCH])
    if tags:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    if old is None or old.info.status != "FINISHED":
        latest = max((each.at for each in run.metrics.values()), default=run.at)
        client.set_terminated(run_id, "FINISHED", _milliseconds(max(latest, run.at)))
    return len(lacking)


def _log_versions(
    client: MlflowClient, told: Tracking, ids: dict[str, str], logged: Logged, progress: Progress
) -> None:
    """Register every generation once, and let the aliases point to what is promoted."""
    model = _model(client, logged.model)
    found = _pages(client.search_model_versions, f"name='{logged.model}'")
    versions = {each.tags[f"{TAG}digest"]: str(each.version) for each in found if f"{TAG}digest" in each.tags}
    for done, run in enumerate(told.runs):
        if run.digest not in versions:
            tags = {name: run.tags[TAG + name] for name in ("digest", "action", "parents") if TAG + name in run.tags}
            made = client.create_model_version(
                logged.model,
                source=source_of(told, run.digest),
                run_id=ids[run.key],
                tags={f"{TAG}{name}": value for name, value in tags.items()},
                description=run.name,
                await_creation_for=0,  # a version without files is there at once
            )
            versions[run.digest] = str(made.version)
            logged.versions += 1
        progress("versions", done + 1, len(told.runs))
    wanted = {alias: versions[digest] for alias, digest in told.aliases.items()}
    ours = {alias: str(version) for alias, version in model.aliases.items() if _is_ours(alias)}
    for alias in ours.keys() - wanted.keys():
        client.delete_registered_model_alias(logged.model, alias)
    for alias, version in wanted.items():
        if ours.get(alias) != version:
            client.set_registered_model_alias(logged.model, alias, version)
    logged.aliases = wanted


def _model(client: MlflowClient, name: str) -> Any:
    """Return the registered model, made where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return client.create_registered_model(name, description="Generations of edge-cmcl; the bundles are on the remote.")


def source_of(told: Tracking, digest: str) -> str:
    """Return where the bundle of a generation is, as a reference; MLflow refuses local folders as a source."""
    if told.remote.startswith(("oci:", "ssh:")):
        return f"{told.remote}@{digest}"
    return f"edge-cmcl://{told.project}/{digest}"


def _is_ours(alias: str) -> bool:
    return alias in (RELEASE, TRIAL) or alias.startswith(FOR)


def _pages(search: Any, *arguments: Any) -> Iterator[Any]:
    """Yield what a search of MLflow finds, page after page."""
    token = None
    while True:
        page = search(*arguments, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _name(name: str, what: str) -> str:
    """Check a name: it stands in quotes in searches, and MLflow takes no slash or colon in a model's."""
    refused = "'\"`%\\" + ("/:" if what == "model" else "")
    if not name.strip() or not name.isprintable() or any(sign in name for sign in refused):
        raise UsageError(
            f"the {what} needs a name",
            expected="letters, digits, dots, dashes and spaces",
            got=name or "none, and an empty fleet has no project's",
            hint=f"--{what} NAME",
        )
    return name


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(f"{time[:19]}+00:00").timestamp() * 1000)
