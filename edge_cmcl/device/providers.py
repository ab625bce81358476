"""Where graphs run: onnxruntime's execution providers for the target that a bundle was exported for.

What a target asks for and this machine does not have is told as a warning, and the CPU does it. Options are those of
onnxruntime's documentation of its CUDA and TensorRT execution providers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import onnxruntime as ort

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import BATCH
from edge_cmcl.device.runtime import CPU, CUDA, FP16, INT8, TENSORRT, runtime_of
from edge_cmcl.device.sessions import CPU_PROVIDER, Provider
from edge_cmcl.errors import EdgeCmclWarning, PlatformError, UsageError
from edge_cmcl.homes import cache_folder

CUDA_PROVIDER: Final = "CUDAExecutionProvider"
TENSORRT_PROVIDER: Final = "TensorrtExecutionProvider"

OF_TARGET = {CPU: CPU_PROVIDER, CUDA: CUDA_PROVIDER, TENSORRT: TENSORRT_PROVIDER}
"""The provider that a target is named for."""

_CUDA: Provider = (CUDA_PROVIDER, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
"""TF32 moves embeddings by 3e-5 instead of 6e-8 (measured, README); an exhaustive search would begin anew with every
batch size and window length."""


class ProviderWarning(EdgeCmclWarning):
    """A graph does not run where its bundle was exported for, or is about to be built for minutes."""


def providers_of(record: ModalityRecord, digest: str) -> list[Provider]:
    """Return the providers for a sensor's encoder, the preferred one first; the CPU is always the last.

    Args:
        record: the sensor's record.
        digest: of its encoder's blob, by which built engines are kept.
    """
    target = runtime_of(record).target
    tensorrt: list[Provider] = [(TENSORRT_PROVIDER, tensorrt_options(record, digest))] if target == TENSORRT else []
    return [*tensorrt, *([_CUDA] if target != CPU else []), CPU_PROVIDER]


def shared_providers(records: Mapping[str, ModalityRecord]) -> list[Provider]:
    """Return the providers for the shared universal encoder: those of the sensors that use it."""
    wanted = any(runtime_of(r).target == CUDA for r in records.values() if r.encoder == "universal")
    return [_CUDA, CPU_PROVIDER] if wanted else [CPU_PROVIDER]


def tensorrt_options(record: ModalityRecord, digest: str) -> dict[str, str]:
    """Return TensorRT's options: engines and timings are kept on disk, for batches of 1 to `BATCH` windows."""
    folder, runtime = engine_folder(digest), runtime_of(record)
    sides = record.frame or (record.channels or 1,)
    window = (nominal_samples(record), *sides)
    shapes = {name: "windows:" + "x".join(map(str, (batch, *window))) for name, batch in _PROFILE.items()}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent),
        "trt_fp16_enable": str(int(runtime.precision == FP16)),
        "trt_int8_enable": str(int(runtime.precision == INT8)),
        **{f"trt_profile_{name}_shapes": shape for name, shape in shapes.items()},
    }


_PROFILE = {"min": 1, "opt": 16, "max": BATCH}


def nominal_samples(record: ModalityRecord) -> int:
    """Return how many samples a window has at the sensor's nominal rate; 64 where it has none."""
    return max(16, round(record.rate_hz * record.window_s)) if record.rate_hz and record.window_s else 64


def engine_folder(digest: str) -> Path:
    """Return where TensorRT keeps the engine of the graph `digest`: $XDG_CACHE_HOME/edge-cmcl/tensorrt/HEX."""
    return cache_folder() / "tensorrt" / digest.removeprefix("sha256:")[:32]


def is_built(digest: str) -> bool:
    """Return whether an engine of the graph `digest` is kept here already."""
    return any(engine_folder(digest).glob("*.engine"))


def usable(wanted: Sequence[Provider], name: str) -> list[Provider]:
    """Return those of `wanted` that this onnxruntime was built with.

    Warns:
        ProviderWarning: the first of them is not among them.
    """
    available = set(ort.get_available_providers())
    found = [provider for provider in wanted if name_of(provider) in available]
    if wanted and (not found or name_of(found[0]) != name_of(wanted[0])):
        missing, instead = name_of(wanted[0]), name_of(found[0]) if found else CPU_PROVIDER
        told = f"this onnxruntime {ort.__version__} has no {missing}: {instead} runs {name}"
        warnings.warn(f"{told}; install onnxruntime-gpu for this board to change that", ProviderWarning, stacklevel=2)
    return found


def check_loaded(session: ort.InferenceSession, wanted: Sequence[Provider], name: str) -> str:
    """Return the provider that `session` prefers.

    Warns:
        ProviderWarning: it is not the first of `wanted`: a library that it needs did not load.
    """
    first = str(session.get_providers()[0])
    if wanted and first != name_of(wanted[0]):
        told = f"{name_of(wanted[0])} did not load on this machine: {first} runs {name}"
        advice = "check that its libraries (CUDA, cuDNN, TensorRT) are those that onnxruntime was built for"
        warnings.warn(f"{told}; {advice}", ProviderWarning, stacklevel=2)
    return first


def check_known(providers: Sequence[str]) -> None:
    """Check that `providers` are names that onnxruntime has, built in here or not.

    Raises:
        UsageError: one is not.
    """
    for name in providers:
        if name not in ort.get_all_providers():
            raise UsageError(
                f"{name} is no execution provider",
                expected=f"{', '.join(OF_TARGET.values())}, or another of onnxruntime's",
                got=name,
                hint=f"this onnxruntime was built with {', '.join(ort.get_available_providers())}",
            )


def check_available(provider: str) -> None:
    """Check that this onnxruntime was built with `provider`.

    Raises:
        PlatformError: it was not.
    """
    if provider not in ort.get_available_providers():
        raise PlatformError(
            f"this onnxruntime has no {provider}",
            expected=f"onnxruntime-gpu with {provider}",
            got=f"onnxruntime {ort.__version__} with {', '.join(ort.get_available_providers())}",
            hint="install the onnxruntime-gpu that was built for this board, and no other onnxruntime beside it",
        )


def name_of(provider: Provider) -> str:
    """Return the name of a provider that may come with options."""
    return provider if isinstance(provider, str) else provider[0]
