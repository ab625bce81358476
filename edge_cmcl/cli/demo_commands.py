"""`edge-cmcl demo`: the whole loop on a simulated machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cmcl.cli.console import show, table, told
from edge_cmcl.cli.options import Json, need_host

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl demo --keep demo")
def demo(
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Keep all files in this folder. [default: a temporary one]")
    ] = None,
    json: Json = False,
) -> None:
    """Run the whole loop on a simulated machine, in accelerated time."""
    need_host()
    import tempfile

    from edge_cmcl.host.demo import Demo

    told("the machine and its sensors are simulated; nothing here is measured on real hardware")
    if keep is not None:
        result = Demo(keep, told).run()
    else:
        with tempfile.TemporaryDirectory(prefix="edge-cmcl-demo-") as folder:
            result = Demo(Path(folder), told).run()
    show(result, _describe(result, keep), json=json)


def _look_around(kept: Path | None) -> str:
    if kept is not None:
        return f"look around with `edge-cmcl status --store {kept / 'device-store'}`"
    return "nothing was kept: `edge-cmcl demo --keep FOLDER`, then `edge-cmcl status --store FOLDER/device-store`"


def _describe(result: dict[str, Any], kept: Path | None) -> str:
    stages = result["stages"]
    names = list(stages[-1]["pairs"])
    scores = [[name, *(_percent(stage["pairs"].get(name)) for stage in stages)] for name in names]
    updates = [
        [
            update["modality"],
            ", ".join(update["partners"]),
            update["pairs"],
            _percent(max((c["relative"] for c in update["certificate"]), default=0.0), 3),
            round(sum(update["seconds"].values()), 1),
            round(update["peak_memory_bytes"] / 1e6),
            round(update["bytes_added"] / 1e6, 1),
        ]
        for update in result["updates"]
    ]
    header = ["update", "with", "pairs", "older embeddings moved at most", "seconds", "MB of memory", "MB added"]
    return "\n".join(
        [
            "",
            "Simulated machine, test windows of another day. Sensor pairs: R@10 among 300 moments (chance 3.3%);",
            "sensor - text: accuracy of 6 health states (chance 16.7%).",
            "",
            table(["pair", *(stage["stage"] for stage in stages)], scores),
            "",
            table(header, updates),
            "",
            f"done in {result['seconds']:.0f} s; {_look_around(kept)}",
        ]
    )


def _percent(share: float | None, digits: int = 1) -> str | None:
    return None if share is None else f"{share:.{digits}%}"
