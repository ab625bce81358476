"""A fleet logged to a real MLflow server with a SQLite backend; `make mlflow` installs both sides."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import await_port, free_port
from test_loop import spoiled
from worlds import World

from edge_cmcl.bundle.attested import JudgedPair
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.tracked import tracking

ROOT = Path(__file__).parent.parent.parent
RunCli = Callable[..., Any]


@dataclass
class Server:
    """What a real server answers, asked over its public REST API alone."""

    url: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def ask(self, method: str, path: str, **values: Any) -> dict[str, Any]:
        where = {"params": values} if method == "GET" else {"json": values}
        answer = httpx.request(method, f"{self.url}/api/2.0/mlflow/{path}", timeout=60, **where)
        answer.raise_for_status()
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Return every run, with its tags and latest metrics by name."""
        found = self.ask("GET", "experiments/get-by-name", experiment_name=experiment)["experiment"]
        runs = self.ask("POST", "runs/search", experiment_ids=[found["experiment_id"]], max_results=1000)
        return [
            {
                **run["info"],
                "metrics": {each["key"]: each["value"] for each in run["data"].get("metrics", [])},
                "tags": {each["key"]: each["value"] for each in run["data"]["tags"]},
            }
            for run in runs["runs"]
        ]

    def versions(self, model: str) -> dict[str, dict[str, Any]]:
        """Return every version, by the digest of its generation."""
        found = self.ask("GET", "model-versions/search", filter=f"name='{model}'").get("model_versions", [])
        by_digest = {_tags(each)["edge_cmcl.digest"]: each for each in found}
        assert len(by_digest) == len(found), "a generation is registered once"
        return by_digest

    def aliases(self, model: str) -> dict[str, str]:
        found = self.ask("GET", "registered-models/get", name=model)["registered_model"]
        return {each["alias"]: each["version"] for each in found.get("aliases", [])}


def _tags(of: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in of.get("tags", [])}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = ROOT / ".bench" / "mlflow" / "bin" / "mlflow"
    program = own if own.exists() else shutil.which("mlflow", path=os.environ.get("EDGE_CMCL_MLFLOW"))
    if find_spec("mlflow") is None or program is None:
        pytest.skip("no MLflow here: `make mlflow` installs the extra, and a server beside it")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        program, "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--host", "127.0.0.1",
        "--default-artifact-root", str(folder / "artifacts"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = folder / "log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            command, stdout=told, stderr=told, env={**quiet, "MLFLOW_DISABLE_TELEMETRY": "true"}, start_new_session=True
        )
    try:
        for _ in range(12):  # its first start makes the tables, which takes seconds
            with suppress(AssertionError):
                await_port("127.0.0.1", port, process, log)
                break
            assert process.poll() is None, log.read_text()
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def logged(run_cli: RunCli, server: Server, pulled: World) -> Callable[..., dict[str, Any]]:
    """Log the fleet: `logged("name")`, under a name of the test's own."""

    def log(name: str) -> dict[str, Any]:
        done = run_cli(
            *("fleet", "mlflow", "--tracking-uri", server.url, "--fleet", pulled.folder / "fleet"),
            *("--experiment", name, "--model", name, "--json"),
        )
        assert done.code == 0, done.stdout
        found = done.json
        assert isinstance(found, dict)
        return found

    return log


def test_every_generation_of_every_device_is_a_run_with_whose_word_its_figures_are(
    pulled: World, server: Server, logged: Callable[..., dict[str, Any]]
) -> None:
    done = logged("words")
    runs = server.runs("words")
    devices = pulled.fleet.devices()
    told = {(device.device_id, past.digest): past for device in devices.values() for past in device.history}
    assert done["runs"] == len(runs) == len(told)
    for run in runs:
        tags = run["tags"]
        past = told[tags["edge_cmcl.device"], tags["edge_cmcl.digest"]]
        assert run["status"] == "FINISHED"
        assert tags["edge_cmcl.action"] == past.action
        assert run["metrics"]["counter"] == past.counter
        assert run["metrics"]["certificate.worst"] == pytest.approx(past.worst)
        judged = {name for name in run["metrics"] if name.startswith("device.")}
        assert len(judged) == 3 * len(past.judged)
    (run,) = [run for run in runs if run["metrics"].get("device.acoustic-vibration.mrr")]
    past = told[run["tags"]["edge_cmcl.device"], run["tags"]["edge_cmcl.digest"]]
    (pair,) = [pair for pair in past.judged if set(pair.modalities) == {"acoustic", "vibration"}]
    assert run["metrics"]["device.acoustic-vibration.mrr"] == pytest.approx(pair.mrr)
    assert run["metrics"]["device.acoustic-vibration.recall_at_10"] == pytest.approx(pair.recall_at_10)
    generation = pulled.fleet.store.load(past.digest).generation
    assert run["tags"]["edge_cmcl.parents"].split(",") == list(generation.parents)


def test_a_second_call_adds_nothing_and_a_later_one_what_is_new(
    pulled: World, server: Server, logged: Callable[..., dict[str, Any]]
) -> None:
    first = logged("again")
    before = server.runs("again"), server.versions("again")
    again = logged("again")
    assert (again["runs"], again["metrics"], again["versions"]) == (0, 0, 0)
    assert again["known"] == first["runs"]
    assert (server.runs("again"), server.versions("again")) == before
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    pulled.sync("a")
    pulled.pull()
    later = logged("again")
    assert later["versions"] == 1
    taker = pulled.device("a").state().device_id
    (run,) = [run for run in server.runs("again")
              if (run["tags"]["edge_cmcl.device"], run["tags"]["edge_cmcl.digest"]) == (taker, merged)]  # fmt: skip
    assert run["metrics"]["offered.acoustic-vibration.mrr_before"] > 0
    assert set(run["tags"]["edge_cmcl.parents"].split(",")) == set(pulled.fleet.store.load(merged).generation.parents)
    assert logged("again")["metrics"] == 0


