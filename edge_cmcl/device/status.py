"""What a device knows, from how much data, and how far it has moved since."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from edge_cmcl.bundle import State, Store
from edge_cmcl.device.model import Model
from edge_cmcl.device.outbox import unsent
from edge_cmcl.device.runtime import CPU, runtime_of
from edge_cmcl.device.sessions import CPU_PROVIDER
from edge_cmcl.device.signing import keyring, signed_by
from edge_cmcl.device.starting import current_model
from edge_cmcl.device.store import store_bytes
from edge_cmcl.device.trial import reverted_of, trial_of
from edge_cmcl.errors import IntegrityError


def status(store: Store) -> dict[str, Any]:
    """Return the state of the store's current generation in JSON types.

    Raises:
        DigestError, FormatError: it is damaged.
    """
    model = current_model(store)
    loaded, generation = model.loaded, model.generation
    state = store.state()
    reverted = reverted_of(state, loaded.digest)
    certificates = {(c.modality, c.origin): c.relative for c in generation.certificate}
    return {
        "store": str(store.root),
        "name": generation.name,
        "device_id": state.device_id,
        "generation": loaded.digest,
        "counter": generation.counter,
        "created": generation.created,
        "action": generation.action,
        "trial": _trial(store, state, loaded.digest),
        "reverted": reverted.model_dump(include={"digest", "since", "reason"}) if reverted else None,
        "signed_by": vars(signed_by(loaded, keyring(store).trust())).copy(),
        "embedding_dim": generation.embedding_dim,
        "modalities": [_modality(model, name, certificates) for name in model.modalities],
        "pairs": [
            {"modalities": list(pair.modalities), "n": pair.n, "metrics": pair.metrics} for pair in generation.pairs
        ],
        "store_bytes": store_bytes(store),
        "sync": _sync(store, state),
    }


def _sync(store: Store, state: State) -> dict[str, Any] | None:
    """Return with whom the device syncs, when it last did, and what is left to send; None where it never did."""
    if not state.sync.remote:
        return None
    declined = [each.model_dump(include={"digest", "since", "reason"}) for each in state.sync.declined]
    return {
        "remote": state.sync.remote,
        "reported": state.sync.reported,
        "unsent": len(unsent(store, state)),
        "declined": declined,
    }


def _trial(store: Store, state: State, current: str) -> dict[str, Any] | None:
    """Return the trial of the current generation: what a failure returns to, and the starts that have failed."""
    trial = trial_of(state, current)
    if trial is None or trial.previous is None:
        return None
    back_to = None
    with suppress(IntegrityError):  # damaged: a failed trial returns to an older one
        back_to = store.load_manifest(trial.previous).generation.counter
    return {"since": trial.since, "back_to": back_to, "starts": trial.attempts, "allowed": trial.attempts_allowed}


def _runtime(model: Model, name: str) -> dict[str, Any]:
    """Return precision and target of a sensor's encoder, and the execution provider that runs it here."""
    record = model.record(name)
    if record.kind == "text":
        return {"precision": None, "target": None, "provider": None}
    runtime = runtime_of(record)
    provider = CPU_PROVIDER if runtime.target == CPU else model.provider(name)
    return {"precision": runtime.precision, "target": runtime.target, "provider": provider}


def _modality(model: Model, name: str, certificates: dict[tuple[str, str], float]) -> dict[str, Any]:
    record = model.record(name)
    origins = model.origins(name)
    return {
        "modality": name,
        "kind": record.kind,
        "channels": record.channels,
        "frame": list(record.frame) if record.frame else None,
        "unit": record.unit,
        "scale": record.scale,
        "encoder": record.encoder,
        "width": record.width,
        **_runtime(model, name),
        "origins": [
            {
                "id": origin.id,
                "partners": list(origin.partners),
                "pairs": origin.sketch.n,
                "revision": origin.revision,
                "relative_displacement_bound": certificates.get((name, origin.id), 0.0),
            }
            for origin in origins
        ],
    }
