"""What a microcontroller gets: blob."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import show, table, warned
from edge_cmcl.cli.options import Json, Store, default_store
from edge_cmcl.cli.outputs import MICRO, MICRO_HEADER, Force, check_output

if TYPE_CHECKING:
    from edge_cmcl.device.micro import MicroFit
    from edge_cmcl.device.micro_loss import Loss, Parity
    from edge_cmcl.device.model import Model
    from firmware_bridge.blob import MicroModel

app = typer.Typer()

CODE_BYTES = 8 << 10
"""Room for the C library's micro model in flash; it takes less (tests/bridge/test_micro_board.py)."""


class Precision(str, Enum):
    """What the numbers of a micro model are."""

    float32 = "float32"
    int8 = "int8"


@app.command(epilog="Example: edge-cmcl blob --modality vibration --data later.safetensors --out vibration.ecmm")
def blob(
    modality: Annotated[str, typer.Option("--modality", help="A known sensor with the universal encoder.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    width: Annotated[int, typer.Option("--width", help="Features, a multiple of 12.")] = 252,
    precision: Annotated[Precision, typer.Option("--precision", help="int8, or float32 for an FPU.")] = Precision.int8,
    c_header: Annotated[
        bool, typer.Option("--c-header", help="Also write it as a C header, beside --out with the ending .h.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="A pairs file that the model has NOT learned from, to measure its loss. [default: pairs kept back]",
        ),
    ] = None,
    max_loss: Annotated[
        float, typer.Option("--max-loss", min=0.0, help="Most points of R@10 that may be lost with any partner.")
    ] = 5.0,
    force: Force = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Write a small model of one sensor for a microcontroller.

    It embeds a window and names the nearest label by itself, with the C library of firmware_bridge/c. It is fitted from
    the sketches in the store, so no recording is needed for that; to measure what it loses, one is: a file that the
    model has not learned from, or the pairs that the device keeps back (`update --hold-back`).
    """
    from edge_cmcl.device.micro import fit_micro
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.durable import write_bytes
    from firmware_bridge.blob import write
    from firmware_bridge.c_header import c_header as as_c_header

    header = out.with_suffix(".h") if c_header else None
    _check_outputs(out, header, data, force=force)
    where = store or default_store()
    with warned() as warnings:
        model = open_model(where)
        fit = fit_micro(model, modality, width)
        source, made = models(model, fit, precision.value)
        written = write(made)
        same = _parity(model, fit, source, made)
        losses = _losses(model, fit, source, made, data, where)
    guard(modality, losses, max_loss)
    write_bytes(out, written)
    if header is not None:
        write_bytes(header, as_c_header(made, written).encode())
    result = {"out": out, "c_header": header, **_described(made, written), "parity": vars(same)}
    result |= {"max_loss": max_loss, "loss": [loss.as_json() for loss in losses], "warnings": warnings}
    show(result, _text(result, losses, same), json=json)


def guard(modality: str, losses: list[Loss], max_loss: float) -> None:
    """Refuse a micro model that loses too much R@10 with a partner, or accuracy where it has labels alone.

    Raises:
        RefusedError: it does.
    """
    from edge_cmcl.device.text import TEXT
    from edge_cmcl.errors import RefusedError

    judged = [loss for loss in losses if loss.partner != TEXT] or losses
    worst = max(judged, key=lambda loss: loss.points)
    if not worst.points <= max_loss:
        what = "accuracy" if worst.partner == TEXT else "R@10"
        raise RefusedError(
            f"the micro model of {modality} loses too much with {worst.partner}: nothing was written",
            expected=f"at most {max_loss:g} points of {what}",
            got=f"{worst.points:.1f}, {worst.points - max_loss:.1f} too many, on {worst.n} windows of {worst.source}",
            hint="a larger --width loses less; --max-loss lets it pass",
        )


def _check_outputs(out: Path, header: Path | None, data: Path | None, *, force: bool) -> None:
    from edge_cmcl.errors import UsageError

    read = [data] if data is not None else []
    check_output(out, read, MICRO, force=force)
    if header == out:
        hint = "choose another ending for --out, for instance .ecmm"
        raise UsageError(f"{out} would be both the blob and its C header", expected="two names", hint=hint)
    if header is not None:
        check_output(header, read, MICRO_HEADER, force=force)


def models(model: Model, fit: MicroFit, precision: str) -> tuple[MicroModel, MicroModel]:
    """Return the micro model in float32, and as it is to be written."""
    from firmware_bridge.blob import FLOAT32
    from firmware_bridge.micro import float_model, quantised

    source = float_model(
        modality=fit.modality,
        generation=bytes.fromhex(model.loaded.digest.removeprefix("sha256:")),
        samples=fit.samples,
        scale=model.record(fit.modality).scale,
        weights=fit.weights,
        biases=fit.biases,
        dilations=fit.dilations,
        mean=fit.mean,
        std=fit.std,
        head=fit.head,
        label_names=fit.label_names,
        labels=fit.labels,
    )
    return source, source if precision == FLOAT32 else quantised(source, fit.largest)


def _parity(model: Model, fit: MicroFit, source: MicroModel, made: MicroModel) -> Parity:
    from edge_cmcl.device.micro_loss import parity
    from firmware_bridge.micro import embed, embed_outputs, unit

    return parity(
        model,
        fit,
        single=lambda windows: unit(embed(source, windows)),
        single_outputs=lambda outputs: unit(embed_outputs(source, source, outputs)),
        written=lambda windows: unit(embed(made, windows)),
    )


def _losses(
    model: Model, fit: MicroFit, source: MicroModel, made: MicroModel, data: Path | None, store: Path
) -> list[Loss]:
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.judgement import kept_pairs
    from edge_cmcl.device.micro_loss import loss_on_kept, loss_on_pairs, need_data
    from edge_cmcl.device.store import open_store
    from firmware_bridge.micro import embed, embed_outputs, unit

    if data is not None:
        with open_pairs(data) as pairs:
            return loss_on_pairs(model, fit, pairs, lambda windows: unit(embed(made, windows)))
    kept = kept_pairs(open_store(store))
    found = loss_on_kept(model, fit, kept, lambda outputs: unit(embed_outputs(made, source, outputs)))
    if not found:
        raise need_data(fit.modality)
    return found


def _described(made: MicroModel, written: bytes) -> dict[str, Any]:
    from firmware_bridge.micro import scratch_bytes, window_bytes

    embedding_bytes = made.dimensions * (2 if made.precision == "int8" else 4)
    return {
        "modality": made.modality,
        "precision": made.precision,
        "width": made.width,
        "embedding_dim": made.dimensions,
        "channels": made.channels,
        "samples": made.samples,
        "labels": len(made.label_names),
        "bytes": len(written),
        "flash_bytes": 2 * len(written) + CODE_BYTES,
        "ram_bytes": scratch_bytes(made) + window_bytes(made) + embedding_bytes,
    }


def _text(result: dict[str, Any], losses: list[Loss], same: Parity) -> str:
    size = "{out}: {modality}, {precision}, {width} features, {labels} labels, {bytes} bytes".format(**result)
    need = "it takes {flash_bytes} bytes of flash (two slots and code) and {ram_bytes} of RAM beside the stack".format(
        **result
    )
    agreed = f"golden inputs: kernels within {same.kernels:.1g} of the full model's; "
    agreed += f"{result['precision']} within {same.precision:.1g} of float32, cosine at least {same.cosine:.5f}"
    rows = []
    for loss in losses:
        key = "accuracy" if "accuracy" in loss.full else "recall_at_10"
        what = "accuracy" if key == "accuracy" else "R@10"
        mrr = (loss.full.get("mrr"), loss.micro.get("mrr"))
        rows.append([loss.partner, loss.source, loss.n, what, 100 * loss.full[key], 100 * loss.micro[key], *mrr])
    header = ["with", "measured on", "windows", "figure", "full, %", "micro, %", "MRR full", "MRR micro"]
    return "\n".join([size, need, agreed, "", table(header, rows)])
