"""The project file `edge-cmcl.toml`: which modalities there are, which pairs, and how to train (design.md section 4).

Every value is checked on loading: a message names the key, its line, what was expected and what came. Whether the
files it points to exist is left to `Project.missing_files`, so that a project can be written before its data.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from edge_cmcl import limits
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.errors import ProjectError
from edge_cmcl.tables import FilePath, Table, check_path, is_file, load_table

FILE_NAME = "edge-cmcl.toml"
TEXT = "text"
MIN_SAMPLES = 16
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_RESERVED = {TEXT, "label", "group", "time", "valid"}  # they have another meaning in pairs files
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TensorName = Annotated[str, Field(max_length=64)]
_Names = Annotated[tuple[_TensorName, _TensorName], Field(strict=False)]
_Files = Annotated[tuple[FilePath, ...], Field(strict=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Side = Annotated[int, Field(ge=1, le=limits.MAX_FRAME_SIDE)]


class ModalityTable(Table):
    """One `[modality.NAME]`: a sensor, the window it is cut into, and the encoder that reads it."""

    channels: Annotated[int, Field(ge=1, le=4096)] | None = None
    frame: Annotated[tuple[_Side, _Side], Field(strict=False)] | None = None
    rate_hz: _Positive
    window_s: _Positive
    unit: Annotated[str, Field(max_length=limits.MAX_UNIT_LENGTH)] = ""
    scale: _Positive = 1.0
    encoder: str = "universal"

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str) -> str:
        kind, _, path = encoder.partition("onnx:")
        if encoder not in ("universal", "conv") and (kind or not path.strip()):
            raise ValueError('"universal", "conv" or "onnx:PATH"')
        check_path(path)
        return encoder

    @model_validator(mode="after")
    def _one_window(self) -> ModalityTable:
        if (self.channels is None) == (self.frame is None):
            raise ValueError("either channels (a series) or frame = [height, width], and not both")
        values = math.prod(self.frame) if self.frame else self.channels or 0
        if not self.rate_hz * self.window_s * values <= limits.MAX_WINDOW_VALUES:
            raise ValueError(f"windows of at most {limits.MAX_WINDOW_VALUES} values (rate_hz * window_s * channels)")
        if self.samples < MIN_SAMPLES:
            raise ValueError(f"rate_hz * window_s of at least {MIN_SAMPLES} samples")
        return self

    @property
    def samples(self) -> int:
        """Samples of one window at the nominal rate."""
        return round(self.rate_hz * self.window_s)

    @property
    def window_shape(self) -> tuple[int, ...]:
        """Shape of one window: (T, C) for a series, (T, H, W) for frames."""
        return (self.samples, *self.frame) if self.frame else (self.samples, self.channels or 0)


class PairTable(Table):
    """One `[[pair]]`: two modalities recorded together, and the pairs files that hold them."""

    modalities: _Names
    train: Annotated[_Files, Field(min_length=1)]
    validation: _Files = ()
    tensors: _Names | None = None

    @property
    def name(self) -> str:
        """The pair's name in tables and metrics, "a-b"."""
        return "-".join(self.modalities)

    @property
    def tensor_names(self) -> tuple[str, str]:
        """The names of both tensors in the pairs files; "text" stands for the labels."""
        return self.tensors or self.modalities


