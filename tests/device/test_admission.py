from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_bundles import Change, changed_bundle, changed_modality
from machine_bundle import Machine

from edge_cmcl.bundle import Generation, Store
from edge_cmcl.bundle.payloads import Golden, golden_from_bytes, golden_to_bytes
from edge_cmcl.device.generations import log, rollback
from edge_cmcl.device.store import CURRENT, PREVIOUS
from edge_cmcl.device.store import install as install_bundle
from edge_cmcl.errors import (
    EdgeCmclError,
    FormatError,
    ModelError,
    OlderError,
    ParityError,
    RefusedError,
    WrongBaseError,
    WrongDeviceError,
)

install = partial(install_bundle, allow_unsigned=True)
"""Changed bundles are unsigned: who has signed one is not what is tested here (test_signed_install.py)."""


def everything(store: Store) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(store.root.rglob("*")) if p.is_file() and p.name != "lock"}


@pytest.fixture
def changed(machine: Machine, tmp_path: Path) -> Callable[[Change | dict[str, Any]], Path]:
    """Make a bundle like the machine's with something changed."""
    made = 0

    def make(change: Change | dict[str, Any]) -> Path:
        nonlocal made
        made += 1
        return changed_bundle(machine.bundle, tmp_path / f"made-{made}", change)

    return make


def refused(bundle: Path, store: Store, error: type[EdgeCmclError] = RefusedError) -> EdgeCmclError:
    """Install `bundle`, expect `error` that says what to do, and a store that is as it was."""
    before = everything(store)
    with pytest.raises(error) as caught:
        install(bundle, store.root)
    assert caught.value.expected
    assert caught.value.got
    assert everything(store) == before
    return caught.value


NO_GRAPH = b"not onnx at all"


def another(store: Store, digest: str) -> bytes:
    """Return the graph `digest` with another doc_string: it opens as well, under another digest."""
    return store.load("good").read(digest) + b"\x32\x01x"


def with_universal(store: Store, generation: Generation, graph: bytes) -> dict[str, Any]:
    digest = store.put(graph)
    return {"universal": digest, **changed_modality(generation, "vibration", encoder_blob=digest)}


def with_encoder(store: Store, generation: Generation, graph: bytes) -> dict[str, Any]:
    return changed_modality(generation, "current", encoder_blob=store.put(graph))


UNUSABLE: dict[str, tuple[str, Change]] = {
    "universal encoder, no graph": ("the universal encoder", lambda s, g: with_universal(s, g, NO_GRAPH)),
    "universal encoder, the step": ("the universal encoder", lambda s, g: with_universal(s, g, another(s, g.step))),
    "step, no graph": ("the training step", lambda s, g: {"step": s.put(NO_GRAPH)}),
    "step, the encoder": ("the training step", lambda s, g: {"step": s.put(another(s, g.universal))}),
    "encoder, no graph": ("the encoder of current", lambda s, g: with_encoder(s, g, NO_GRAPH)),
    "encoder, the step": ("the encoder of current", lambda s, g: with_encoder(s, g, another(s, g.step))),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_graph_that_cannot_run_here_is_refused_and_the_working_generation_stays(
    store: Store, changed: Callable[[Change], Path], case: str
) -> None:
    what, change = UNUSABLE[case]
    error = refused(changed(change), store)
    assert f"cannot run {what}" in error.message
    assert error.exit_code == 5
    assert "export the bundle again" in error.hint


def test_an_unusable_first_bundle_leaves_no_store(changed: Callable[[Change], Path], tmp_path: Path) -> None:
    bundle = changed(lambda s, g: {"step": s.put(NO_GRAPH)})
    with pytest.raises(RefusedError):
        install(bundle, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def with_golden(
    modality: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], part: str = "outputs"
) -> Change:
    """Return a change of the golden windows or embeddings of a modality."""

    def apply(store: Store, generation: Generation) -> dict[str, Any]:
        digest = generation.modalities[modality].golden_blob
        assert digest is not None
        golden = golden_from_bytes(store.load("good").read(digest))
        parts = {"inputs": dict(golden.inputs), "outputs": dict(golden.outputs)}
        (name,) = parts[part]
        parts[part][name] = np.ascontiguousarray(change(parts[part][name].copy()))
        return changed_modality(generation, modality, golden_blob=store.put(golden_to_bytes(Golden(**parts))))

    return apply


def off_by(amount: float, rows: slice) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    def change(embeddings: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        embeddings[rows, 0] += np.float32(amount)
        return embeddings

    return change


@pytest.mark.parametrize(
    ("modality", "amount", "rows"),
    [
        ("current", 0.005, slice(0, 1)),
        ("vibration", 0.005, slice(0, 2)),
        ("vibration", 0.1, slice(0, 1)),
        ("vibration", -1.0, slice(None)),
    ],
)
def test_a_sensor_that_embeds_its_golden_windows_differently_is_refused(
    store: Store, changed: Callable[[Change], Path], modality: str, amount: float, rows: slice
) -> None:
    error = refused(changed(with_golden(modality, off_by(amount, rows))), store, ParityError)
    assert error.exit_code == 4
    assert error.message.startswith(f"{modality} answers differently")
    assert error.hint


def test_one_window_in_which_a_count_of_the_universal_encoder_flips_is_no_failure(
    store: Store, changed: Callable[[Change], Path]
) -> None:
    """What another processor's rounding does; host/parity.py says how often."""
    bundle = changed(with_golden("vibration", off_by(0.008, slice(2, 3))))
    assert install(bundle, store.root).digest == store.tags()[CURRENT]


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("inputs", lambda windows: windows[:, :, :2]),
        ("inputs", lambda windows: windows[:, :15]),
        ("inputs", lambda windows: windows[:3]),
        ("inputs", lambda windows: windows[0]),
        ("inputs", lambda windows: windows.astype(np.int64)),
        ("outputs", lambda embeddings: embeddings[:, :-1]),
    ],
    ids=["channels", "samples", "count", "rank", "dtype", "dimensions"],
)
def test_golden_vectors_that_do_not_fit_their_sensor_are_refused(
    store: Store, changed: Callable[[Change], Path], part: str, change: Any
) -> None:
    assert refused(changed(with_golden("vibration", change, part)), store, FormatError).exit_code == 4


