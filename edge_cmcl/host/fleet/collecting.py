"""What a fleet need not keep: generations that no device has in use any more, with their signatures."""

from __future__ import annotations

from edge_cmcl.bundle.collect import Collected, collect
from edge_cmcl.bundle.documents import ATTACHMENT_TAG
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.tags import GENERATION_TAG
from edge_cmcl.host.fleet.fleet import Fleet

KEPT_CANDIDATES = 8
"""Merged generations that stay, the latest ones, beside those that are promoted or in use."""

CANDIDATE = "candidate-"
"""What the tags of merged generations begin with, in the fleet's store."""


def tidy(fleet: Fleet) -> Collected:
    """Remove generations that are neither in use, promoted, nor among the latest merges; the lock is held.

    Raises:
        DigestError, FormatError: something that is to be kept is damaged; nothing was removed.
        StorageError: the file system refused.
    """
    store, devices, state = fleet.store, fleet.devices().values(), fleet.state()
    decisions = [state.for_all, *(device.decision for device in devices)]
    promoted = {decision.manifest for decision in decisions if decision is not None}
    in_use = {device.report.manifest for device in devices}
    tags = store.tags()
    merges = sorted((tag for tag in tags if tag.startswith(CANDIDATE)), key=lambda tag: _age(fleet, tags[tag]))
    old = [tag for tag in merges[:-KEPT_CANDIDATES] if tags[tag] not in promoted | in_use]
    own = [tag for tag, digest in tags.items() if tag.startswith(GENERATION_TAG) and digest not in promoted | in_use]
    if old or own:
        store.move_tags({}, drop=[*old, *own])
    about = {f"sha256:{match[1]}" for tag in tags if (match := ATTACHMENT_TAG.fullmatch(tag))}
    found = []
    for digest in {*about, *tags.values()}:
        try:
            found.append(store.load_manifest(digest))
        except DAMAGED:
            continue
    return collect(store, found, promoted | in_use)


def _age(fleet: Fleet, digest: str) -> tuple[int, str]:
    try:
        generation = fleet.store.load_manifest(digest).generation
    except DAMAGED:
        return 0, ""
    return generation.counter, generation.created
