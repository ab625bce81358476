"""Files that users write as TOML, read as validated tables: the project file, the stream file of a comparison.

A file of 1 MiB may hold what takes the TOML reader minutes, or its stack: that is refused first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edge_cmcl.errors import ProjectError
from edge_cmcl.project_messages import explain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 1 << 20
MAX_KEY_PARTS = 32
MAX_PATH = 4096

_KEY_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_KEY_PART}[ \t]*\.[ \t]*){{{MAX_KEY_PARTS}}}", re.ASCII)
"""A dotted key of more parts: Python's TOML reader takes time with their square, 45 s for 60 kB."""


def check_path(path: str) -> str:
    """Return `path`, which a file system may have.

    Raises:
        ValueError: it is too long, or holds control characters.
    """
    if len(path) > MAX_PATH or any(character < " " for character in path):
        raise ValueError(f"a path of at most {MAX_PATH} characters, none of them a control character")
    return path


FilePath = Annotated[str, Field(min_length=1), AfterValidator(check_path)]
"""The path of a file, as a table names it."""


class Table(BaseModel):
    """A table of a file that users write: every key is known, and of the right type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


AnyTable = TypeVar("AnyTable", bound=Table)


def load_table(model: type[AnyTable], path: Path, kind: str, hint: str) -> AnyTable:
    """Read the TOML file at `path` as one `model`; `kind` and `hint` are for the errors.

    Raises:
        ProjectError: the file is missing, is not TOML, or breaks a rule.
    """
    text = _read(path, kind, hint)
    fields = _parse(text, path, hint)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise explain(error, model, path, text, hint) from error


def is_file(path: Path) -> bool:
    """Return whether there is a file at `path`; one that no file system can hold is not there."""
    try:
        return path.is_file()
    except OSError:  # until Python 3.14: a name too long, a folder that may not be looked into
        return False


def _parse(text: str, path: Path, hint: str) -> dict[str, Any]:
    if _LONG_KEY.search(text):
        expected = f"dotted keys of at most {MAX_KEY_PARTS} parts"
        raise ProjectError(f"{path} has a key that is too long", expected=expected, hint=hint)
    try:
        fields: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside its own error: an integer of 5000 digits, absurd nesting
        raise ProjectError(
            f"{path} is not a TOML file", expected="TOML 1.0", got=str(error)[:200], hint=hint
        ) from error
    return fields


def _read(path: Path, kind: str, hint: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ProjectError(f"cannot read the {kind} {path}", got=error.strerror or "", hint=hint) from error
    if len(data) > MAX_FILE_BYTES:
        expected, got = f"at most {MAX_FILE_BYTES} bytes", "more"
        raise ProjectError(f"{path} is too large for a {kind}", expected=expected, got=got)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not a text file", expected="UTF-8", got=str(error)) from error
