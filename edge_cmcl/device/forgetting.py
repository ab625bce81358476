"""Removing a sensor on purpose: a generation like any other, without it.

What other modalities learned beside it stays: their origins name it as a partner, and go on protecting what was learned
then. So their embeddings do not move, and their certificates hold as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle import Generation, Store
from edge_cmcl.bundle.store_files import all_or_nothing
from edge_cmcl.device.commit import commit_on_trial
from edge_cmcl.device.fits import near
from edge_cmcl.device.model import Model
from edge_cmcl.device.next_generation import successor
from edge_cmcl.device.signing import check_signer
from edge_cmcl.device.starting import start
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import ModelError, RefusedError


@dataclass(frozen=True)
class Forgotten:
    """What forgetting a modality did, or would do.

    Attributes:
        modality: the modality.
        encoder: its encoder; one other than "universal" came with the base, and goes with it.
        origins: how many learned steps of it go.
        pairs: the pairs of modalities that go, each in JSON's types.
        labels: how many labels go; those of "text" only.
        remaining: modalities that stay.
        committed: manifest digest of the new generation, "" for a dry run.
        counter: its counter.
    """

    modality: str
    encoder: str
    origins: int
    pairs: tuple[tuple[str, str], ...]
    labels: int
    remaining: tuple[str, ...]
    committed: str
    counter: int

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def forget(store: Store, modality: str, *, dry_run: bool = False) -> Forgotten:
    """Commit a generation that does not know `modality`; it is on trial, and a rollback brings the modality back.

    Args:
        store: the device store.
        modality: a sensor, or "text" for the labels.
        dry_run: commit nothing.

    Raises:
        ModelError: it is not known.
        RefusedError: it is the last sensor.
        StoreLockedError: another process writes to the store.
        StorageError: there is no room.
        FormatError: this device's keys are damaged.
    """
    with store.writer():
        device = store.state().device_id
        check_signer(store)
        model = start(store)
        check_forgettable(model, modality)
        generation = without(model, modality, device)
        digest = "" if dry_run else _commit(store, model, generation)
    gone = [pair.modalities for pair in model.generation.pairs if modality in pair.modalities]
    return Forgotten(
        modality=modality,
        encoder=model.record(modality).encoder,
        origins=len(model.record(modality).origins),
        pairs=tuple(dict.fromkeys(gone)),
        labels=len(model.labels.names) if modality == TEXT else 0,
        remaining=tuple(sorted(generation.modalities)),
        committed=digest,
        counter=0 if dry_run else generation.counter,
    )


def _commit(store: Store, model: Model, generation: Generation) -> str:
    with all_or_nothing(store):
        return commit_on_trial(store, model.loaded.digest, generation)


def check_forgettable(model: Model, modality: str) -> None:
    """Check that `modality` is known, and not the only sensor.

    Raises:
        ModelError: it is not known.
        RefusedError: it is the last sensor.
    """
    if modality not in model.modalities:
        raise ModelError(
            f"there is no {modality!r} to forget",
            expected=f"one of {', '.join(model.modalities)}",
            got=modality,
            hint=near(modality, model.modalities) or "`edge-cmcl status` lists what this device knows",
        )
    if not set(model.modalities) - {TEXT, modality}:
        raise RefusedError(
            f"{modality} is the last sensor that this device knows",
            expected="a sensor that is left",
            got=f"nothing but {', '.join(model.modalities)}",
            hint="install another base, or into another --store",
        )


def without(model: Model, modality: str, device: str) -> Generation:
    """Return the document of the generation that follows `model` and does not know `modality`."""
    old = model.generation
    return successor(
        model,
        device,
        "forget",
        modalities={name: record for name, record in old.modalities.items() if name != modality},
        pairs=tuple(pair for pair in old.pairs if modality not in pair.modalities),
        certificate=tuple(record for record in old.certificate if record.modality != modality),
        metrics={"forget": {"modality": modality}},
    )
