"""Exported graphs that depend on nothing but this software, kept in the user's cache: tracing one takes many seconds.

A file's name holds the key of everything that the graph depends on, and the digest of its content; a file that does
not match its name is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, update_wrapper
from importlib.metadata import version
from pathlib import Path

from edge_cmcl import homes
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.errors import StorageError
from edge_cmcl.version import SOFTWARE

_SOURCES = ("graphs.py", "step.py", "universal_graph.py", "../device/universal.py")


def kept(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Keep what `make` returns, in memory and on disk; `__wrapped__` of the result makes it anew."""

    @cache
    def graph() -> bytes:
        prefix = f"{make.__name__}-{_key()}-"
        with suppress(OSError):
            for path in cache_folder().glob(f"{prefix}*.onnx"):
                data = path.read_bytes()
                if path.name == f"{prefix}{_digest(data)}.onnx":
                    return data
        data = make()
        with suppress(StorageError):  # a cache that cannot be written costs time and nothing else
            make_folder(cache_folder())
            write_bytes(cache_folder() / f"{prefix}{_digest(data)}.onnx", data)
        return data

    return update_wrapper(graph, make)


def cache_folder() -> Path:
    """Return where this user's graphs are kept."""
    return homes.cache_folder() / "graphs"


def _key() -> str:
    digest = hashlib.sha256(SOFTWARE.encode())
    for name in ("torch", "onnx", "onnxscript"):
        digest.update(f"{name} {version(name)}\n".encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
