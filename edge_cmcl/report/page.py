"""One self-contained HTML page from a comparison: it opens offline, and loads nothing.

Jinja2 escapes every text of the result file; vl-convert brings Vega-Lite, Vega and an interpreter of its expressions as
one script. The specifications in `charts` are plain dictionaries: Altair would add seven packages to write them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import MissingExtraError
from edge_cmcl.report import charts
from edge_cmcl.report.entries import Entry, entries_of, leaders, percent, seconds_text, signed, size_text
from edge_cmcl.report.results import OURS, Comparison, Corruption
from edge_cmcl.report.sentences import JOINT, TITLES, best_continual, verdict
from edge_cmcl.report.summary import Scores, Spread, mean_over_seeds

TEMPLATES = Path(__file__).parent / "template"

VANILLA = "vanilla"
IN_COLOUR = 4
"""Strategies that charts show in colour at first; the reader chooses others."""


def write_page(comparison: Comparison, path: Path | str) -> int:
    """Write the page of `comparison` to `path`, durably, and return its size in bytes.

    Raises:
        MissingExtraError: Jinja2 or vl-convert-python is not installed.
        StorageError: the file system refused.
    """
    page = render(comparison).encode()
    write_bytes(Path(path), page)
    return len(page)


def is_page(path: Path) -> bool:
    """Return whether the file `path` is a page that `write_page` wrote, of this version or another."""
    with path.open("rb") as file:
        return b'<meta name="generator" content="edge-cmcl report">' in file.read(4096)


def render(comparison: Comparison) -> str:
    """Return the page of `comparison` as HTML.

    Raises:
        MissingExtraError: Jinja2 or vl-convert-python is not installed.
    """
    entries = entries_of(comparison)
    colours = colours_of(entries)
    return fill(
        "page.html.j2",
        {"percent": percent, "signed": signed, "size": size_text, "seconds": seconds_text},
        comparison=comparison,
        command=shlex.join(comparison.command),
        columns=[name for name in comparison.metrics if name != "mrr"],
        titles=TITLES,
        entries=entries,
        colours=colours,
        best=best_continual(comparison, comparison.headline),
        leaders=leaders(entries, comparison.metrics),
        sentences=verdict(comparison),
        data=chart_data(comparison, entries, colours),
        corruption=_corruption(comparison.corruption),
    )


def fill(template: str, filters: Mapping[str, Callable[..., str]], **values: object) -> str:
    """Return a template of `TEMPLATES`, every text escaped, with the script that draws as `library`.

    Raises:
        MissingExtraError: Jinja2 or vl-convert-python is not installed.
    """
    library = _library()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(library=library, **values)


@cache
def _library() -> str:
    """Return Vega-Embed with Vega-Lite and Vega as one script; bundling them takes two seconds."""
    try:
        import jinja2  # noqa: F401  one message for both
        import vl_convert
    except ImportError as error:
        raise MissingExtraError(
            "a report needs the host extra",
            expected="jinja2 and vl-convert-python",
            got=str(error),
            hint="pip install '.[host]' in a checkout of edge-cmcl",
        ) from error
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script")  # nothing in it may end its own element


def _corruption(found: Corruption | None) -> str:
    if found is None:
        return ""
    done = {
        "noise at {:g} dB": found.noise_snr_db,
        "{:.0%} missing": found.missing_fraction,
        "drift {:g}": found.drift_rate,
    }
    told = ", ".join(form.format(value) for form, value in done.items() if value is not None)
    return f"Corrupted windows ({' and '.join(found.parts)}): {told}."


def colours_of(entries: Sequence[Entry]) -> dict[str, str]:
    """Return a CSS colour for each strategy; those that stand in every comparison have one of their own."""
    palette = cycle(charts.PALETTE)
    own = {OURS: charts.OURS_COLOUR, JOINT: charts.JOINT_COLOUR, VANILLA: charts.VANILLA_COLOUR}
    names = [entry.first.strategy for entry in entries]
    return {name: own[name] if name in own else next(palette) for name in names}


def chart_data(comparison: Comparison, entries: Sequence[Entry], colours: dict[str, str]) -> dict[str, Any]:
    """Return what page.js draws: specifications, and scores in percent, means over seeds, null where there is none."""
    steps = len(comparison.stream.steps)
    return {
        "config": charts.CONFIG,
        "specs": {
            "average": charts.average_curve(steps, colours),
            "pair": charts.pair_curve(steps, colours),
            "matrix": charts.heat_map(steps),
            "stability": charts.stability_plane(colours),
            "bytes": charts.bytes_plane(max(cell.stored.bytes for cell in comparison.cells), colours),
            "cost": charts.cost_plane(colours),
        },
        "labels": charts.labels(),
        "steps": [step.name for step in comparison.stream.steps],
        "picked": _picked(entries),
        "strategies": [_drawn(comparison, entry) for entry in entries],
    }


def _picked(entries: Sequence[Entry]) -> list[str]:
    """Return the strategies in colour at first: ours, joint, vanilla, then the best others."""
    names = [entry.first.strategy for entry in entries]
    wanted = [name for name in (OURS, JOINT, VANILLA) if name in names]
    return (wanted + [name for name in names if name not in wanted])[:IN_COLOUR]


def _drawn(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    first = entry.first
    return {
        "strategy": first.strategy,
        "title": first.title,
        "kind": first.kind,
        "bytes": entry.bytes.mean,
        "bytes_text": size_text(entry.bytes.mean),
        "raw_samples": entry.raw_samples,
        "seconds": entry.seconds.mean,
        "seconds_text": seconds_text(entry.seconds.mean),
        "memory_text": "not measured" if entry.memory is None else size_text(entry.memory.mean),
        "matrices": {metric: _points(mean_over_seeds(entry.cells, metric)) for metric in comparison.metrics},
        "summary": {
            metric: {
                "final": _mean(summary.final),
                "final_text": percent(summary.final),
                "backward_transfer": _mean(summary.backward_transfer),
                "backward_transfer_text": signed(summary.backward_transfer),
                "plasticity": _mean(summary.plasticity),
                "plasticity_text": percent(summary.plasticity),
            }
            for metric, summary in entry.by_metric.items()
        },
    }


def _points(matrix: Scores) -> list[list[float | None]]:
    return [[None if np.isnan(score) else round(100 * float(score), 2) for score in row] for row in matrix]


def _mean(found: Spread | None) -> float | None:
    return None if found is None else round(100 * found.mean, 3)
