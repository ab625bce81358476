"""A layout as one tar file: equal layouts give equal bytes; reading trusts nothing (FORMAT.md, "Tar").

Python's tarfile follows extension headers of any size before its caller sees them, so reading walks the 512-byte
headers itself and leaves only their decoding to the library.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.layout import INDEX_FILE, LAYOUT_FILE
from edge_cmcl.bundle.reading import CHUNK_BYTES
from edge_cmcl.errors import FormatError

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENSION_BYTES = 16 * 1024

_FILE = re.compile(rf"(?:\./)?({re.escape(LAYOUT_FILE)}|{re.escape(INDEX_FILE)}|blobs/sha256/[0-9a-f]{{64}})")
_FOLDER = re.compile(r"(?:\./)?(?:blobs(?:/sha256)?)?/?|\.")
_SIZE_LIMITS = {LAYOUT_FILE: limits.MAX_LAYOUT_BYTES, INDEX_FILE: limits.MAX_DOCUMENT_BYTES}


def write_member(out: BinaryIO, name: str, size: int, chunks: Iterable[bytes]) -> None:
    """Append one file of `size` bytes to the tar `out`: owner, group and time are 0, mode 0644."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    out.write(info.tobuf(tarfile.USTAR_FORMAT))
    for chunk in chunks:
        out.write(chunk)
    out.write(bytes(-size % BLOCK))


def write_end(out: BinaryIO) -> None:
    """End the tar `out`."""
    out.write(bytes(2 * BLOCK))


def members(file: BinaryIO, name: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Yield (path, size, chunks) of each file of a layout's tar, in one pass and bounded memory.

    What is left of the chunks when the next member is asked for is skipped.

    Args:
        file: the tar, uncompressed.
        name: what errors call it.

    Raises:
        FormatError: it is truncated or damaged, or holds anything but the files of a layout: links, devices, other
            paths, duplicates, sizes beyond the limits.
    """
    seen: set[str] = set()
    total = 0
    while (info := _header(file, name)) is not None:
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            _check_extension(file, info, name)
            continue
        if info.type == tarfile.DIRTYPE and _FOLDER.fullmatch(info.name) and info.size == 0:
            continue
        path = _checked_path(info, name)
        total += info.size
        if path in seen or len(seen) >= limits.MAX_BUNDLE_FILES or total > limits.MAX_BUNDLE_BYTES:
            expected = f"each file once, {limits.MAX_BUNDLE_FILES} files and {limits.MAX_BUNDLE_BYTES} bytes at most"
            raise FormatError(f"{name} holds too much, or one file twice", expected=expected, got=path)
        seen.add(path)
        chunks = _chunks(file, info.size, name)
        yield path, info.size, chunks
        for _ in chunks:
            pass
        _exactly(file, -info.size % BLOCK, name)


def _header(file: BinaryIO, name: str) -> tarfile.TarInfo | None:
    block = _exactly(file, BLOCK, name)
    if not any(block):
        _exactly(file, BLOCK, name)  # a tar ends with two empty blocks
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise FormatError(
            f"{name} is not an uncompressed tar file, or is damaged",
            expected="a tar header",
            got=str(error)[:200],
            hint="copy or export the bundle again; unpack a compressed one first",
        ) from error


def _checked_path(info: tarfile.TarInfo, name: str) -> str:
    match = _FILE.fullmatch(info.name)
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or match is None:
        raise FormatError(
            f"{name} holds something that is no part of a bundle",
            expected=f"plain files: {LAYOUT_FILE}, {INDEX_FILE}, blobs/sha256/HEX",
            got=f"{info.name[:100]!r} of tar type {info.type!r}",
            hint="make the tar with `edge-cmcl export --out NAME.tar`",
        )
    most = _SIZE_LIMITS.get(match[1], limits.MAX_BLOB_BYTES)
    if not 0 <= info.size <= most:
        raise FormatError(
            f"{name}: {match[1]} is too large", expected=f"at most {most} bytes", got=f"{info.size} bytes"
        )
    return match[1]


def _check_extension(file: BinaryIO, info: tarfile.TarInfo, name: str) -> None:
    """Skip an extended header, as Python writes for exact times; refuse one that renames or resizes a file."""
    if not 0 <= info.size <= MAX_EXTENSION_BYTES:
        expected = f"at most {MAX_EXTENSION_BYTES} bytes"
        raise FormatError(f"{name} has a huge extended header", expected=expected, got=f"{info.size} bytes")
    records = _exactly(file, info.size + -info.size % BLOCK, name)
    if re.search(rb" (?:path|size|linkpath|GNU\.sparse[^=]*)=", records):
        raise FormatError(
            f"{name} has an extended header that renames or resizes a file", expected="plain names, sizes"
        )


def _chunks(file: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    while size:
        chunk = _exactly(file, min(size, CHUNK_BYTES), name)
        size -= len(chunk)
        yield chunk


def _exactly(file: BinaryIO, size: int, name: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise FormatError(
            f"{name} is truncated",
            expected=f"{size} more bytes",
            got=f"{len(data)} bytes",
            hint="copy or export the bundle again",
        )
    return data


def is_tar(path: Path) -> bool:
    """Return whether bundles are written to `path` as a tar: whether it ends in .tar."""
    return path.suffix == ".tar"
