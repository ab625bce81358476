"""Turning a downloaded public data set into pairs files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edge_cmcl.data.pairs import write_pairs
from edge_cmcl.data.prepare.catalogue import recipe_of
from edge_cmcl.data.prepare.recipe import TEST, TRAIN, UNLABELLED, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import find
from edge_cmcl.data.windows import DropReport
from edge_cmcl.durable import make_folder, storage_errors, sync_folder
from edge_cmcl.errors import DataError
from edge_cmcl.progress import Progress, silent


@dataclass(frozen=True)
class PreparedFile:
    """One pairs file that `prepare` wrote.

    Attributes:
        path: the file.
        windows: number of rows.
        unlabelled: rows without a label, because no class fills the window.
        shapes: modality to the shape of one window.
    """

    path: Path
    windows: int
    unlabelled: int
    shapes: dict[str, tuple[int, ...]]

    def as_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        return {
            "path": str(self.path),
            "windows": self.windows,
            "unlabelled": self.unlabelled,
            "shapes": {modality: list(shape) for modality, shape in self.shapes.items()},
        }


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` wrote, what it dropped, and what the user should know.

    Attributes:
        name: the data set.
        files: the pairs files, train before test.
        drops: moments kept and dropped (a moment in two files, as of sp_sw_har, counts once) and samples filled in.
        notes: for instance which parts of the download were not used.
    """

    name: str
    files: tuple[PreparedFile, ...]
    drops: DropReport
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        files = [file.as_json() for file in self.files]
        return {"name": self.name, "files": files, **self.drops.as_json(), "notes": list(self.notes)}


def prepare(name: str, source: Path | str, out: Path | str, progress: Progress = silent) -> PrepareReport:
    """Write the train and test pairs files of a public data set (lengths, units and splits: design.md section 8).

    All files appear in `out` together, when everything has been read; on an error `out` keeps what it had. The wanted
    members of an archive are copied to a temporary folder in `out` meanwhile.

    Args:
        name: a name in `catalogue()`.
        source: folder of the unpacked download, or a tar archive; files are found by name anywhere below it.
        out: folder to write to, created if missing.
        progress: told after each trial.

    Raises:
        UsageError: there is no such data set.
        DataError: the source is missing, of another data set, damaged or incomplete.
        MissingExtraError: the data set is published as .mat files and scipy is not installed.
        StorageError: the file system refused.
    """
    recipe = recipe_of(name)
    out = Path(out)
    with _scratch(out) as scratch:
        members, results = scratch / "members", scratch / "results"
        results.mkdir()
        job = Job(find(Path(source), recipe.wanted, recipe.info.files, members), progress)
        files: list[PreparedFile] = []
        for split, samples in groupby(recipe.samples(job), key=lambda sample: sample.split):
            files += _write(recipe, job, split, list(samples), results)
        _check_splits(recipe, job, files, Path(source))
        with storage_errors(out):
            for file in files:
                file.path.replace(out / file.path.name)
            sync_folder(out)
    moved = tuple(replace(file, path=out / file.path.name) for file in files)
    return PrepareReport(name, moved, job.drops, tuple(job.notes))


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `out`; remove it, and an `out` that was made for nothing, at the end."""
    existed = out.exists()
    make_folder(out)
    try:
        with storage_errors(out):
            folder = TemporaryDirectory(prefix=".prepare-", dir=out)
        with folder as name:
            yield Path(name)
    except BaseException:
        if not existed:
            with suppress(OSError):
                out.rmdir()
        raise


def _write(recipe: Recipe, job: Job, split: str, samples: Sequence[Sample], folder: Path) -> list[PreparedFile]:
    labels = [sample.label for sample in samples]
    groups = [sample.group for sample in samples]
    times = [sample.time_s for sample in samples if sample.time_s is not None]
    source = " ".join([f"{recipe.info.title}.", recipe.recipe, *job.notes])
    files = []
    for prefix, modalities in samples[0].windows.items():
        path = folder / f"{prefix}{split}.safetensors"
        windows = {m: np.stack([sample.windows[prefix][m] for sample in samples]) for m in modalities}
        write_pairs(
            path,
            windows,
            labels=np.array(labels, dtype=np.int64),
            label_names=recipe.labels,
            groups=np.array(groups, dtype=np.int64),
            time=np.array(times) if times else None,
            rate_hz={m: recipe.rate_hz[m] for m in windows},
            units={m: recipe.units[m] for m in windows},
            source=source,
        )
        shapes = {m: rows.shape[1:] for m, rows in windows.items()}
        files.append(PreparedFile(path, len(labels), labels.count(UNLABELLED), shapes))
    job.drops.kept += len(samples)
    return files


def _check_splits(recipe: Recipe, job: Job, files: Sequence[PreparedFile], source: Path) -> None:
    for split in (TRAIN, TEST):
        if not any(file.path.stem.endswith(split) for file in files):
            dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(job.drops.dropped.items()))
            raise DataError(
                f"{source} gives no {split} window of {recipe.info.name}",
                expected=recipe.recipe,
                got=f"{len(job.found)} files, windows dropped: {dropped or 'none'}",
                hint="the download is incomplete",
            )
