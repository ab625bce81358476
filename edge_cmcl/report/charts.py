"""The charts of a report as Vega-Lite specifications (vega.github.io/vega-lite, version 6), without their data.

template/page.js gives each its rows under the name in `data`, and the parameters `metric`, `picked` (the strategies
in colour, all others are grey) and `top` (the highest score of the metric). Colours that depend on light or dark are
CSS variables, which the browser resolves in the SVG that Vega draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

OURS_COLOUR = "#e4572e"
JOINT_COLOUR = "var(--text)"
VANILLA_COLOUR = "#1b9e77"
PALETTE = (
    "#2f7ed8",
    "#9467bd",
    "#c58b00",
    "#00a3b4",
    "#d6569c",
    "#6b8e23",
    "#8c6d5a",
    "#7a7fd1",
    "#4caf50",
    "#b5651d",
    "#607d8b",
)

_PICKED = "indexof(picked, datum.strategy) >= 0"
_MAX_NUMBERED = 12
"""A heat map with more steps than this shows colours only: numbers would not fit into its cells on a phone."""

CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "labelLimit": 140,
    },
}


def average_curve(steps: int, colours: Mapping[str, str]) -> Spec:
    """Mean score of the pairs learned so far over the steps, a line per strategy; data: after, strategy, score."""
    return _curve("learned", steps, colours, height=320, title="mean of the pairs learned so far, %")


def pair_curve(steps: int, colours: Mapping[str, str]) -> Spec:
    """Score of one pair over the steps; data: after, strategy, score."""
    return _curve("pair", steps, colours, height=130, title=None)


def _curve(name: str, steps: int, colours: Mapping[str, str], height: int, title: str | None) -> Spec:
    line = {"type": "line", "interpolate": "linear", "point": {"size": 22}}
    dash = {"condition": {"test": "datum.kind === 'reference'", "value": [4, 3]}, "value": [1, 0]}
    tooltip = [
        {"field": "title", "title": "strategy"},
        {"field": "pair", "title": "pair"},
        {"field": "step", "title": "after"},
        {"field": "score", "format": ".1f", "title": "%"},
    ]
    return _chart(
        name,
        height=height,
        encoding={
            "x": {
                "field": "after",
                "type": "quantitative",
                "title": "after step" if title else None,
                "scale": {"domain": [1, max(2, steps)], "nice": False},
                "axis": {"values": list(range(1, steps + 1)), "format": "d", "grid": False, "labelOverlap": True},
            },
            "y": {
                "field": "score",
                "type": "quantitative",
                "title": title,
                "scale": {"zero": True},
                "axis": {"tickCount": 5 if title else 3},
            },
            "detail": {"field": "strategy"},
            "strokeDash": dash,
            "tooltip": tooltip,
        },
        layer=[
            _grey({**line, "strokeWidth": 1, "opacity": 0.8, "point": {"size": 10, "color": "var(--faint)"}}),
            _coloured({**line, "strokeWidth": 2.2}, colours),
        ],
    )


def heat_map(steps: int) -> Spec:
    """Scores of one strategy, pair by step; data: after, pair_number, score."""
    numbers = list(range(1, steps + 1))
    both = {
        "x": {"field": "pair_number", "type": "ordinal", "title": "pair", "scale": {"domain": numbers}},
        "y": {"field": "after", "type": "ordinal", "title": "after step", "scale": {"domain": numbers}},
    }
    for axis in both.values():
        axis["axis"] = {"labelAngle": 0, "domain": False, "ticks": False, "labelOverlap": True}
    shade = {
        "field": "score",
        "type": "quantitative",
        "legend": None,
        "scale": {"scheme": "viridis", "domainMin": 0, "domainMax": {"expr": "top"}},
    }
    outline = {"condition": {"test": "datum.after === datum.pair_number", "value": "var(--text)"}, "value": None}
    tooltip = [
        {"field": "title", "title": "strategy"},
        {"field": "pair", "title": "pair"},
        {"field": "step", "title": "after"},
        {"field": "score", "format": ".1f", "title": "%"},
    ]
    cells: Spec = {"mark": {"type": "rect"}, "encoding": {"color": shade, "stroke": outline, "tooltip": tooltip}}
    layer = [cells]
    if steps <= _MAX_NUMBERED:
        ink = {"condition": {"test": "datum.score > 0.6 * top", "value": "#111"}, "value": "#fff"}
        text = {"field": "score", "type": "quantitative", "format": ".0f"}
        mark = {"type": "text", "fontSize": 10, "tooltip": None}
        layer.append({"mark": mark, "encoding": {"text": text, "color": ink}})
    return _chart("matrix", height=250, encoding=both, layer=layer)


def stability_plane(colours: Mapping[str, str]) -> Spec:
    """Backward transfer over plasticity, a point per strategy; data: summary."""
    x = {"field": "plasticity", "title": "plasticity: mean score when just learned, %", "scale": {"zero": False}}
    y = {"field": "backward_transfer", "title": "stability: backward transfer, points", "scale": {"zero": False}}
    return _plane(x, y, colours, "isValid(datum.backward_transfer)")


def bytes_plane(largest: int, colours: Mapping[str, str]) -> Spec:
    """Final score over bytes stored; data: summary. The axis is logarithmic, with a place for 0."""
    ticks = [0, *(10**power for power in range(5, 16) if 10**power < 10 * max(largest, 10**5))]
    x = {
        "field": "bytes",
        "title": "stored between steps beside the adapters, bytes",
        "scale": {"type": "symlog", "constant": 30000, "domain": [0, max(largest * 1.6, 10**5)], "nice": False},
        "axis": {
            "values": ticks,
            "labelExpr": "datum.value ? replace(format(datum.value, '~s'), /([^0-9])/, ' $1') + 'B' : '0'",
            "labelFlush": False,
        },
    }
    return _plane(x, _final(), colours, "true")


def cost_plane(colours: Mapping[str, str]) -> Spec:
    """Final score over wall time; data: summary."""
    x = {
        "field": "seconds",
        "title": "wall time of learning the stream, seconds",
        "scale": {"type": "log", "nice": True},
        "axis": {"format": "~g", "tickCount": 5},
    }
    return _plane(x, _final(), colours, "datum.seconds > 0")


def _final() -> Spec:
    return {"field": "final", "title": "final mean over all pairs, %", "scale": {"zero": False}}


def _plane(x: Spec, y: Spec, colours: Mapping[str, str], kept: str) -> Spec:
    """A point per strategy, a square for those that keep raw samples; page.js adds `labels`."""
    shape = {"condition": {"test": "datum.raw_samples > 0", "value": "square"}, "value": "circle"}
    tooltip = [
        {"field": "title", "title": "strategy"},
        {"field": "final_text", "title": "final"},
        {"field": "backward_transfer_text", "title": "backward transfer"},
        {"field": "plasticity_text", "title": "plasticity"},
        {"field": "bytes_text", "title": "stored"},
        {"field": "raw_samples", "title": "raw samples"},
        {"field": "seconds_text", "title": "time"},
        {"field": "memory_text", "title": "peak memory"},
    ]
    point = {"type": "point", "filled": True, "size": 80, "opacity": 1}
    colour = {"test": _PICKED, **_colour(colours)["color"]}
    return _chart(
        "summary",
        height=320,
        transform=[{"filter": kept}, {"calculate": _PICKED, "as": "is_picked"}],
        encoding={
            "x": {"type": "quantitative", **x},
            "y": {"type": "quantitative", **y},
            "shape": shape,
            "tooltip": tooltip,
        },
        layer=[{"mark": point, "encoding": {"color": {"condition": colour, "value": "var(--faint)"}}}],
    )


def labels() -> Spec:
    """The names of the points of a plane, as a mark of Vega: Vega-Lite cannot place labels where they do not collide.

    Those of strategies in colour come first; a name without room is left out. Vega-Lite calls the points
    "layer_0_marks"; their items are the data of this mark.
    """
    ink = f"{_PICKED.replace('datum.', 'datum.datum.')} ? datum.fill : 'var(--soft)'"
    return {
        "type": "text",
        "name": "names",
        "from": {"data": "layer_0_marks"},
        "interactive": False,
        "encode": {
            "enter": {"text": {"field": "datum.title"}, "fontSize": {"value": 12}},
            "update": {"fill": {"signal": ink}},
        },
        "transform": [
            {
                "type": "label",
                "size": {"signal": "[max(width, 1), max(height, 1)]"},  # a first pass may have no width yet
                "sort": {"field": "datum.is_picked", "order": "descending"},
                "anchor": ["right", "left", "top", "bottom", "top-right", "bottom-right", "top-left", "bottom-left"],
                "offset": [4],
                "avoidMarks": ["layer_0_marks"],
            }
        ],
    }


def _chart(data: str, *, height: int, encoding: Spec, layer: Sequence[Spec], transform: Sequence[Spec] = ()) -> Spec:
    return {
        "data": {"name": data},
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "transform": [{"filter": "datum.metric === metric"}, *transform],
        "encoding": encoding,
        "layer": list(layer),
    }


def _grey(mark: Spec) -> Spec:
    return {"transform": [{"filter": f"!({_PICKED})"}], "mark": {**mark, "color": "var(--faint)"}}


def _coloured(mark: Spec, colours: Mapping[str, str]) -> Spec:
    return {"transform": [{"filter": _PICKED}], "mark": mark, "encoding": _colour(colours)}


def _colour(colours: Mapping[str, str]) -> Spec:
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"color": {"field": "strategy", "type": "nominal", "scale": scale, "legend": None}}
