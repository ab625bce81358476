"""Finding the files of a data set anywhere below a folder or inside a tar archive."""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_cmcl.durable import storage_errors
from edge_cmcl.errors import DataError

MAX_FILE_BYTES = 256 << 20
"""No file of these publications comes near; an archive that claims more is damaged or hostile."""


@dataclass(frozen=True)
class Found:
    """One file of a data set.

    Attributes:
        path: where it can be read now.
        name: its path below the source, for messages.
        match: what the recipe's pattern found in `name`.
    """

    path: Path
    name: str
    match: re.Match[str]


def find(source: Path, wanted: re.Pattern[str], expected: str, scratch: Path) -> Sequence[Found]:
    """Return the files below `source` whose relative path `wanted` finds, sorted by that path.

    Args:
        source: a folder, or a tar archive (plain, .gz, .bz2 or .xz) of one.
        wanted: searched in the path relative to the source, with forward slashes.
        expected: what the pattern stands for, in words.
        scratch: an empty folder; the wanted members of an archive are copied there, the others are not.

    Raises:
        DataError: the source is missing, unreadable, unsafe, or holds no such file, or holds one of them twice.
    """
    if not source.exists():
        raise DataError(f"there is no {source}", expected=f"a folder or tar archive with {expected}")
    found = list(_in_folder(source, wanted) if source.is_dir() else _in_archive(source, wanted, scratch))
    if not found:
        raise DataError(
            f"no file of this data set found below {source}",
            expected=expected,
            hint="give the folder of the unpacked download; `edge-cmcl data list` says where to get it",
        )
    _check_single(found, source)
    return sorted(found, key=lambda file: file.name)


def _in_folder(folder: Path, wanted: re.Pattern[str]) -> Iterator[Found]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        match = wanted.search(name)
        if match and path.is_file():
            yield Found(path, name, match)


def _in_archive(archive: Path, wanted: re.Pattern[str], scratch: Path) -> Iterator[Found]:
    hint = "unpack it yourself and give the folder, or download it again"
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _check_member(archive, member)
                match = wanted.search(member.name)
                file = tar.extractfile(member) if match and member.isreg() else None
                if match and file:
                    path = scratch / member.name
                    _save(path, file.read())
                    yield Found(path, member.name, match)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise DataError(f"cannot read {archive}", expected="a whole tar archive", got=str(error), hint=hint) from error


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        expected = "members below the archive's own folder"
        raise DataError(f"{archive} is not safe to unpack", expected=expected, got=member.name)
    if member.size > MAX_FILE_BYTES:
        got = f"{member.name} of {member.size} bytes"
        raise DataError(f"{archive} is not safe to unpack", expected=f"files up to {MAX_FILE_BYTES} bytes", got=got)


def _save(path: Path, data: bytes) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _check_single(found: Sequence[Found], source: Path) -> None:
    # Two copies of a trial below one source would put the same windows in a file twice, and perhaps in both splits.
    first: dict[str, Found] = {}
    for file in found:
        key = file.match.group(0).strip("/")
        other = first.setdefault(key, file)
        if other is not file:
            expected = "each file once"
            raise DataError(f"{source} holds {key} twice", expected=expected, got=f"{other.name} and {file.name}")
