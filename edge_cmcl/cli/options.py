"""Options that several commands share, and what stands in for them when they are not given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import claim_stdout
from edge_cmcl.homes import data_folder


def _claim(wanted: bool) -> bool:
    if wanted:
        claim_stdout()
    return wanted


Json = Annotated[bool, typer.Option("--json", callback=_claim, help="Print one JSON object on stdout.")]

Store = Annotated[
    Path | None,
    typer.Option("--store", envvar="EDGE_CMCL_STORE", help="The device store. [default: the user's data folder]"),
]

Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 for one per core.")]


def default_store() -> Path:
    """Return where the device store is when neither --store nor EDGE_CMCL_STORE says so.

    $XDG_DATA_HOME/edge-cmcl/store, with ~/.local/share for a variable that is unset, empty or not absolute
    (XDG Base Directory Specification 0.8).
    """
    return data_folder() / "store"


def default_fleet() -> Path:
    """Return where this user's fleet is when neither --fleet nor EDGE_CMCL_FLEET says so."""
    return data_folder() / "fleet"


def chosen_fleet() -> Path:
    """Return the fleet that EDGE_CMCL_FLEET says, else where this user's is."""
    named = os.environ.get("EDGE_CMCL_FLEET")
    return Path(named) if named else default_fleet()


def host_keys() -> Path:
    """Return the folder of the key with which this user's exports are signed, and of those it took the place of."""
    return data_folder() / "keys"


def need_host() -> None:
    """Check that the host extra is installed.

    Raises:
        MissingExtraError: it is not.
    """
    _need("host", {"torch": "torch", "onnx": "onnx", "onnxscript": "onnxscript"})


def need_bridge() -> None:
    """Check that the bridge extra is installed.

    Raises:
        MissingExtraError: it is not.
    """
    _need("bridge", {"cbor2": "cbor2", "cobs": "cobs", "mcap": "mcap", "serial": "pyserial"})


def need_serve() -> None:
    """Check that the serve extra is installed.

    Raises:
        MissingExtraError: it is not.
    """
    _need("serve", {"starlette": "starlette", "uvicorn": "uvicorn"})


def _need(extra: str, modules: dict[str, str]) -> None:
    """Check that the `modules` of an extra, each with the package that brings it, can be imported."""
    from importlib.util import find_spec

    from edge_cmcl.errors import MissingExtraError

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        *others, last = modules.values()
        raise MissingExtraError(
            f"this command needs the {extra} extra",
            expected=f"{', '.join(others)} and {last}",
            got=f"no {', '.join(missing)}",
            hint=f"pip install '.[{extra}]' in a checkout of edge-cmcl",
        )
