"""Reading files of a layout."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from pathlib import Path

from edge_cmcl.bundle.reading import read_file
from edge_cmcl.errors import FormatError


def test_a_missing_file_keeps_nothing_of_its_reader_alive(tmp_path: Path) -> None:
    """A model that holds its generation lets it go with its last user, not when Python next looks for circles."""

    class Held:
        pass

    def read() -> weakref.ref[Held]:
        held = Held()
        with suppress(FormatError):
            read_file(tmp_path / "none", 10)
        return weakref.ref(held)

    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()
