"""The charts of a fleet's page as Vega-Lite specifications, without their data (see `charts`).

template/fleet.js gives each its rows under the name in `data`, and the parameters `metric` and `picked` (the device in
colour, "" for all of them). Whose word a mark is stands in its shape; the colour is the device's where they are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edge_cmcl.limits import MAX_DRIFT
from edge_cmcl.report.charts import Spec

Axis = Literal["generation", "time"]

DEVICE_COLOUR = "#2f7ed8"
HOST_COLOUR = "#e4572e"
MANY = 8
"""With more devices than this, all have one colour and thin lines, and a bold one shows their median."""

_PICKED = "(picked === '' || datum.device === picked)"


def pair_curve(axis: Axis, devices: int, colours: Mapping[str, str]) -> Spec:
    """How well one pair is known over the generations, a line per device; data: pair."""
    score = {"field": "score", "type": "quantitative", "title": None, "scale": {"domain": [0, 100]}}
    tooltip = [
        {"field": "word", "title": "whose word"},
        {"field": "generation", "title": "generation"},
        {"field": "score", "format": ".1f", "title": "%"},
        {"field": "judged", "title": "judged"},
        {"field": "when", "title": "when"},
    ]
    layer = [
        _lines("datum.whose === 'device'", devices, colours),
        _points("datum.whose === 'device'", "circle", devices, colours),
        *([_median()] if axis == "generation" and devices > MANY else []),
        *([_front("datum.whose === 'device' && datum.device === picked")] if devices > MANY else []),
        _points("datum.whose === 'offer'", "square", devices, colours),
        _host(),
    ]
    encoding = {"x": _x(axis), "y": {**score, "axis": {"tickCount": 3}}, "tooltip": tooltip}
    transform = [{"filter": "datum.metric === metric"}]
    return _chart("pair", 170, encoding, layer, transform)


def moved_curve(axis: Axis, devices: int, colours: Mapping[str, str], *, limit: bool) -> Spec:
    """Largest displacement bound of each generation, a line per device, and on wish the default limit; data: moved."""
    tooltip = [
        {"field": "device", "title": "device"},
        {"field": "generation", "title": "generation"},
        {"field": "action", "title": "made by"},
        {"field": "score", "format": ".2f", "title": "moved at most, %"},
        {"field": "when", "title": "when"},
    ]
    y = {"field": "score", "type": "quantitative", "title": "moved at most, %", "scale": {"zero": True}}
    rule: Spec = {
        "data": {"values": [{"limit": 100 * MAX_DRIFT}]},
        "mark": {"type": "rule", "color": HOST_COLOUR, "strokeDash": [4, 3]},
        "encoding": {"x": None, "tooltip": None, "y": {"field": "limit", "type": "quantitative"}},
    }
    layer = [_lines("true", devices, colours), _points("true", "circle", devices, colours)]
    layer += [rule] if limit else []
    layer += [_front("datum.device === picked")] if devices > MANY else []
    return _chart("moved", 240, {"x": _x(axis), "y": y, "tooltip": tooltip}, layer, [])


def _x(axis: Axis) -> Spec:
    if axis == "time":
        return {"field": "at", "type": "temporal", "title": None, "axis": {"grid": False, "tickCount": 4}}
    return {
        "field": "counter",
        "type": "quantitative",
        "title": "generation",
        "scale": {"nice": False, "padding": 8, "zero": False},
        "axis": {"grid": False, "labelExpr": "datum.value % 1 ? '' : datum.value", "tickCount": 6},
    }


def _lines(kept: str, devices: int, colours: Mapping[str, str]) -> Spec:
    many = devices > MANY
    return {
        "transform": [{"filter": kept}],
        "mark": {"type": "line", "strokeWidth": 1 if many else 2, "tooltip": None},
        "encoding": {
            "detail": {"field": "series"},
            "color": _colour(colours),
            "opacity": _opacity(0.35 if many else 0.9),
        },
    }


def _points(kept: str, shape: str, devices: int, colours: Mapping[str, str]) -> Spec:
    many, filled = devices > MANY, shape == "circle"
    size = (16 if many else 45) if filled else (40 if many else 90)
    return {
        "transform": [{"filter": kept}],
        "mark": {"type": "point", "shape": shape, "filled": filled, "size": size, "strokeWidth": 1.5},
        "encoding": {"color": _colour(colours), "opacity": _opacity(0.5 if many else 1)},
    }


def _front(kept: str) -> Spec:
    """The line of the device in colour once more, before all others."""
    mark = {"type": "line", "strokeWidth": 2.5, "color": DEVICE_COLOUR, "point": {"size": 40, "color": DEVICE_COLOUR}}
    return {"transform": [{"filter": kept}], "mark": mark, "encoding": {"detail": {"field": "series"}}}


def _host() -> Spec:
    mark = {"type": "point", "shape": "diamond", "filled": True, "size": 130, "color": HOST_COLOUR, "opacity": 1}
    return {"transform": [{"filter": "datum.whose === 'host'"}], "mark": mark}


def _colour(colours: Mapping[str, str]) -> Spec:
    own: Spec = {"value": DEVICE_COLOUR}
    if colours:
        scale = {"domain": list(colours), "range": list(colours.values())}
        own = {"field": "device", "type": "nominal", "scale": scale, "legend": None}
    return {"condition": {"test": _PICKED, **own}, "value": "var(--faint)"}


def _opacity(usual: float) -> Spec:
    return {"condition": {"test": "picked !== '' && datum.device === picked", "value": 1}, "value": usual}


def _median() -> Spec:
    """The median over devices, at generations that a tenth of the devices have told of, and at least three."""
    return {
        "transform": [
            {"filter": "datum.whose === 'device'"},
            {
                "aggregate": [
                    {"op": "median", "field": "score", "as": "score"},
                    {"op": "distinct", "field": "device", "as": "count"},
                ],
                "groupby": ["counter"],
            },
            {"filter": "datum.count >= needed"},
            {"calculate": "'median of ' + datum.count + ' devices'", "as": "word"},
            {"calculate": "datum.counter", "as": "generation"},
            {"calculate": "''", "as": "judged"},
            {"calculate": "''", "as": "when"},
        ],
        "mark": {"type": "line", "strokeWidth": 3, "color": "var(--text)"},
    }


def _chart(data: str, height: int, encoding: Spec, layer: list[Spec], transform: list[dict[str, Any]]) -> Spec:
    return {
        "data": {"name": data},
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "transform": transform,
        "encoding": encoding,
        "layer": layer,
    }
