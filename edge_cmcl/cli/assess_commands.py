"""Asking before an update whether it is worth it: assess."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cmcl.cli.console import progress, show, table, warned
from edge_cmcl.cli.options import Json, Store, Threads, default_store
from edge_cmcl.cli.terms import MOVED, MRR, STILL

if TYPE_CHECKING:
    from edge_cmcl.device.assess import Assessment
    from edge_cmcl.device.cost import Cost

app = typer.Typer()

_NEW_SHARE = (
    "new: {share:.0%} of {modality} cannot be predicted from the known sensors at held-out moments, between 0 % for a "
    "copy and\n100 % for an unrelated sensor. Noise cannot be predicted either, so at most so much is new."
)


@app.command(epilog="Example: edge-cmcl assess --modality acoustic --data new.safetensors --with vibration")
def assess(
    modality: Annotated[str, typer.Option("--modality", help="The sensor that would be learned, new or known.")],
    data: Annotated[
        Path, typer.Option("--data", help="A pairs file or recording of it and its partners, at least 32 pairs.")
    ],
    partner: Annotated[
        list[str] | None,
        typer.Option("--with", help='A partner; repeat. "text" is the labels. [default: all known, and labels]'),
    ] = None,
    threads: Threads = 0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Say whether a sensor is worth an update; change nothing.

    The recommendation is `learn`, `do not learn` or `unclear`, each with its reasons, and the exit code is 0 for all of
    them. The store is only read, also while another process writes to it; a recording is aligned in a temporary file
    first, and left alone.
    """
    from edge_cmcl.cli import recordings
    from edge_cmcl.device.assess import assess as look
    from edge_cmcl.device.store import CURRENT, open_store

    opened = open_store(store or default_store())
    known = opened.load(CURRENT).generation.modalities
    named = {modality, *(partner or ())}
    wanted = named if partner else {*named, *known}
    with (
        progress() as told,
        warned() as warnings,
        recordings.opened(data, known, told, wanted=wanted, required=named) as (pairs, paired),
    ):
        found = look(opened, pairs, modality, partners=partner, threads=threads, progress=told)
    result, text = {**found.as_json(), "warnings": warnings}, describe(found)
    if paired is not None:
        result["recording"], text = paired.as_json(), f"{recordings.describe(paired)}\n\n{text}"
    show(result, text, json=json)


def describe(found: Assessment) -> str:
    """Return an assessment for people, the recommendation first and last."""
    name = found.modality if found.known else f"{found.modality} (NEW)"
    lines = [f"{name}: {found.recommendation}", *(f"- {reason}" for reason in found.reasons)]
    if found.cost is None:
        return "\n".join(lines)
    evidence = [
        [
            each.partner, each.n, each.chance, each.shuffled, each.mrr,
            f"{each.interval[0]:+.3f} to {each.interval[1]:+.3f}", each.p,
        ]
        for each in found.evidence
    ]  # fmt: skip
    header = ["predicts", "held-out pairs", "MRR by chance", "shuffled", "MRR", "gain over chance, 95 %", "p"]
    lines += ["", table(header, evidence), MRR, "p: share of shuffled pairings that do as well."]
    if found.new_share is not None:
        lines += ["", _NEW_SHARE.format(modality=found.modality, share=found.new_share)]
    moved = [[c["modality"], c["origin"], f"{c['relative']:.3%}"] for c in found.certificate if c["bound"] > 0]
    lines += ["", "What an update would risk:"]
    lines += [table(["modality", "learned earlier as", "would move at most"], moved), MOVED] if moved else [STILL]
    ending = f"Looked at {found.looked_at} of {found.pairs} pairs in {found.seconds:.1f} s; nothing was changed."
    return "\n".join([*lines, "", _cost(found.cost), ending])


def _cost(cost: Cost) -> str:
    energy = "energy not reported by this board"
    if cost.joules is not None:
        energy = f"{cost.joules:.0f} J ({cost.power_source})"
    return (
        f"What an update would cost: about {cost.total_s:.1f} s, {cost.peak_memory_bytes / 1e6:.0f} MB of memory, "
        f"{cost.bytes_added / 1e6:.1f} MB in the store,\n{cost.scratch_bytes / 1e6:.0f} MB of work files; {energy}."
    )
