"""Whether a store is sound after whatever happened to it, and which state it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Layout, Store
from edge_cmcl.bundle.contents import check_contents
from edge_cmcl.bundle.documents import ATTACHMENT_TAG, Manifest, from_json
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.signing import keyring
from edge_cmcl.device.status import status
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.trial import reverted_of, trial_of

Summary = dict[str, Any]

EMPTY: Summary = {"current": None}
"""The summary of a folder in which nothing is installed."""


def summary(root: Path) -> Summary:
    """Check everything in the store at `root` and return what its user would tell two states apart by.

    Every generation that a tag leads to is read and verified, the state is read, `status` answers, and the generation
    in use passes its self-test. Changes nothing.

    Raises:
        EdgeCmclError, AssertionError: the store is not sound.
    """
    if not (root / "oci-layout").is_file():
        return EMPTY
    store = Store(root)
    tags = store.tags()
    named = [digest for tag, digest in tags.items() if not ATTACHMENT_TAG.fullmatch(tag)]
    generations = list(store.lineage(named, past=()))
    for loaded in generations:
        check_contents(loaded)
    if CURRENT not in tags:
        assert not generations, f"generations without a current one: {tags}"
        return EMPTY
    current, state = store.load(CURRENT), store.state()
    shown = status(store)
    assert shown["generation"] == current.digest
    assert shown["signed_by"]["standing"] in ("trusted", "retired"), shown["signed_by"]
    trust = keyring(store).trust()
    assert keyring(store).signer(trust) is not None, "the device cannot sign"
    self_test(Model(current, threads=1))
    trial, reverted = trial_of(state, current.digest), reverted_of(state, current.digest)
    if trial is not None:
        assert store.has(str(trial.previous)), "what a failed trial returns to is gone"
    return {
        "current": current.digest,
        "device": bool(state.device_id),
        "trial": trial and {"digest": trial.digest, "previous": trial.previous},
        "reverted": reverted and reverted.digest,
        "highest": max(state.highest_counter, current.generation.counter),
        "own_key": trust.own,
        "trusts": sorted(record.fingerprint for record in trust.keys if record.role == "given"),
        "tags": {tag: tags[tag] for tag in sorted(tags)},
        "generations": sorted(loaded.digest for loaded in generations),
    }


def debris(root: Path) -> list[str]:
    """Return what is in the store's folder after the next writer's start that is not the store's.

    Blobs that nothing needs are no debris but garbage (`garbage`): a killed writer may leave some until the next gc.
    """
    if not (root / "oci-layout").is_file():
        return []  # its making was cut short: the next start is another install
    with Store(root).writer():
        pass
    names = (str(path.relative_to(root)) for path in root.rglob("*"))
    own = (name for name in names if not name.startswith("sync/"))  # the next sync goes on with that, or removes it
    return sorted(name for name in own if name.startswith("work-") or name.endswith(".tmp"))


def garbage(root: Path) -> list[str]:
    """Return the blobs in the store at `root` that no generation and no attachment needs."""
    if not (root / "oci-layout").is_file():
        return sorted(str(path.relative_to(root)) for path in (root / "blobs").rglob("*") if path.is_file())
    layout = Layout(root)
    needed = set()
    for entry in layout.index().manifests:
        attached = ATTACHMENT_TAG.fullmatch(entry.tag)
        found = [] if attached else [(each.digest, each.manifest) for each in layout.lineage([entry.digest], past=())]
        if attached:
            found.append((entry.digest, from_json(Manifest, layout.read(entry), entry.tag)))
        for digest, manifest in found:
            needed |= {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
    return sorted(path.name for path in layout.blob_path("").iterdir() if f"sha256:{path.name}" not in needed)


def named(found: Summary, known: Summary, new: str = "NEW") -> Summary:
    """Return `found` with every digest that `known` has not, and each tag made for one, called `new`.

    A new generation has another digest in every run, since its document says when it was made.
    """
    there = set(known.get("generations", ()))

    def name(digest: Any) -> Any:
        return digest if digest is None or digest in there else new

    if found["current"] is None:
        return found
    trial = found["trial"]
    attached = {tag for tag in found["tags"] if ATTACHMENT_TAG.fullmatch(tag)}
    tags = {tag: digest for tag, digest in known.get("tags", {}).items() if tag in attached}
    tags |= {f"signature-{new}": new for tag in attached if tag not in known.get("tags", {})}
    tags |= {
        (tag if digest in there or not tag.startswith("generation-") else f"generation-{new}"): name(digest)
        for tag, digest in found["tags"].items()
        if tag not in attached
    }
    return {
        **found,
        "own_key": found["own_key"] if found["own_key"] == known.get("own_key") else new,
        "current": name(found["current"]),
        "reverted": name(found["reverted"]),
        "trial": trial and {key: name(digest) for key, digest in trial.items()},
        "tags": dict(sorted(tags.items())),
        "generations": sorted(name(digest) for digest in found["generations"]),
    }
