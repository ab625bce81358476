"""The result file of a comparison: its schema, and reading and writing it. RESULTS.md explains every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import DataError
from edge_cmcl.project import TEXT

SchemaId = Literal["edge-cmcl/comparison/1"]
SCHEMA: SchemaId = "edge-cmcl/comparison/1"
FILE_NAME = "comparison.json"
"""What a result is called inside a folder."""

SENSOR_METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")
TEXT_METRICS = ("accuracy", "map")
METRICS = (*SENSOR_METRICS, *TEXT_METRICS)
"""What a pair is judged by: the first four between two sensors, the last two against labels."""

OURS = "ours"
"""Name of the product's own strategy."""

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Matrix = tuple[tuple[Share | None, ...], ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StepResult(_Part):
    """One step of the stream: a pair of modalities; the second may be "text", the labels."""

    name: Annotated[str, Field(min_length=1)]
    modalities: tuple[str, str]
    train_rows: Count
    test_rows: Count
    gallery: Annotated[int, Field(ge=1)]
    chance: Share

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that this pair is judged by."""
        return TEXT_METRICS if self.modalities[1] == TEXT else SENSOR_METRICS


class StreamResult(_Part):
    """What was learned, in this order."""

    name: str
    steps: Annotated[tuple[StepResult, ...], Field(min_length=1)]


class CommonSettings(_Part):
    """What all strategies share."""

    width: Annotated[int, Field(ge=1)]
    embedding_dim: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]


class Corruption(_Part):
    """What was done to the windows before anything learned from them; None where nothing was."""

    noise_snr_db: Number | None = None
    missing_fraction: Share | None = None
    drift_rate: Number | None = None
    parts: Annotated[tuple[Literal["train", "test"], ...], Field(min_length=1)]


class Versions(_Part):
    """Versions of what computed it."""

    edge_cmcl: str
    python: str
    numpy: str
    torch: str
    onnxruntime: str


class Machine(_Part):
    """Where it was computed."""

    cpu: str
    cores: Annotated[int, Field(ge=1)]
    memory_bytes: Count


class SecondsUsed(_Part):
    """Wall time of learning; one entry of `steps` alone belongs to a strategy that learns all steps together."""

    total: Seconds
    steps: tuple[Seconds, ...]


class StoredBetweenSteps(_Part):
    """What is kept beside the adapters after the last step, and how much of it each step."""

    bytes: Count
    raw_samples: Count
    details: dict[str, Count] = {}
    bytes_by_step: tuple[Count, ...] = ()


class CertificateEntry(_Part):
    """A bound on the displacement of one origin (`continual.certificate.Certificate`)."""

    modality: str
    origin: str
    bound: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    relative: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Cell(_Part):
    """What one strategy did with one seed; `matrices[metric][t][i]` is the score of pair i after step t."""

    strategy: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,48}$")]
    title: Annotated[str, Field(min_length=1)]
    source: str
    kind: Literal["continual", "reference"]
    seed: Count
    settings: dict[str, bool | int | Number | str]
    matrices: dict[str, Matrix]
    seconds: SecondsUsed
    peak_memory_bytes: Count | None = None
    stored: StoredBetweenSteps
    certificate: tuple[CertificateEntry, ...] | None = None


class Comparison(_Part):
    """The results of `edge-cmcl compare`; cells that are not there have not been computed."""

    schema_id: Annotated[SchemaId, Field(alias="schema")] = SCHEMA
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    versions: Versions
    machine: Machine
    stream: StreamResult
    settings: CommonSettings
    corruption: Corruption | None = None
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _cells_fit(self) -> Comparison:
        first: dict[str, Cell] = {}
        seen: set[tuple[str, int]] = set()
        for cell in self.cells:
            same = first.setdefault(cell.strategy, cell)
            where = f"cell {cell.strategy}, seed {cell.seed}"
            if (cell.title, cell.source, cell.kind) != (same.title, same.source, same.kind):
                raise ValueError(f"{where}: one title, source and kind per strategy")
            if (cell.strategy, cell.seed) in seen or cell.seed not in self.settings.seeds:
                raise ValueError(f"{where}: each seed of the settings once per strategy")
            if len(cell.seconds.steps) not in (1, len(self.stream.steps)):
                raise ValueError(f"{where}: seconds.steps has one entry per step, or one for all of them")
            seen.add((cell.strategy, cell.seed))
            _check_matrices(cell, self.stream.steps, where)
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the stream's pairs, in the order of tables."""
        return tuple(name for name in METRICS if any(name in step.metrics for step in self.stream.steps))

    @property
    def headline(self) -> str:
        """The metric that strategies are ordered by: R@10, or accuracy where no pair is of two sensors."""
        return "recall_at_10" if "recall_at_10" in self.metrics else "accuracy"

    def strategies(self) -> dict[str, tuple[Cell, ...]]:
        """Return the cells of each strategy by seed; strategies stand in the order of their first cells."""
        names = dict.fromkeys(cell.strategy for cell in self.cells)
        by_seed = sorted(self.cells, key=lambda cell: cell.seed)
        return {name: tuple(cell for cell in by_seed if cell.strategy == name) for name in names}


def _check_matrices(cell: Cell, steps: tuple[StepResult, ...], where: str) -> None:
    """Check that each metric has a T x T matrix, numbers only where a pair has that metric, and a full last row."""
    expected = [name for name in METRICS if any(name in step.metrics for step in steps)]
    if sorted(cell.matrices) != sorted(expected):
        raise ValueError(f"{where}: matrices of {', '.join(expected)}")
    for metric, matrix in cell.matrices.items():
        if len(matrix) != len(steps) or any(len(row) != len(steps) for row in matrix):
            raise ValueError(f"{where}: {metric} as a {len(steps)} x {len(steps)} matrix, one row and column per step")
        for column, step in enumerate(steps):
            scores = [row[column] for row in matrix]
            if metric not in step.metrics and any(score is not None for score in scores):
                raise ValueError(f"{where}: no {metric} for step {step.name}, whose pair is not judged by it")
            if metric in step.metrics and scores[-1] is None:
                raise ValueError(f"{where}: {metric} of step {step.name} in the last row, when all is learned")


def load(path: Path | str) -> Comparison:
    """Read and check the result at `path`, a file or a folder with `FILE_NAME` in it.

    Raises:
        DataError: it is missing, is not JSON, has another schema or version, or breaks a rule of RESULTS.md.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    hint = "give the file that `edge-cmcl compare` wrote"
    try:
        data = path.read_bytes()
        found = json.loads(data)
    except OSError as error:
        raise DataError(f"cannot read {path}", expected="a result file", got=error.strerror or "", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON", expected="a result file", got=str(error), hint=hint) from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        known = isinstance(schema, str) and schema.rpartition("/")[0] == SCHEMA.rpartition("/")[0]
        hint = "use the edge-cmcl that wrote it, or compare again" if known else hint
        raise DataError(f"{path} is not a result of this version", expected=SCHEMA, got=_short(schema), hint=hint)
    try:
        return Comparison.model_validate_json(data)
    except ValidationError as error:
        raise _explained(path, error.errors()[0]) from error


def save(comparison: Comparison, path: Path | str) -> None:
    """Write `comparison` to the file `path`, durably.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(Path(path), (comparison.model_dump_json(by_alias=True, indent=1) + "\n").encode())


def _explained(path: Path, problem: ErrorDetails) -> DataError:
    where = ".".join(str(part) for part in problem["loc"])
    own = problem["type"] == "value_error"
    expected = str(problem["ctx"]["error"]) if own else problem["msg"]
    got = "" if own or problem["type"] == "missing" else _short(problem["input"])
    message = f"{path}: {where} is not valid" if where else f"{path} contradicts itself"
    hint = "compare again; RESULTS.md in edge_cmcl/report describes the schema"
    return DataError(message, expected=expected, got=got, hint=hint)


def _short(value: Any) -> str:
    text = "no schema" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