def test_aliases_follow_what_is_promoted(pulled: World, server: Server, logged: Callable[..., dict[str, Any]]) -> None:
    assert logged("aliases")["aliases"] == {}
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    logged("aliases")
    version = server.versions("aliases")[merged]["version"]
    assert server.aliases("aliases") == {"trial": version}
    pulled.promote(merged)
    logged("aliases")
    assert server.aliases("aliases") == {"release": version}
    device = pulled.device("a").state().device_id
    own = pulled.fleet.named(device).report.manifest
    pulled.promote(own, device)
    logged("aliases")
    owns = server.versions("aliases")[own]["version"]
    assert server.aliases("aliases") == {"release": version, f"for-{device}": owns}
    server.ask("POST", "registered-models/alias", name="aliases", alias="mine", version=owns)
    pulled.promote(merged, stage="withdrawn")
    logged("aliases")
    assert server.aliases("aliases") == {"mine": owns}, "an alias of the user's stays"


def test_what_a_device_refused_is_on_its_run(
    pulled: World, server: Server, logged: Callable[..., dict[str, Any]]
) -> None:
    bad = spoiled(pulled, pulled.merge())
    pulled.promote(bad)
    pulled.sync("a")
    pulled.pull()
    logged("refused")
    (run,) = [run for run in server.runs("refused") if "edge_cmcl.refused" in run["tags"]]
    assert (run["tags"]["edge_cmcl.refused"], run["tags"]["edge_cmcl.digest"]) == ("declined", bad)
    assert "became worse" in run["tags"]["edge_cmcl.reason"]
    before = run["metrics"]["offered.acoustic-vibration.mrr_before"]
    assert run["metrics"]["offered.acoustic-vibration.mrr"] < before


def test_what_was_cut_off_goes_on(pulled: World, server: Server, logged: Callable[..., dict[str, Any]]) -> None:
    """A run without its figures, still running: what a call leaves behind that was killed in between."""
    first = tracking(pulled.fleet).runs[0]
    experiment = server.ask("POST", "experiments/create", name="cut")["experiment_id"]
    tags = [{"key": name, "value": value} for name, value in first.tags.items()]
    server.ask("POST", "runs/create", experiment_id=experiment, start_time=1, run_name=first.name, tags=tags)
    done = logged("cut")
    assert done["known"] == 1
    runs = server.runs("cut")
    assert len(runs) == done["runs"] + 1
    (found,) = [run for run in runs if run["tags"]["edge_cmcl.key"] == first.key]
    assert found["status"] == "FINISHED"
    assert found["metrics"].keys() == first.metrics.keys()


def test_a_server_that_is_away_is_exit_code_6(run_cli: RunCli, pulled: World) -> None:
    if find_spec("mlflow") is None:
        pytest.skip("no MLflow here: `make mlflow` installs the extra")
    away = f"http://127.0.0.1:{free_port()}"
    done = run_cli("fleet", "mlflow", "--tracking-uri", away, "--fleet", pulled.folder / "fleet")
    assert done.code == 6
    assert away in done.stderr


def test_without_the_extra_the_command_says_what_to_install(run_cli: RunCli, pulled: World, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "mlflow.py").write_text("raise ImportError('no mlflow')")
    path = os.pathsep.join([str(tmp_path / "shadow"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_cli(
        "fleet", "mlflow", "--tracking-uri", "http://127.0.0.1:9", "--fleet", pulled.folder / "fleet",
        env={"PYTHONPATH": path},
    )  # fmt: skip
    assert done.code == 7
    assert ".[mlflow]" in done.stderr


def test_names_that_mlflow_would_not_take_and_a_fleet_without_any_are_usage_errors(
    run_cli: RunCli, pulled: World, tmp_path: Path
) -> None:
    Fleet.create(tmp_path / "empty")
    command = ("fleet", "mlflow", "--tracking-uri", "http://127.0.0.1:9", "--fleet")
    assert run_cli(*command, pulled.folder / "fleet", "--model", "a/b").code == 2
    assert run_cli(*command, pulled.folder / "fleet", "--experiment", "it's").code == 2
    assert run_cli(*command, tmp_path / "empty").code == 2


def test_several_steps_of_one_pair_have_keys_of_their_own(pulled: World) -> None:
    fleet = pulled.fleet
    device = next(each for each in fleet.devices().values() if each.history[-1].judged)
    pair = device.history[-1].judged[0]
    other = JudgedPair.model_validate({**pair.model_dump(), "origin": "other/<step>", "mrr": 0.25})
    changed = device.history[-1].model_copy(update={"judged": (pair, other)})
    with fleet.changing():
        fleet.save_device(device.model_copy(update={"history": (*device.history[:-1], changed)}))
    run = next(r for r in tracking(fleet).runs if (r.device, r.digest) == (device.device_id, changed.digest))
    found = {name: metric.value for name, metric in run.metrics.items() if ".mrr" in name}
    assert sorted(found.values()) == sorted([pair.mrr, 0.25])
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") for name in found)