def test_a_sensor_without_golden_vectors_is_taken_as_the_format_allows(
    store: Store, changed: Callable[[Change], Path]
) -> None:
    assert install(changed(lambda s, g: changed_modality(g, "vibration", golden_blob=None)), store.root).counter == 1


def test_a_bundle_of_another_project_is_refused(store: Store, changed: Callable[[dict[str, Any]], Path]) -> None:
    error = refused(changed({"name": "another"}), store, WrongBaseError)
    assert (error.expected, error.got) == ("a bundle of machine", "another")
    assert "--store" in error.hint


@pytest.mark.parametrize("own", ["", "agx"])
def test_a_bundle_bound_to_other_hardware_is_refused(
    store: Store, changed: Callable[[dict[str, Any]], Path], own: str
) -> None:
    with store.writer():
        store.save_state(store.state().model_copy(update={"device_class": own}))
    assert "device class orin" in refused(changed({"device_class": "orin"}), store, WrongDeviceError).got


def test_a_bundle_for_this_hardware_and_one_for_any_are_taken(
    store: Store, changed: Callable[[dict[str, Any]], Path], machine: Machine
) -> None:
    with store.writer():
        store.save_state(store.state().model_copy(update={"device_class": "orin"}))
    assert install(changed({"device_class": "orin"}), store.root).counter == 1
    assert install(machine.bundle, store.root).counter == 1


def test_a_bundle_with_a_lower_counter_than_one_that_was_here_is_refused(
    store: Store, changed: Callable[[dict[str, Any]], Path]
) -> None:
    first = store.tags()[CURRENT]
    five, three, six = (changed({"counter": counter}) for counter in (5, 3, 6))
    install(five, store.root)
    assert "generation 5 or a later one" in refused(three, store, OlderError).expected
    rollback(store)
    assert store.tags()[CURRENT] == first
    refused(three, store, OlderError)
    install(five, store.root)
    assert install(six, store.root).counter == 6
    assert store.state().highest_counter == 5  # of those before the current one, which says its own


def test_an_update_from_elsewhere_with_a_lower_counter_is_refused(
    store: Store, changed: Callable[[dict[str, Any]], Path]
) -> None:
    parent = {"parents": ("sha256:" + "7" * 64,), "base": store.tags()[CURRENT], "action": "merge"}
    install(changed({"counter": 5, **parent}), store.root)
    refused(changed({"counter": 4, **parent}), store, OlderError)
    refused(changed({"counter": 4}), store, OlderError)


def test_what_continues_a_base_that_was_never_here_is_refused(
    store: Store, changed: Callable[[dict[str, Any]], Path]
) -> None:
    elsewhere = {"parents": ("sha256:" + "7" * 64,), "base": "sha256:" + "8" * 64, "action": "merge", "counter": 5}
    error = refused(changed(elsewhere), store, WrongBaseError)
    assert store.tags()[CURRENT][:19] in error.expected
    assert "8888" in error.got


def test_a_newer_base_can_be_installed_after_going_back_to_the_older_one(
    taught_copy: Store, changed: Callable[[dict[str, Any]], Path]
) -> None:
    """What the device had learned by itself counts further than any base does; that must not shut bases out."""
    newer = changed({"created": "2036-01-02T03:04:05Z"})
    refused(newer, taught_copy)
    rollback(taught_copy)
    learned = taught_copy.state().highest_counter
    assert install(newer, taught_copy.root).counter == 1
    assert taught_copy.state().highest_counter == learned == 2


def test_rollback_undoes_an_install_that_continues_nothing_here(
    store: Store, changed: Callable[[dict[str, Any]], Path]
) -> None:
    first = store.tags()[CURRENT]
    second = install(changed({"created": "2036-01-02T03:04:05Z"}), store.root).digest
    assert store.tags()[PREVIOUS] == first
    assert rollback(store).digest == first
    assert PREVIOUS not in store.tags()
    with pytest.raises(ModelError, match="nothing to roll back to"):
        rollback(store)
    assert rollback(store, second).digest == second


def test_two_exports_of_one_run_are_both_found_again(store: Store, changed: Callable[[dict[str, Any]], Path]) -> None:
    first = store.tags()[CURRENT]
    second = install(changed({"software": "edge-cmcl 99"}), store.root).digest
    entries = {entry["digest"]: entry["tags"] for entry in log(store)}
    assert entries.keys() == {first, second}
    rollback(store)
    assert {entry["digest"] for entry in log(store)} == {first, second}
