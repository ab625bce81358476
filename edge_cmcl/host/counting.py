"""The counter of exports: a run exported for the first time is newer than every run of its project before it.

Devices refuse a bundle that is older than what they had, and tell that by its counter alone. The count is kept beside
the key that signs, so that whoever can sign for a project also knows how far it has got.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import Counter, OwnModel, sealed, unsealed
from edge_cmcl.bundle.generation import Name
from edge_cmcl.bundle.lock import locked
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.durable import make_folder, write_bytes

COUNTS_FILE = "exports.json"
MAX_RUNS = 4096
SCHEMA: Final = "edge-cmcl/exports/1"


class _Counts(OwnModel):
    """The counter of each run that was exported, by project and run id, oldest first."""

    schema_name: Annotated[Literal["edge-cmcl/exports/1"], Field(alias="schema")] = SCHEMA
    projects: dict[Name, dict[str, Counter]] = Field(default_factory=dict)


def counter_of(folder: Path, project: str, run: str) -> int:
    """Return the counter with which a run is exported: the one that it had, or one above all of its project.

    Args:
        folder: where this user's keys are.
        project: the project's name.
        run: the run's id.

    Raises:
        FormatError: the count is damaged.
        StoreLockedError, StorageError: it cannot be written.
    """
    make_folder(folder)
    path = folder / COUNTS_FILE
    with locked(folder):
        counts = _read(path)
        runs = counts.projects.get(project, {})
        if run not in runs:
            latest = {**runs, run: max(runs.values(), default=0) + 1}
            kept = dict(list(latest.items())[-MAX_RUNS:])
            counts = _Counts(projects={**counts.projects, project: kept})
            write_bytes(path, sealed(counts))
            return kept[run]
    return runs[run]


def _read(path: Path) -> _Counts:
    if not path.exists():
        return _Counts()
    hint = "restore it from a backup, or move it away and export with --counter, above all that devices have"
    return unsealed(_Counts, read_file(path, limits.MAX_DOCUMENT_BYTES), str(path), hint)
