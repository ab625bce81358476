"""What the host does with its devices: `fleet pull`, `list`, `show`, `evaluate`, `merge`, `promote`, `demote`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cmcl.cli.console import progress, show, table, warned
from edge_cmcl.cli.links import (
    PATIENCE_S,
    REMOTE,
    CaFile,
    Identity,
    KnownHosts,
    Limit,
    Patience,
    PlainHttp,
    remote_at,
)
from edge_cmcl.cli.options import Json, default_fleet, host_keys
from edge_cmcl.cli.signers import Key, signers
from edge_cmcl.errors import UsageError
from edge_cmcl.limits import MAX_DRIFT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_cmcl.bundle.attested import JudgedPair, Promotion
    from edge_cmcl.host.fleet.fleet import Fleet
    from edge_cmcl.host.fleet.promoting import Stage
    from edge_cmcl.host.fleet.state import Device
    from edge_cmcl.sync.remote import Remote

app = typer.Typer()
fleet = typer.Typer(
    help="The devices of a host: what they learned, merged and sent back.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(fleet, name="fleet")

Folder = Annotated[
    Path | None,
    typer.Option("--fleet", envvar="EDGE_CMCL_FLEET", help="The fleet. [default: in the user's data folder]"),
]
Devices = Annotated[list[str] | None, typer.Option("--device", help="A device, by the start of its id; repeat.")]
Share = Annotated[
    float | None, typer.Option("--share", min=0.0, max=1.0, help="This share of the fleet: 0.1 is one in ten.")
]
All = Annotated[bool, typer.Option("--all", help="Every device, those that come later too.")]


@fleet.command(epilog="Example: edge-cmcl fleet pull oci://registry.example/machines --trust 3f5a...")
def pull(
    remote: Annotated[str, typer.Argument(help=f"{REMOTE} [default: that of the last pull]")] = "",
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", help="Fingerprint of a device's key (`keys list` there) to trust; repeat."),
    ] = None,
    limit: Limit = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    known_hosts: KnownHosts = None,
    identity: Identity = None,
    patience: Patience = PATIENCE_S,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Bring what devices sent: reports, generations, judgements.

    Only devices whose key is trusted are taken; the others are named with their fingerprints.
    """
    from edge_cmcl.bundle.keyring import own_key
    from edge_cmcl.errors import IntegrityError
    from edge_cmcl.host.fleet.fleet import Fleet
    from edge_cmcl.host.fleet.pulling import pull as bring

    opened = Fleet.create(folder or default_fleet())
    link = _link(opened, remote, limit, ca_file, plain_http, known_hosts, identity, patience)
    own = own_key(host_keys())[0].public
    with link, progress() as told, warned() as warnings:
        pulled = bring(opened, link, own, [each.lower() for each in trust or ()], told)
    lines = [f"{len(pulled.news)} devices with news, {pulled.unchanged} without, {pulled.received_bytes / 1e6:.2f} MB"]
    lines += [
        f"{name} is not trusted: if it is yours, `edge-cmcl fleet pull --trust {key}`"
        for name, key in pulled.strangers.items()
    ]
    lines += [f"{name} signs with a key that was revoked here: nothing of it is taken" for name in pulled.revoked]
    lines += [
        f"WARNING: nothing there is signed by {key}: `edge-cmcl sync` on the device first, then --trust all 64 digits"
        for key in pulled.unused
    ]
    lines += [f"PROBLEM: {name}: {why}" for name, why in pulled.problems.items()]
    show({**pulled.as_json(), "warnings": warnings}, "\n".join(lines), json=json)
    if pulled.problems and not (pulled.news or pulled.unchanged or pulled.strangers):
        raise typer.Exit(IntegrityError.exit_code)


@fleet.command("list", epilog="Example: edge-cmcl fleet list")
def list_(folder: Folder = None, json: Json = False) -> None:
    """List the devices: what is in use there, and when last seen."""
    opened = open_fleet(folder)
    devices, state = opened.devices(), opened.state()
    rows = [
        [
            each.device_id,
            each.report.counter,
            each.report.manifest[7:19],
            "on trial" if each.report.trial else "",
            each.seen,
            len(each.report.declined),
            _offer(each, state.for_all),
        ]
        for each in devices.values()
    ]
    header = ["device", "generation", "digest", "", "last seen", "declined", "promoted"]
    text = table(header, rows) if rows else "no device has been seen yet: `edge-cmcl fleet pull REMOTE`"
    found = [_device_json(each) for each in devices.values()]
    show({"remote": state.remote, "devices": found}, text, json=json)


