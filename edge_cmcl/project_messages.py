"""From pydantic's account of a wrong project file to one error that the user can act on.

Only the first problem is told: the next one shows after it is mended, and many are consequences of the first.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_cmcl.errors import ProjectError

_Location = tuple[int | str, ...]


def explain(error: ValidationError, model: type[BaseModel], path: Path, text: str, hint: str) -> ProjectError:
    """Turn the first problem of `error`, raised by `model` for the TOML `text` of `path`, into a ProjectError."""
    # A misspelt key also leaves the right one missing: the spelling is what the user has to mend.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    location = problem["loc"]
    line = _line_of(text, location)
    where = f"{path}, line {line}" if line else str(path)
    key = short(_dotted(location))
    if problem["type"] == "extra_forbidden":
        return _unknown_key(where, key, location, model)
    if problem["type"] == "missing":
        return ProjectError(f"{where}: {key} is missing", expected=f"the key {short(repr(location[-1]))}", hint=hint)
    named = f"{key} is not valid" if key else "the file is not valid"
    return ProjectError(f"{where}: {named}", expected=_expected(problem), got=_got(problem), hint=hint)


def _unknown_key(where: str, key: str, location: _Location, model: type[BaseModel]) -> ProjectError:
    known = list(_table_at(model, location[:-1]).model_fields)
    nearest = get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "remove it, or see the keys above"
    return ProjectError(
        f"{where}: unknown key {key}", expected=f"one of {', '.join(known)}", got=short(repr(location[-1])), hint=hint
    )


def _table_at(model: type[BaseModel], location: _Location) -> type[BaseModel]:
    """Return the model of the table at `location`: for ("modality", "acc") that of `[modality.NAME]`."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _table_in(model.model_fields[part].annotation) or model
    return model


def _table_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for argument in get_args(annotation) if (table := _table_in(argument))), None)


def _expected(problem: ErrorDetails) -> str:
    if problem["type"] == "value_error":
        return short(str(problem["ctx"]["error"]), 300)
    message = problem["msg"]
    message = re.sub(r"^(Input|Value|Tuple|String|Dictionary) should (be|have|match) (a |an )?(valid )?", "", message)
    return {"dictionary or instance of ModalityTable": "a table"}.get(message, message)


def _got(problem: ErrorDetails) -> str:
    value = problem["input"]
    if isinstance(value, (dict, BaseModel)):
        return ""
    names = {str: "string", bool: "boolean", int: "integer", float: "float", list: "array"}
    return f"{short(repr(value))} ({names.get(type(value), type(value).__name__)})"


def short(text: str, most: int = 60) -> str:
    """Return the beginning of `text`: what a hostile file says need not be told at full length."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _dotted(location: _Location) -> str:
    dotted = ""
    for part in location:
        if isinstance(part, int):
            dotted += f"[{part}]"
        else:
            dotted += f".{part}" if dotted else part
    return dotted


def _line_of(text: str, location: _Location) -> int | None:
    """Find the line of a key, or else of its table, in plainly written TOML; None where it is written otherwise."""
    table: list[str] = []
    elements: dict[str, int] = {}
    best = None
    wanted = [str(part) for part in location]
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line)
        if header:
            table = header[2].split(".")
            if header[1] == "[[":
                elements[header[2]] = elements.get(header[2], -1) + 1
                table.append(str(elements[header[2]]))
            if table and wanted[: len(table)] == table:
                best = number
            continue
        key = re.match(r"\s*([\w\-]+)\s*=", line)
        if key and wanted[: len(table) + 1] == [*table, key[1]]:
            return number
    return best
