"""What a device knows: install, status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import progress, show, table, warned
from edge_cmcl.cli.options import Json, Store, default_store
from edge_cmcl.cli.outputs import check_folder
from edge_cmcl.cli.terms import MOVED, MRR, OUTSIDE

if TYPE_CHECKING:
    from edge_cmcl import bundle
    from edge_cmcl.device.drift import Drift
    from firmware_bridge.pairing import PairReport

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl install base.tar --trust base.key.pub")
def install(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a folder, or a tar file.")],
    trust: Annotated[
        str, typer.Option("--trust", help="A fingerprint or public key file to trust from now on: it signed this.")
    ] = "",
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take it although no trusted key has signed it, on record.")
    ] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Install a signed bundle on this device."""
    from edge_cmcl.device.store import install as install_bundle

    target = store or default_store()
    done = install_bundle(bundle, target, trust=trust, allow_unsigned=allow_unsigned)
    signer = f"signed by {done.signed_by}" if done.signed_by else "NOT SIGNED by anyone who is trusted here"
    did = "installed"
    if done.mended:
        did = f"mended {done.mended} damaged file{'s' * (done.mended > 1)}, and left what was learned in use:"
    text = (
        f"{did} {done.name}, generation {done.counter}, {'in' if done.mended else 'into'} {target}\n"
        f"it knows {', '.join(done.modalities)}; this device is {done.device_id}\n{signer}"
    )
    show({"store": target, **done.as_json()}, text, json=json)


@app.command(epilog="Example: edge-cmcl status --data today.safetensors")
def status(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Recent windows, or a recording: tells whether its sensors are as they were learned."
        ),
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option("--prometheus", help="Write it to this file too, for a textfile collector.")
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Show what this device knows, how well, and how far it has moved.

    With --data it also watches for drift: how much energy of recent windows lies outside everything learned. A sensor
    that was remounted, or fails, is beyond the threshold.
    """
    from edge_cmcl.device.status import status as read_status
    from edge_cmcl.device.store import open_store

    opened = open_store(store or default_store())
    with warned() as told:
        found = read_status(opened)
    found["warnings"] = told
    rows = [
        [each["modality"], each["encoder"], each["width"], origin["pairs"], "+".join(origin["partners"]), bound(origin)]
        for each in found["modalities"]
        for origin in each["origins"]
    ]
    header = ["modality", "encoder", "width", "pairs", "learned with", "moved at most"]
    pairs = [[" - ".join(pair["modalities"]), pair["n"], *_quality(pair["metrics"])] for pair in found["pairs"]]
    lines = [
        f"{found['name']}, generation {found['counter']} ({found['action']}, {found['created']})",
        f"signed by {signed(found)}",
        f"device {found['device_id']}, {found['store_bytes'] / 1e6:.1f} MB in {found['store']}",
        *_trial(found),
        *_synced(found),
        *_runs(found),
        "",
        table(header, rows),
        MOVED,
        "",
        table(["pair", "learned from pairs", "held-out MRR", "95 % interval", "MRR by chance"], pairs),
        MRR,
    ]
    watched: list[Drift] = []
    if data is not None:
        watched, paired, warnings = _watch(opened, data)
        found |= {"drift": [each.as_json() for each in watched], "warnings": [*told, *warnings]}
        if paired is not None:
            found["recording"] = paired.as_json()
        lines += ["", describe_drift(watched)]
    if prometheus is not None:
        from edge_cmcl.device.exposition import write_exposition

        check_folder(prometheus)
        write_exposition(prometheus, opened, found, watched)
    show(found, "\n".join(lines), json=json)


def describe_drift(watched: Sequence[Drift]) -> str:
    """Return what the drift watch found for people."""
    rows = [
        [each.modality, each.windows, _share(each.outside), _share(each.threshold), _share(each.beyond), each.verdict]
        for each in watched
    ]
    header = ["recent windows of", "n", "energy outside", "normal up to", "windows beyond", "verdict"]
    return f"{table(header, rows)}\n{OUTSIDE.format(share=max(each.false_alarms for each in watched))}"


def _watch(store: bundle.Store, data: Path) -> tuple[list[Drift], PairReport | None, list[str]]:
    from edge_cmcl.cli import recordings
    from edge_cmcl.device.drift import drift
    from edge_cmcl.device.starting import start

    with progress() as told, warned() as warnings:
        model = start(store)
        with recordings.opened(data, model.generation.modalities, told, alone=True) as (pairs, paired):
            return drift(model, pairs, progress=told), paired, warnings


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _trial(found: dict[str, Any]) -> list[str]:
    """Return what there is to say of trials: one that runs, and the last one that failed."""
    lines = []
    if found["trial"]:
        back_to = found["trial"]["back_to"]
        which = "an older one" if back_to is None else f"generation {back_to}"
        lines.append(f"on trial: if it fails, {which} is used again; `edge-cmcl confirm` keeps it")
    if found["reverted"]:
        failed = found["reverted"]
        lines.append(f"generation {failed['digest'][7:19]} failed its trial at {failed['since']}: {failed['reason']}")
    return lines


def _runs(found: dict[str, Any]) -> list[str]:
    """Return where encoders run that are not in float32 on the CPU."""
    lines = []
    for each in found["modalities"]:
        if each["precision"] not in (None, "fp32") or each["target"] not in (None, "cpu"):
            lines.append(f"{each['modality']}: {each['precision']} for {each['target']}, run by {each['provider']}")
    return lines


def _synced(found: dict[str, Any]) -> list[str]:
    """Return what there is to say of syncs."""
    known = found["sync"]
    if known is None:
        return []
    left = f"{known['unsent']} generations to send" if known["unsent"] else "everything sent"
    return [f"syncs with {known['remote']}, reported {known['reported'] or 'never'}: {left}"]


def _quality(metrics: dict[str, Any]) -> list[object]:
    """Return what a pair's record says of it: MRR, its interval, chance; None where it was not judged."""
    interval = metrics.get("mrr_interval")
    shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else None
    return [metrics.get("mrr"), shown, metrics.get("mrr_chance")]


def signed(generation: dict[str, Any]) -> str:
    """Return by whom a generation of `status` or `log` is signed."""
    from edge_cmcl.device.signing import SignedBy

    return str(SignedBy(**generation["signed_by"]))


def bound(origin: dict[str, Any]) -> str:
    """Return the relative displacement bound of an origin as a percentage."""
    return f"{origin['relative_displacement_bound']:.2%}"
