"""The generation that answers: opened as by every command, and replaced by the store's next one while it answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_cmcl.bundle.contents import read_golden
from edge_cmcl.bundle.layout import INDEX_FILE
from edge_cmcl.device.golden import golden_windows
from edge_cmcl.device.model import Model
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.store import CURRENT, open_store
from edge_cmcl.device.text import TEXT

WAIT_S = 5.0
"""How long to wait for the update that has put a generation on trial, so that the trial is tested and counted."""
RETRY = 30
"""Looks after which a generation that could not be opened is tried again."""
_SAMPLES = 64


class Current:
    """The generation in use. `model` may be read by any thread; `look` is called by one.

    A request takes `model` once and is answered by that one alone; an older one goes when its last request has.

    Args:
        store: the device store.
        threads: CPU threads of one operator.
        told: what happens, for people.

    Attributes:
        model: the generation that answers, ready: opening it took nothing from the request that came first.
        changes: how often another one took its place.
        behind: why the store's generation is not the one that answers; "" where it is.

    Raises:
        ModelError: nothing is installed there.
        DigestError, FormatError: it is damaged, and so is what was there before.
    """

    def __init__(self, store: Path, threads: int, told: Callable[[str], None]) -> None:
        self._store = store
        self._threads = threads
        self._told = told
        self._seen = self._signature()
        self._tries = 0
        self.changes = 0
        self.model = self._opened()
        self.behind = self._lag()

    def look(self) -> None:
        """Take up the store's generation where it is another one; one that cannot be opened is tried again later."""
        seen = self._signature()
        if seen == self._seen and not self._due():
            return
        self._seen = seen
        try:
            self._follow()
        except Exception as error:  # whatever it is, the generation that answers goes on
            self.behind = getattr(error, "message", "") or str(error) or type(error).__name__
            self._told(f"the store's generation cannot be used, {self._described()} goes on: {self.behind}")

    def _follow(self) -> None:
        if self._lag():
            model = self._opened()  # where a trial fails here, it goes back to what was confirmed, and warns
            if model.loaded.digest != self.model.loaded.digest:
                self.model = model
                self.changes += 1
                self._told(f"{self._described()} answers from now on")
        self.behind = self._lag()

    def _lag(self) -> str:
        """Return why the store's generation does not answer, "" where it does: it would, were it whole."""
        wanted = open_store(self._store).tags()[CURRENT]
        return (
            "" if wanted == self.model.loaded.digest else f"generation {wanted[7:19]} is damaged: an older one answers"
        )

    def _opened(self) -> Model:
        model = open_model(self._store, threads=self._threads, wait_s=WAIT_S)
        _warm(model)
        return model

    def _due(self) -> bool:
        """Return whether a generation that could not be opened is to be tried again."""
        self._tries = self._tries + 1 if self.behind else 0
        return self._tries > 0 and self._tries % RETRY == 0

    def _described(self) -> str:
        return f"generation {self.model.generation.counter} ({self.model.loaded.digest[7:19]})"

    def _signature(self) -> tuple[int, int, int]:
        """Return what changes when the store's tags do; nothing where they cannot be looked at."""
        try:
            found = (self._store / INDEX_FILE).stat()
        except OSError:
            return (0, 0, 0)
        return found.st_ino, found.st_mtime_ns, found.st_size


def _warm(model: Model) -> None:
    """Read and open all that a request may need, so that none waits for it and no two threads open it at once."""
    for name in model.modalities:
        if name == TEXT:
            model.embed_labels()
        else:
            golden = read_golden(model.loaded, name)  # of a length that the encoder takes
            windows = golden.inputs["windows"] if golden else golden_windows(name, model.record(name), _SAMPLES)
            model.embed(name, windows[:1])
