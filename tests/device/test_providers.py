from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from changed_bundles import changed_bundle
from machine_bundle import Machine

from edge_cmcl.bundle import Generation, ModalityRecord, Store
from edge_cmcl.bundle.transfer import opened
from edge_cmcl.data import open_pairs
from edge_cmcl.device.encoders import NO_BLOB
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.prebuild import prebuild
from edge_cmcl.device.providers import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    TENSORRT_PROVIDER,
    ProviderWarning,
    engine_folder,
    name_of,
    providers_of,
    shared_providers,
)
from edge_cmcl.device.runtime import FP16, FP32, KEY, MAX_PRODUCTS, Runtime, runtime_of
from edge_cmcl.device.status import status
from edge_cmcl.device.store import install, open_store
from edge_cmcl.errors import PlatformError

DIGEST = "sha256:" + 64 * "a"
NO_GPU = pytest.mark.skipif(CUDA_PROVIDER in ort.get_available_providers(), reason="this onnxruntime has CUDA")


def record(**runtime: Any) -> ModalityRecord:
    return ModalityRecord(
        kind="series", channels=3, rate_hz=50.0, window_s=2.0, encoder="onnx",
        encoder_blob=NO_BLOB, width=24, adapter_blob=NO_BLOB,
        calibration={KEY: Runtime(**runtime).as_json()} if runtime else {},
    )  # fmt: skip


def for_target(machine: Machine, folder: Path, target: str) -> Path:
    """The machine's bundle, its sensors exported for `target`."""

    def change(store: Store, generation: Generation) -> dict[str, Any]:
        records = {
            name: each.model_copy(update={"calibration": {**each.calibration, KEY: Runtime(target=target).as_json()}})
            for name, each in generation.modalities.items()
        }
        return {"modalities": records}

    folder.mkdir()
    return changed_bundle(machine.bundle, folder, change)


def test_the_cpu_is_always_the_last_resort() -> None:
    orders = {
        target: [name_of(provider) for provider in providers_of(record(target=target), DIGEST)]
        for target in ("cpu", "cuda", "tensorrt")
    }
    assert orders == {
        "cpu": [CPU_PROVIDER],
        "cuda": [CUDA_PROVIDER, CPU_PROVIDER],
        "tensorrt": [TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER],
    }


def test_tensorrt_keeps_its_engines_and_knows_the_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for precision, fp16, int8 in (("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "0", "1")):
        first = providers_of(record(target="tensorrt", precision=precision), DIGEST)[0]
        assert isinstance(first, tuple)
        options = first[1]
        assert options["trt_engine_cache_enable"] == "1"
        assert options["trt_engine_cache_path"] == str(engine_folder(DIGEST))
        assert str(tmp_path) in options["trt_engine_cache_path"]
        assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)
        shapes = [options[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")]
        assert shapes == ["windows:1x100x3", "windows:16x100x3", "windows:64x100x3"]


def test_the_shared_encoder_runs_where_a_sensor_with_it_was_exported_for() -> None:
    shared = record(target="cuda").model_copy(update={"encoder": "universal"})
    assert [name_of(p) for p in shared_providers({"a": shared})] == [CUDA_PROVIDER, CPU_PROVIDER]
    assert shared_providers({"a": record(target="cuda"), "b": record()}) == [CPU_PROVIDER]


@pytest.mark.parametrize(
    "told",
    [
        "int8", 5, {}, {"precision": "int4", "target": "npu", "products": "many"},
        {"products": [[1, 2]]}, {"products": [[1, 2, -3]]}, {"products": [[1, 2, 3.5]]}, {"precision": ["int8"]},
        {"products": [[1, 1, 1]] * (MAX_PRODUCTS + 1)},
    ],
)  # fmt: skip
def test_what_is_not_understood_of_a_runtime_is_as_by_default(told: Any) -> None:
    odd = record().model_copy(update={"calibration": {KEY: told}})
    assert runtime_of(odd) == Runtime(FP32, "onnx", "cpu", ())


def test_a_runtime_comes_back_from_a_record_as_it_went_in() -> None:
    wanted = Runtime(FP16, "universal", "cuda", ((64, 21, 100), (3, 4, 5)))
    assert runtime_of(record(**vars(wanted))) == wanted


@NO_GPU
@pytest.mark.parametrize(("target", "missing"), [("cuda", CUDA_PROVIDER), ("tensorrt", TENSORRT_PROVIDER)])
def test_a_device_without_the_target_says_so_and_answers_on_the_cpu(
    machine: Machine, tmp_path: Path, target: str, missing: str
) -> None:
    bundle = for_target(machine, tmp_path / "made", target)
    windows = np.random.default_rng(0).standard_normal((3, 200, 1), dtype=np.float32)
    with opened(bundle) as loaded, opened(machine.bundle) as plain:
        with pytest.warns(ProviderWarning, match=f"has no {missing}: {CPU_PROVIDER} runs"):
            found = Model(loaded).embed("current", windows)
        np.testing.assert_array_equal(found, Model(plain).embed("current", windows))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is asked for by name is there: nothing to tell
            Model(loaded, providers=[CPU_PROVIDER]).embed("current", windows)


@NO_GPU
def test_a_device_learns_and_tells_what_runs_although_its_target_is_missing(machine: Machine, tmp_path: Path) -> None:
    bundle = for_target(machine, tmp_path / "made", "cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProviderWarning)
        install(bundle, tmp_path / "store", allow_unsigned=True)
        store = open_store(tmp_path / "store")
        with open_pairs(machine.new) as pairs:
            update(store, pairs, "acoustic", partners=["vibration"], force=True)
    with pytest.warns(ProviderWarning):
        told = {each["modality"]: each for each in status(store)["modalities"]}
    assert (told["vibration"]["target"], told["vibration"]["provider"]) == ("cuda", CPU_PROVIDER)
    assert (told["acoustic"]["target"], told["acoustic"]["provider"]) == ("cpu", CPU_PROVIDER)


@NO_GPU
def test_engines_cannot_be_built_ahead_without_tensorrt(machine: Machine, tmp_path: Path) -> None:
    with opened(for_target(machine, tmp_path / "made", "tensorrt")) as loaded, pytest.raises(PlatformError) as caught:
        prebuild(Model(loaded))
    assert caught.value.exit_code == 7
    assert TENSORRT_PROVIDER in caught.value.expected


def test_there_is_nothing_to_build_for_another_target(machine: Machine) -> None:
    with opened(machine.bundle) as loaded:
        assert prebuild(Model(loaded)) == []


@NO_GPU
def test_the_command_tells_what_is_missing(run_cli: Callable[..., Any], machine: Machine, tmp_path: Path) -> None:
    bundle = for_target(machine, tmp_path / "made", "tensorrt")
    done = run_cli("prebuild", bundle, "--json")
    assert done.code == 7
    assert TENSORRT_PROVIDER in done.json["error"]["message"]
    plain = run_cli("prebuild", machine.bundle, "--json")
    assert (plain.code, plain.json["engines"]) == (0, [])
