from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine_bundle import Machine
from running_service import BINARY, RunningService, client_of
from wrong_generations import commit_wrong, damage, file_of

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.device.trial import trial_of
from edge_cmcl.service.questions import QUESTIONS, Asked
from edge_cmcl.service.recent import Recent

Serve = Callable[..., RunningService]
Run = Callable[..., Any]


def single_windows(recording: Path, folder: Path, n: int = 12) -> list[bytes]:
    """Return bodies of one moment each, with vibration and current."""
    found = []
    with open_pairs(recording) as pairs:
        for row in range(n):
            windows = {name: pairs.read(name, row, row + 1) for name in ("vibration", "current")}
            write_pairs(folder / "one.safetensors", windows)
            found.append((folder / "one.safetensors").read_bytes())
    return found


class Stream:
    """Clients that ask without a pause, until they are told to stop."""

    def __init__(self, address: str, bodies: list[bytes], clients: int = 3) -> None:
        self.answers: set[tuple[int, str, bytes]] = set()
        self.count = 0
        self.failures: list[str] = []
        self._address, self._bodies, self._stop = address, bodies, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(first,)) for first in range(clients)]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, place: int) -> None:
        headers = {"Content-Type": BINARY, "Accept": BINARY}
        with client_of(self._address) as client:
            while not self._stop.is_set():
                place = (place + 1) % len(self._bodies)
                try:
                    answer = client.post("/embed", content=self._bodies[place], headers=headers)
                    answer.raise_for_status()
                except Exception as error:  # whatever it is, a client would have met it
                    self.failures.append(repr(error))
                    continue
                self.answers.add((place, answer.headers["edge-cmcl-generation"], answer.content))
                self.count += 1


def await_counter(running: RunningService, counter: int) -> None:
    for _ in range(400):
        if running.client.get("/healthz").json()["counter"] == counter:
            return
        time.sleep(0.05)
    raise AssertionError(running.client.get("/healthz").json())


