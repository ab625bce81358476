"""Which bundles a device may take in (FORMAT.md, "Generation"). Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cmcl.bundle import Loaded, State
from edge_cmcl.bundle.contents import read_origins
from edge_cmcl.continual.origin import covers
from edge_cmcl.errors import OlderError, RefusedError, WrongBaseError, WrongDeviceError


def check_admissible(bundle: Loaded, state: State, current: Loaded | None, known: Sequence[Loaded]) -> None:
    """Check that `bundle` may become the current generation of a device.

    Args:
        bundle: what shall be installed.
        state: the device's state.
        current: the generation in use, None on a device on which nothing is installed.
        known: every generation that is here.

    Raises:
        WrongDeviceError: it is bound to other hardware.
        WrongBaseError: it belongs to another project, or continues a base that was never here.
        RefusedError: it lacks something that the device has learned by itself.
        OlderError: it is older than what the device had.
    """
    _check_class(bundle, state)
    if current is None or current.digest == bundle.digest:  # what is current may come again: that repairs it
        return
    _check_name(bundle, current)
    _check_base(bundle, known)
    _check_continues(bundle, current)
    _check_counter(bundle, state, current, known)


def _check_class(bundle: Loaded, state: State) -> None:
    bound = bundle.generation.device_class
    if bound and bound != state.device_class:
        raise WrongDeviceError(
            f"{_named(bundle)} is bound to other hardware",
            expected=f"a bundle for {state.device_class or 'any device'}",
            got=f"device class {bound}",
            hint="install the bundle made for this device, or one that is bound to none",
        )


def _check_name(bundle: Loaded, current: Loaded) -> None:
    if bundle.generation.name != current.generation.name:
        raise WrongBaseError(
            f"{_named(bundle)} belongs to another project",
            expected=f"a bundle of {current.generation.name}",
            got=bundle.generation.name,
            hint="use another --store for another project",
        )


def _check_base(bundle: Loaded, known: Sequence[Loaded]) -> None:
    """Refuse what continues another base than was ever here: its adapters and sketches grew from other ones."""
    bases = {each.base for each in known}
    if bundle.generation.parents and bundle.base not in bases:
        raise WrongBaseError(
            f"{_named(bundle)} continues another base",
            expected=f"a new base, or a generation that continues {', '.join(sorted(base[:19] for base in bases))}",
            got=f"one that continues {bundle.base[:19]}",
            hint="install the base that it continues first, or use another --store",
        )


def _check_continues(bundle: Loaded, current: Loaded) -> None:
    if current.generation.device_id and not continues(bundle, current):
        raise RefusedError(
            "the bundle would replace what this device has learned by itself",
            expected=f"a bundle that continues {_named(current)}",
            got=_named(bundle),
            hint="`edge-cmcl sync` sends what it learned to be merged; or `edge-cmcl rollback` to the base first",
        )


def continues(bundle: Loaded, current: Loaded) -> bool:
    """Whether a bundle holds all that the generation `current` has learned: as its child, or as a merge further on.

    Raises:
        DigestError, FormatError: one of the two is damaged.
    """
    if current.digest in bundle.generation.parents:
        return True
    known, offered = current.generation.modalities, bundle.generation.modalities
    return known.keys() <= offered.keys() and all(
        set(known[name].origins) <= set(offered[name].origins)
        or covers(read_origins(bundle, name), read_origins(current, name))
        for name in known
    )


def _check_counter(bundle: Loaded, state: State, current: Loaded, known: Sequence[Loaded]) -> None:
    """Refuse an older bundle. What the device learned by itself makes what it is given no older."""
    had = max(state.highest_counter, current.generation.counter)
    if not bundle.generation.device_id:
        given = [each.generation for each in known if each.generation.device_id != state.device_id]
        had = max((generation.counter for generation in given), default=0)
    if bundle.generation.counter < had:
        raise OlderError(
            f"{_named(bundle)} is older than what this device had",
            expected=f"generation {had} or a later one",
            got=f"generation {bundle.generation.counter}",
            hint="install a newer bundle; `edge-cmcl rollback` goes back to an older generation that is here",
        )


def _named(loaded: Loaded) -> str:
    return f"{loaded.generation.name}, generation {loaded.generation.counter} ({loaded.digest[:19]})"