@fleet.command("show", epilog="Example: edge-cmcl fleet show 3f5a")
def show_(
    device: Annotated[str, typer.Argument(help="A device, by the start of its id.")],
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Show what one device learned, and how well by its own word.

    Its generations with what it found on the pairs that it kept back, and of what it was offered.
    """
    opened = open_fleet(folder)
    found = opened.named(device)
    history = [
        [past.counter, past.digest[7:19], past.action, past.created, f"{past.worst:.2%}", _pairs(past.judged)]
        for past in found.history
    ]
    lines = [
        f"{found.device_id}, signs with {found.fingerprint}",
        f"last seen {found.seen} with generation {found.report.counter}{' on trial' if found.report.trial else ''}, "
        f"{found.report.software}",
        "",
        table(["generation", "digest", "action", "created", "moved at most", "MRR on its kept pairs"], history),
    ]
    for digest, verdict in found.verdicts.items():
        said = "took" if verdict.accepted else f"declined ({verdict.reason})"
        lines.append(f"{said} {digest[7:19]}: {_pairs(verdict.pairs)}")
    lines += [f"declined {each.digest[7:19]}: {each.reason}" for each in found.report.declined]
    if found.report.reverted:
        lines.append(f"reverted {found.report.reverted.digest[7:19]}: {found.report.reverted.reason}")
    result = _device_json(found)
    result["history"] = [past.model_dump() for past in found.history]
    result["verdicts"] = {digest: verdict.model_dump() for digest, verdict in found.verdicts.items()}
    show(result, "\n".join(lines), json=json)


@fleet.command(epilog="Example: edge-cmcl fleet evaluate 3f5a --data test.safetensors")
def evaluate(
    generation: Annotated[str, typer.Argument(help="A device, a tag, or a digest.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="A pairs file of the host's own; repeat for more.")
    ] = None,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Judge a generation on pairs of the host's own; remember it.

    Pairs that devices share are judged, too.
    """
    from edge_cmcl.cli.host_commands import describe_metrics
    from edge_cmcl.host.fleet.evaluating import evaluate as judge

    opened = open_fleet(folder)
    with progress() as told, warned() as warnings:
        loaded, found, means, shared = judge(opened, generation, data or (), told)
    rows = [
        [each.file, " - ".join(each.modalities), *(each.metrics[name] for name in ("n", "mrr", "recall_at_10"))]
        for each in shared
    ]
    parts = [describe_metrics(found, means)] if found else []
    parts += [table(["pairs", "of", "n", "MRR", "R@10"], rows)] if rows else []
    result = {"generation": loaded.digest, "pairs": [each.as_json() for each in found], "overall": means}
    result["shared"] = [each.model_dump() for each in shared]
    show({**result, "warnings": warnings}, "\n\n".join(parts), json=json)


@fleet.command(epilog="Example: edge-cmcl fleet merge 3f5a 9c61")
def merge(
    generations: Annotated[
        list[str] | None, typer.Argument(help="Devices, tags or digests. [default: what each device has in use]")
    ] = None,
    max_drift: Annotated[
        float, typer.Option("--max-drift", min=0.0, help="Refuse to move what a device learned by more; 0.1 is 10 %.")
    ] = MAX_DRIFT,
    force: Annotated[bool, typer.Option("--force", help="Merge although something moves further; on record.")] = False,
    key: Key = None,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Make one generation of what several devices learned.

    They must have begun with the same base. It is signed, and no device uses it before it is promoted.
    """
    from edge_cmcl.host.fleet.merging import merge_devices

    opened = open_fleet(folder)
    signing, rotations = signers(key)
    with warned() as warnings:
        merged = merge_devices(opened, generations or (), signing, rotations, max_drift=max_drift, force=force)
    rows = [
        [name, each["how"], ", ".join(who or "the base" for who in each["devices"])]
        for name, each in merged.modalities.items()
    ]
    moved = sorted(merged.certificate, key=lambda each: -each.relative)[:5]
    worst = [[each.modality, each.origin, f"{each.relative:.3%}"] for each in moved]
    text = (
        f"generation {merged.counter}, {merged.digest[7:19]}, of {len(merged.parents)} generations\n\n"
        f"{table(['modality', 'came about', 'taught by'], rows)}\n\n"
        f"{table(['modality', 'learned as', 'moved at most'], worst)}\n\n"
        f"let devices try it: edge-cmcl fleet promote {merged.digest[7:19]} --trial --share 0.1"
    )
    show({**merged.as_json(), "warnings": warnings}, text, json=json)


@fleet.command(epilog="Example: edge-cmcl fleet promote 9c61d92814f9 --share 0.1 --trial")
def promote(
    generation: Annotated[str, typer.Argument(help="A tag or digest, or a device for what it has in use.")],
    device: Devices = None,
    share: Share = None,
    every: All = False,
    trial: Annotated[
        bool, typer.Option("--trial", help="Devices judge it and tell what they found; nobody keeps it for good yet.")
    ] = False,
    key: Key = None,
    limit: Limit = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    known_hosts: KnownHosts = None,
    identity: Identity = None,
    patience: Patience = PATIENCE_S,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Let devices use a generation from their next sync on.

    Some of them, a share of the fleet (a wave), or all. Each judges it first on the pairs that it kept back.
    """
    opened = open_fleet(folder)
    link = _link(opened, "", limit, ca_file, plain_http, known_hosts, identity, patience)
    _decide(opened, link, generation, device, share, every, key, "trial" if trial else "release", json)


@fleet.command(epilog="Example: edge-cmcl fleet demote 9c61d92814f9 --all")
def demote(
    generation: Annotated[str, typer.Argument(help="The tag or digest that was promoted.")],
    device: Devices = None,
    share: Share = None,
    every: All = False,
    key: Key = None,
    limit: Limit = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    known_hosts: KnownHosts = None,
    identity: Identity = None,
    patience: Patience = PATIENCE_S,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Take a promoted generation back.

    Devices that have it in use go back to the one before at their next sync.
    """
    opened = open_fleet(folder)
    link = _link(opened, "", limit, ca_file, plain_http, known_hosts, identity, patience)
    _decide(opened, link, generation, device, share, every, key, "withdrawn", json)


def open_fleet(folder: Path | None) -> Fleet:
    """Return the fleet at `folder`, by default this user's.

    Raises:
        ModelError: there is none.
    """
    from edge_cmcl.host.fleet.fleet import Fleet

    return Fleet(folder or default_fleet())


def _link(
    opened: Fleet,
    remote: str,
    limit: float | None,
    ca_file: Path | None,
    plain_http: bool,
    known_hosts: Path | None,
    identity: Path | None,
    patience: float,
) -> Remote:
    from edge_cmcl.bundle.store_files import SYNC_FOLDER

    url = remote or opened.state().remote
    if not url:
        raise UsageError("this fleet has not pulled yet", expected="edge-cmcl fleet pull REMOTE", got="no remote")
    return remote_at(url, opened.root / SYNC_FOLDER, limit, ca_file, plain_http, known_hosts, identity, patience)


def _decide(
    opened: Fleet,
    link: Remote,
    generation: str,
    device: list[str] | None,
    share: float | None,
    every: bool,
    key: list[Path] | None,
    stage: Stage,
    json: bool,
) -> None:
    from edge_cmcl.host.fleet.promoting import ALL, wave
    from edge_cmcl.host.fleet.promoting import promote as decide

    if sum((bool(device), share is not None, every)) != 1:
        raise UsageError(
            "for whom is this decision?",
            expected="one of --device ID, --share SHARE and --all",
            got="none of them" if not (device or share is not None or every) else "several of them",
        )
    loaded = opened.generation(generation)
    if every:
        chosen = [ALL]
    elif share is not None:
        chosen = wave(list(opened.devices()), loaded.digest, share)
    else:
        chosen = [opened.named(each).device_id for each in device or ()]
    signing, rotations = signers(key)
    with link, progress() as told:
        done = decide(opened, link, loaded.digest, chosen, signing, rotations, stage=stage, progress=told)
    whom = "all devices" if every else ", ".join(done.devices)
    verb = {"trial": "to be tried by", "release": "released to", "withdrawn": "withdrawn from"}[stage]
    show(done.as_json(), f"generation {done.counter} ({done.generation[7:19]}) is {verb} {whom}", json=json)


def _device_json(device: Device) -> dict[str, object]:
    decision = device.decision.model_dump(exclude={"schema_name"}) if device.decision else None
    report = device.report.model_dump(exclude={"schema_name", "device_id"})
    return {
        "device_id": device.device_id,
        "fingerprint": device.fingerprint,
        "seen": device.seen,
        "report": report,
        "decision": decision,
    }


def _offer(device: Device, for_all: Promotion | None) -> str:
    from edge_cmcl.host.fleet.fleet import latest_decision

    decision = latest_decision(device, for_all)
    if decision is None:
        return ""
    verdict = device.verdicts.get(decision.manifest)
    said = "" if verdict is None else ", took it" if verdict.accepted else ", declined it"
    return f"{decision.manifest[7:19]} ({decision.stage}{said})"


def _pairs(judged: Sequence[JudgedPair]) -> str:
    return ", ".join(
        f"{' - '.join(each.modalities)} "
        + (f"{each.before:.3f} to {each.mrr:.3f}" if each.before is not None else f"{each.mrr:.3f}")
        for each in judged
    )
