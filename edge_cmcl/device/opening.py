"""Opening whatever holds a model: a device store, a bundle, or a host's run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from edge_cmcl.bundle import Layout, Loaded
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.transfer import opened
from edge_cmcl.device.intact import DamagedGenerationWarning, fallbacks, intact
from edge_cmcl.device.model import Model
from edge_cmcl.device.starting import start
from edge_cmcl.device.store import CURRENT, open_store
from edge_cmcl.errors import ModelError

RUN_FILE = "edge-cmcl.toml"


def open_model(store: Path | str, *, threads: int = 0, wait_s: float = 0.0) -> Model:
    """Return the generation in use of the device store at `store`, ready to embed (see `starting.start`).

    Where it is damaged, the one before that is intact answers instead. The store stays as it is: to install the bundle
    again, or to go back, is for its user to choose.

    Args:
        store: the device store.
        threads: CPU threads of one operator; 0 for one per core.
        wait_s: how long to wait for a writer, such as the update that has just put a generation on trial: without the
            lock that generation is neither tested nor counted.

    Raises:
        ModelError: nothing is installed there.
        DigestError, FormatError: it is damaged, and so is what was there before.

    Warns:
        DamagedGenerationWarning: an older generation answers.
        RevertedWarning: a trial failed.
    """
    opened = open_store(Path(store))
    try:
        model = start(opened, threads=threads, wait_s=wait_s)
        check_digests(model.loaded)
    except DAMAGED as error:
        current = opened.tags()[CURRENT]
        found = next(intact(opened, fallbacks(opened, current)), None)
        if found is None:
            raise
        model = Model(found, threads=threads)
        told = f"generation {current[7:19]}, in use, is damaged ({error.message}): generation"
        advice = "install its bundle again to mend it, or go back with `edge-cmcl rollback`"
        text = f"{told} {model.generation.counter} answers; {advice}"
        warnings.warn(text, DamagedGenerationWarning, stacklevel=2)
    return model


@contextmanager
def open_target(path: Path, open_run: Callable[[Path], AbstractContextManager[Model]]) -> Iterator[Model]:
    """Yield the model at `path`: a store's current generation, a bundle's, or a run's through `open_run`.

    Raises:
        ModelError: there is none.
        DigestError, FormatError: it is damaged.
    """
    if not path.exists():
        raise ModelError(f"cannot read {path}", expected="a run folder, a bundle or a store", got="no such path")
    if (path / RUN_FILE).is_file():
        with open_run(path) as model:
            yield model
        return
    with open_generation(path) as loaded:
        yield Model(loaded)


def open_generation(path: Path) -> AbstractContextManager[Loaded]:
    """Open the generation at `path`, the one in use of a store or a bundle's only one; see `transfer.opened`."""
    return opened(path, CURRENT if path.is_dir() and CURRENT in Layout(path).tags() else None)