class TrainTable(Table):
    """`[train]`: how the base model is trained."""

    epochs: Annotated[int, Field(ge=1)] = 60
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: _Positive = 1e-3
    patience: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class Project(Table):
    """A validated project; `folder` is where its relative paths start."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    embedding_dim: Annotated[int, Field(ge=2, le=8192)] = 256
    width: Annotated[int, Field(ge=12, le=1 << 16, multiple_of=12)] = 1800
    modality: Annotated[dict[str, ModalityTable], Field(min_length=1, max_length=limits.MAX_MODALITIES - 1)]
    pair: Annotated[tuple[PairTable, ...], Field(strict=False, min_length=1, max_length=limits.MAX_PAIRS)]
    train: TrainTable = TrainTable()
    _folder: Path = PrivateAttr(default=Path())

    @field_validator("modality")
    @classmethod
    def _names(cls, tables: dict[str, ModalityTable]) -> dict[str, ModalityTable]:
        for name in tables:
            if name in _RESERVED:
                raise ValueError(f"modality names other than {', '.join(sorted(_RESERVED))} (got {name!r})")
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"modality names of a lower-case letter, then at most 31 of a-z, 0-9, _ (got {name!r})"
                )
        return tables

    @property
    def folder(self) -> Path:
        """The folder of the project file."""
        return self._folder

    def path(self, file: str) -> Path:
        """Return the path of `file`, a train or validation entry, from the project's folder."""
        return self._folder / file

    def encoder_path(self, modality: str) -> Path | None:
        """Return the ONNX file of a modality whose encoder is "onnx:PATH", else None."""
        encoder = self.modality[modality].encoder
        return self.path(encoder.removeprefix("onnx:")) if encoder.startswith("onnx:") else None

    def with_seed(self, seed: int) -> Project:
        """Return this project with another training seed."""
        changed = self.model_copy(update={"train": self.train.model_copy(update={"seed": seed})})
        changed._folder = self._folder
        return changed

    def missing_files(self) -> list[Path]:
        """Return the files that the project names and that are not there, each once, in the project's order."""
        encoders = [self.encoder_path(name) for name in self.modality]
        pairs = [self.path(file) for pair in self.pair for file in (*pair.train, *pair.validation)]
        named = dict.fromkeys([path for path in encoders if path] + pairs)
        return [path for path in named if not is_file(path)]

    def check_files(self) -> None:
        """Check that every file is there that the project names.

        Raises:
            ProjectError: one is missing.
        """
        missing = self.missing_files()
        if missing:
            raise ProjectError(
                f"the project {self.name} names {len(missing)} missing file(s)",
                expected="files, relative to the project file",
                got=", ".join(str(path) for path in missing[:5]) + (", ..." if len(missing) > 5 else ""),
                hint="make them with `edge-cmcl data prepare` or `edge-cmcl data import`, or correct the paths",
            )


def load_project(path: Path | str) -> Project:
    """Read and check the project file at `path`, or `edge-cmcl.toml` in it where `path` is a folder.

    Raises:
        ProjectError: the file is missing, is not TOML, or breaks a rule.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    project = load_table(Project, path, "project file", "`edge-cmcl init example.toml` writes a commented example")
    _check_pairs(project, path)
    project._folder = path.parent
    return project


def _check_pairs(project: Project, path: Path) -> None:
    known = ", ".join(project.modality)
    used: set[str] = set()
    for number, pair in enumerate(project.pair, start=1):
        where = f"{path}: pair {number} ({pair.name})"
        for i, name in enumerate(pair.modalities):
            if name not in project.modality and not (i == 1 and name == TEXT):
                expected = f"one of {known}" + (', or "text" for the labels' if i else "")
                hint = f"add a [modality.{name}] table or correct the name"
                raise ProjectError(
                    f"{where} names a modality that is not declared", expected=expected, got=name, hint=hint
                )
        if pair.modalities[0] == pair.modalities[1]:
            raise ProjectError(
                f"{where} joins a modality with itself", expected="two different modalities", got=pair.name
            )
        used.update(pair.modalities)
    _check_validation(project, path)
    for name in project.modality:
        if name not in used:
            hint = f"add a [[pair]] or remove [modality.{name}]: a device can learn it later without"
            raise ProjectError(f"{path}: no pair trains {name}", expected=f"a [[pair]] with {name!r}", hint=hint)


def _check_validation(project: Project, path: Path) -> None:
    """Refuse a file that is both trained on and validated on: every figure of such a training would be too good."""
    trained = {(path.parent / file).resolve(): pair.name for pair in project.pair for file in pair.train}
    for pair in project.pair:
        for file in pair.validation:
            trainer = trained.get((path.parent / file).resolve())
            if trainer is not None:
                raise ProjectError(
                    f"{path}: {file} is validated on by pair {pair.name} and trained on by pair {trainer}",
                    expected="validation files of other recordings",
                    got=file,
                    hint="leave validation out: a part of the training files that shares no group is held out then",
                )


def write_project(path: Path, text: str | None = None, *, force: bool = False) -> None:
    """Write the project file `text`, by default the commented example, to `path`, durably.

    Raises:
        ProjectError: there is one and `force` is not set.
        StorageError: the file system refused.
    """
    if path.exists() and not force:
        raise ProjectError(f"{path} exists already", expected="a new file", hint="--force replaces it")
    make_folder(path.parent)
    write_bytes(path, template().encode() if text is None else text.encode())


def template() -> str:
    """Return the text of the commented example of a project file."""
    return Path(__file__).with_name("project_template.toml").read_text(encoding="utf-8")