def test_while_an_update_commits_every_answer_is_that_of_the_generation_it_names(
    serve: Serve, machine: Machine, run_cli: Run, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    install(machine.bundle, store, trust=machine.public_key)
    running = serve("--store", store, "--socket", tmp_path / "s")
    bodies = single_windows(machine.test, tmp_path)
    with open_pairs(machine.new) as pairs:
        few = tmp_path / "few.safetensors"
        write_pairs(few, {name: pairs.read(name, 0, 80) for name in ("acoustic", "vibration")})
    with Stream(f"unix:{tmp_path / 's'}", bodies) as stream:
        done = run_cli("update", "--modality", "acoustic", "--with", "vibration", "--data", few, "--store", store)
        assert done.code == 0, done.stderr
        await_counter(running, 2)
        done = run_cli("rollback", "--store", store)
        assert done.code == 0, done.stderr
        await_counter(running, 1)
    assert stream.failures == []
    named = {digest for _, digest, _ in stream.answers}
    models = {digest: Model(open_store(store).load_manifest(digest), threads=1) for digest in named}
    assert sorted(model.generation.counter for model in models.values()) == [1, 2]
    expected = {
        (place, digest, QUESTIONS["/embed"].answer(model, Asked(BINARY, body, {}, binary=True), Recent()))
        for digest, model in models.items()
        for place, body in enumerate(bodies)
    }
    assert stream.answers <= expected
    assert stream.count > 100
    first, second = ({content for _, digest, content in expected if digest == each} for each in named)
    assert not first & second, "the generations answer alike, so mixing them up would go unseen"
    code, result = running.stop()
    assert (code, result["generation_changes"], result["answered"] >= stream.count) == (0, 2, True)


def test_a_generation_that_fails_its_self_test_never_answers_and_its_trial_is_reverted(
    serve: Serve, taught_copy: Store, tmp_path: Path
) -> None:
    good = taught_copy.tags()[CURRENT]
    running = serve("--store", taught_copy.root, "--socket", tmp_path / "s")
    wrong = commit_wrong(taught_copy)
    running.await_told(f"generation {wrong[7:19]} failed")
    health = running.client.get("/healthz").json()
    assert (health["status"], health["generation"]) == ("ok", good)
    assert taught_copy.tags()[CURRENT] == good
    assert taught_copy.state().reverted is not None


def test_to_start_is_to_start_the_generation_on_trial(serve: Serve, taught_copy: Store, tmp_path: Path) -> None:
    good = taught_copy.tags()[CURRENT]
    commit_wrong(taught_copy)
    running = serve("--store", taught_copy.root, "--socket", tmp_path / "s")
    assert running.client.get("/healthz").json()["generation"] == good
    assert trial_of(taught_copy.state(), good) is None
    assert "is in use again" in running.told()


def test_a_damaged_generation_leaves_the_one_before_to_answer_until_it_is_mended(
    serve: Serve, machine: Machine, taught_copy: Store, run_cli: Run, tmp_path: Path
) -> None:
    running = serve("--store", taught_copy.root, "--socket", tmp_path / "s")
    old = taught_copy.load(CURRENT)
    (base,) = old.generation.parents
    adapter = taught_copy.load_manifest(base).generation.modalities["vibration"].adapter_blob
    assert adapter != old.generation.modalities["vibration"].adapter_blob
    file = file_of(taught_copy, adapter)
    whole = file.read_bytes()
    damage(taught_copy, adapter)
    with taught_copy.writer():
        taught_copy.move_tags({CURRENT: taught_copy.load_manifest(base).descriptor})
    running.await_told("is damaged")
    health = running.client.get("/healthz").json()
    assert (health["status"], health["generation"]) == ("behind", old.digest)
    assert "damaged" in health["reason"]
    assert running.ask("/embed", machine.test).status_code == 200
    assert "edge_cmcl_serving_behind 1" in running.client.get("/metrics").text
    file.write_bytes(whole)
    with taught_copy.writer():
        taught_copy.move_tags({CURRENT: taught_copy.load_manifest(base).descriptor})
    await_counter(running, 1)
    assert running.client.get("/healthz").json()["status"] == "ok"


def test_a_generation_that_is_damaged_at_the_start_leaves_the_one_before_to_answer_too(
    serve: Serve, taught_copy: Store, tmp_path: Path
) -> None:
    current = taught_copy.load(CURRENT)
    damage(taught_copy, current.generation.modalities["vibration"].adapter_blob)
    running = serve("--store", taught_copy.root, "--socket", tmp_path / "s")
    health = running.client.get("/healthz").json()
    assert (health["status"], health["counter"]) == ("behind", 1)
    assert current.digest[7:19] in health["reason"]
    assert "is damaged" in running.told()


def test_where_the_store_is_lost_the_service_goes_on_and_says_so(
    serve: Serve, machine: Machine, taught_copy: Store, tmp_path: Path
) -> None:
    running = serve("--store", taught_copy.root, "--socket", tmp_path / "s")
    taught_copy.root.rename(tmp_path / "lost")
    running.await_told("the store's generation cannot be used, generation 2 .* goes on: nothing is installed")
    assert running.client.get("/healthz").json()["status"] == "behind"
    assert running.ask("/embed", machine.test).status_code == 200
    assert "edge_cmcl_store_readable 0" in running.client.get("/metrics").text
    (tmp_path / "lost").rename(taught_copy.root)
    for _ in range(100):
        if running.client.get("/healthz").json()["status"] == "ok":
            break
        time.sleep(0.05)
    assert "edge_cmcl_store_readable 1" in running.client.get("/metrics").text


def test_what_an_old_generation_held_is_let_go(serve: Serve, taught_copy: Store, tmp_path: Path) -> None:
    running = serve("--store", taught_copy.root, "--socket", tmp_path / "s")
    new = taught_copy.load(CURRENT)
    old = taught_copy.load_manifest(new.generation.parents[0])
    await_counter(running, 2)
    held = open_files(running)
    for _ in range(2):
        for generation in (old, new):
            with taught_copy.writer():
                taught_copy.move_tags({CURRENT: generation.descriptor})
            await_counter(running, generation.generation.counter)
    assert open_files(running) == held


def open_files(running: RunningService) -> int:
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("path", ["nothing", "empty"])
def test_without_a_generation_there_is_nothing_to_serve(run_cli: Run, tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run_cli("serve", "--store", tmp_path / path, "--socket", tmp_path / "s", "--json")
    assert (done.code, done.json["error"]["type"]) == (3, "ModelError")
    assert {each.name for each in tmp_path.iterdir()} == {"empty", "tmp"}
