"""The result of `edge-cmcl benchmark --json`, read back and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_cmcl.errors import DataError

SCHEMA = "edge-cmcl/benchmark/1"
_MAX_BYTES = 16 << 20

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LatencyRow(_Part):
    """Times of one batch size; fields as in `device.benchmark.Latency`."""

    batch: Annotated[int, Field(ge=1)]
    median_ms: NotNegative
    p95_ms: NotNegative
    p99_ms: NotNegative
    windows_per_s: NotNegative
    blas_ms: NotNegative | None = None
    share_of_blas: NotNegative | None = None
    joules_per_window: NotNegative | None = None


class EncoderRow(_Part):
    """One sensor; fields as in `device.benchmark.EncoderBenchmark`."""

    modality: Text
    precision: Text
    provider: Text
    encoder_bytes: Annotated[int, Field(ge=0)]
    load_ms: NotNegative
    peak_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    latency: Annotated[list[LatencyRow], Field(max_length=64)]
    recall_at_10: NotNegative | None = None


class UpdateRow(_Part):
    """Where the time of an update went."""

    modality: Text
    pairs: Annotated[int, Field(ge=1)]
    seconds_per_1000_pairs: dict[Text, NotNegative]


class StepRow(_Part):
    """One training step."""

    batch: Annotated[int, Field(ge=1)]
    median_ms: NotNegative
    blas_ms: NotNegative
    share_of_blas: NotNegative


class Benchmark(_Part):
    """One benchmark of one generation on one machine."""

    schema_name: Annotated[Literal["edge-cmcl/benchmark/1"], Field(alias="schema")]
    software: Text
    onnxruntime: Text
    threads: Annotated[int, Field(ge=0)]
    generation: dict[Text, Any]
    encoders: Annotated[list[EncoderRow], Field(max_length=1000)]
    step: StepRow
    update: UpdateRow | None = None

    @property
    def title(self) -> str:
        """Name and number of the generation."""
        return f"{self.generation.get('name', '')} {self.generation.get('counter', '')}".strip()


def is_benchmark(path: Path) -> bool:
    """Return whether the file `path` says that it holds a benchmark."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and str(found.get("schema", "")).startswith("edge-cmcl/benchmark/")


def load_benchmark(path: Path) -> Benchmark:
    """Read the benchmark at `path`.

    Raises:
        DataError: it is damaged, or of another version.
    """
    try:
        return Benchmark.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        got = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DataError(f"{path} is no whole benchmark", expected=SCHEMA, got=got) from error
