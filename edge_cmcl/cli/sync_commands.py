"""`edge-cmcl sync`: a device and its remote."""

from __future__ import annotations

from itertools import groupby
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
from edge_cmcl.cli.options import Json, Store, default_store
from edge_cmcl.errors import UsageError

if TYPE_CHECKING:
    from edge_cmcl.device.outgoing import Outgoing
    from edge_cmcl.device.syncing import SyncReport

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl sync oci://registry.example/machines --limit 50")
def sync(
    remote: Annotated[str, typer.Argument(help=f"{REMOTE} [default: that of the last sync]")] = "",
    show_only: Annotated[
        bool, typer.Option("--show", help="List every file that would leave this device, with its size; send nothing.")
    ] = False,
    share_heldout: Annotated[
        int,
        typer.Option(
            "--share-heldout", min=0, help="Also send so many pairs that were kept back of each step to the host."
        ),
    ] = 0,
    limit: Limit = None,
    ca_file: CaFile = None,
    plain_http: PlainHttp = False,
    known_hosts: KnownHosts = None,
    identity: Identity = None,
    patience: Patience = PATIENCE_S,
    store: Store = None,
    json: Json = False,
) -> None:
    """Send what this device learned; take what the host promoted.

    Adapters, sketches, statistics, metrics and signatures are sent; windows never are, and features only with
    --share-heldout. What the host offers is judged on the pairs that this device kept back, and is on trial afterwards.
    While the remote is away the device works on, and the next sync sends everything (exit code 6).
    """
    from edge_cmcl.bundle.store_files import SYNC_FOLDER
    from edge_cmcl.device.outgoing import outgoing
    from edge_cmcl.device.sharing import share
    from edge_cmcl.device.store import open_store
    from edge_cmcl.device.syncing import sync as synchronise

    opened = open_store(store or default_store())
    url = remote or opened.state().sync.remote
    if not url:
        raise UsageError("this device has not synced yet", expected="edge-cmcl sync REMOTE", got="no remote")
    link = remote_at(url, opened.root / SYNC_FOLDER, limit, ca_file, plain_http, known_hosts, identity, patience)
    with link, progress() as told, warned() as warnings:
        if show_only:
            items = outgoing(opened, link, share_heldout)
            shown = {"remote": link.name, "files": [_as_json(item) for item in items], "warnings": warnings}
            show(shown, _describe_items(items), json=json)
            return
        report = synchronise(opened, link, progress=told)
        shared = share(opened, link, share_heldout) if share_heldout else None
    result = {**report.as_json(), "shared": vars(shared).copy() if shared else None, "warnings": warnings}
    lines = [describe(report)]
    if shared:
        lines.append(f"shared {shared.pairs} pairs that were kept back, {shared.bytes / 1e6:.2f} MB")
    show(result, "\n".join(lines), json=json)


def describe(report: SyncReport) -> str:
    """Return what a sync did, for people."""
    followed = report.followed
    sent = ", ".join(digest[7:19] for digest in report.sent)
    lines = [
        f"sent {len(report.sent)} generations ({sent}), {report.sent_bytes / 1e6:.2f} MB, to {report.remote}"
        if report.sent
        else f"nothing new to send to {report.remote}"
    ]
    if report.judged:
        rows = [
            [" - ".join(each["modalities"]), each["n"], each["gallery"], each["mrr"], each["recall_at_10"]]
            for each in report.judged
        ]
        lines += ["", table(["told of pairs kept back", "n", "gallery", "MRR", "R@10"], rows), ""]
    if followed.decision is None:
        lines.append("the host has promoted nothing for this device")
    else:
        decision = followed.decision
        what = f"generation {decision.counter} ({decision.manifest[7:19]}), {decision.stage}"
        why = f": {followed.reason}" if followed.reason else ""
        lines.append(f"the host's decision {decision.serial}: {what}: {followed.news}{why}")
    if followed.received_bytes:
        lines.append(f"received {followed.received_bytes / 1e6:.2f} MB")
    return "\n".join(lines)


def _as_json(each: Outgoing) -> dict[str, object]:
    from edge_cmcl.bundle.parts import part_of

    item = each.item
    return {
        "generation": item.generation,
        "tag": item.tag,
        "media_type": item.blob.media_type,
        "artifact_type": item.blob.artifact_type,
        "digest": None if each.signed_then else item.blob.digest,
        "part_of": part_of(item.blob) or None,
        "bytes": item.blob.size,
        "exact": each.exact,
        "there": item.there,
    }


def _describe_item(each: Outgoing) -> list[object]:
    return [
        each.item.generation[7:19],
        each.item.blob.artifact_type or each.item.blob.media_type,
        "signed then" if each.signed_then else each.item.blob.digest[7:19],
        each.item.blob.size if each.exact else f"at most {each.item.blob.size}",
        "there" if each.item.there else "",
    ]


def _describe_parts(whole: str, parts: list[Outgoing]) -> list[object]:
    """Return one row for the parts of a blob; --json lists each."""
    there = sum(each.item.there for each in parts)
    return [
        parts[0].item.generation[7:19],
        f"{parts[0].item.blob.media_type}, {len(parts)} parts",
        whole[7:19],
        sum(each.item.blob.size for each in parts),
        "there" if there == len(parts) else f"{there} there" if there else "",
    ]


def _describe_items(found: list[Outgoing]) -> str:
    from edge_cmcl.bundle.parts import part_of

    rows = [
        row
        for whole, each in groupby(found, key=lambda each: part_of(each.item.blob))
        for row in ([_describe_parts(whole, list(each))] if whole else map(_describe_item, each))
    ]
    size = sum(each.item.blob.size for each in found if not each.item.there)
    most = "" if all(each.exact for each in found) else "at most "
    header = ["generation", "what", "digest", "bytes", "remote"]
    return f"{table(header, rows)}\n{most}{size / 1e6:.2f} MB would be sent"
