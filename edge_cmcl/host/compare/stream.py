"""The stream file of a comparison: which pairs of modalities are learned, one after the other, from which files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, field_validator

from edge_cmcl.errors import ProjectError, UsageError
from edge_cmcl.project import TEXT
from edge_cmcl.tables import FilePath, Table, is_file, load_table

PARTS = ("train", "test")

_Modality = Annotated[str, Field(max_length=64)]
_Names = Annotated[tuple[_Modality, _Modality], Field(strict=False)]


class StepTable(Table):
    """One `[[step]]`: a pair of modalities, and the pairs files to learn it from and to test it on.

    `name` is also the task under which the product learns it. The second modality may be "text", the labels.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,48}$")]
    modalities: _Names
    train: FilePath
    test: FilePath

    @field_validator("modalities")
    @classmethod
    def _two_names(cls, modalities: tuple[str, str]) -> tuple[str, str]:
        if modalities[0] == TEXT or modalities[0] == modalities[1]:
            raise ValueError(f'a sensor, then another sensor or "{TEXT}" for the labels')
        return modalities

    @property
    def files(self) -> tuple[str, str]:
        """The training and the test file."""
        return self.train, self.test


class Stream(Table):
    """A validated stream; paths are relative to the stream file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    embedding_dim: Annotated[int, Field(ge=2, le=8192)] = 256
    width: Annotated[int, Field(ge=12, le=1 << 16, multiple_of=12)] = 1800
    step: Annotated[tuple[StepTable, ...], Field(strict=False, min_length=1)]
    _folder: Path = PrivateAttr(default=Path())

    @field_validator("step")
    @classmethod
    def _unique(cls, steps: tuple[StepTable, ...]) -> tuple[StepTable, ...]:
        names = [step.name for step in steps]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each step under a name of its own (twice: {', '.join(twice)})")
        return steps

    def with_files(self, files: Mapping[str, Path]) -> Stream:
        """Return this stream with some of its files replaced."""
        steps = tuple(
            step.model_copy(update={part: str(files[file]) for part in PARTS if (file := getattr(step, part)) in files})
            for step in self.step
        )
        changed = self.model_copy(update={"step": steps})
        changed._folder = self._folder
        return changed

    def with_width(self, width: int) -> Stream:
        """Return this stream with another number of features.

        Raises:
            UsageError: the encoder has no such width.
        """
        if width < 12 or width % 12:
            raise UsageError("no encoder has this width", expected="a multiple of 12", got=str(width))
        changed = self.model_copy(update={"width": width})
        changed._folder = self._folder
        return changed

    def path(self, file: str) -> Path:
        """Return the path of `file`, as a step names it."""
        return self._folder / file


def load_stream(path: Path | str) -> Stream:
    """Read and check the stream file at `path`.

    Raises:
        ProjectError: it is missing, is not TOML, breaks a rule, or names a file that is not there.
    """
    path = Path(path)
    stream = load_table(Stream, path, "stream file", "README.md, `Compare`, shows an example")
    stream._folder = path.parent
    files = dict.fromkeys(stream.path(file) for step in stream.step for file in step.files)
    missing = [file for file in files if not is_file(file)]
    if missing:
        raise ProjectError(
            f"the stream {stream.name} names {len(missing)} missing file(s)",
            expected="pairs files, relative to the stream file",
            got=", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else ""),
            hint="make them with `edge-cmcl data prepare` or `edge-cmcl data import`",
        )
    return stream
