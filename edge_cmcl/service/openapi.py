"""What the service offers, as an OpenAPI 3.1 document; tests/service hold the service against it (schemathesis).

What a recording must be depends on the generation that answers: its sensors stand in the examples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_cmcl.data.pairs_format import MIN_SAMPLES
from edge_cmcl.device.model import Model
from edge_cmcl.device.text import TEXT
from edge_cmcl.limits import MAX_LABEL_LENGTH
from edge_cmcl.service.bodies import BINARY, JSON
from edge_cmcl.service.problems import MEDIA_TYPE as PROBLEM
from edge_cmcl.service.questions import MAX_QUERY_ROWS, MAX_TOP, TOP
from edge_cmcl.version import SOFTWARE

Schema = dict[str, Any]

METRICS = "text/plain; version=0.0.4; charset=utf-8"
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_SERIES: Schema = {"type": "array", "items": {"type": "array", "items": _NUMBER}}
_SENSOR = "[a-z][a-z0-9_]{0,31}"
_BYTES: Schema = {"type": "string", "format": "binary"}
_TENSORS = {
    "Embeddings": "embeddings float32 (n, d), unit rows; present uint8 (n,); time float64 (n,) in s where it was sent",
    "Labels": "label int64 (n,), place in `labels` of the metadata or -1; similarity and margin float32 (n,)",
    "Hits": "query int64 (q,); rows int64 (q, top), of the gallery; similarity float32 (q, top)",
}
"""What the tensors of binary answers are; `generation` and `warnings` stand in their metadata."""
_SIDES = "Two pairs files in one (safetensors): names of tensors, and of metadata, begin with query. or gallery."


def document(model: Model) -> Schema:
    """Return the document, with examples that `model` can answer."""
    example = _example(model)
    sides = {"query": example, "gallery": example}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edge-cmcl",
            "version": SOFTWARE.split()[-1],
            "description": "The model of one device. Each answer is of one generation, whose digest it names.",
        },
        "paths": {
            "/embed": _question(
                "The joint embedding of every moment",
                "Recording",
                example,
                "Embeddings",
                [_names("modality", "A sensor to use.")],
            ),
            "/classify": _question(
                "The label that every moment looks like",
                "Recording",
                example,
                "Labels",
                [_names("modality", "A sensor to use."), _names("label", "A label to choose from.", MAX_LABEL_LENGTH)],
            ),
            "/retrieve": _question(
                "The moments of a gallery most like rows of a query",
                "Sides",
                sides,
                "Hits",
                [
                    _names("from", "A sensor of the query."),
                    _names("in", "A sensor of the gallery."),
                    _parameter(
                        "row",
                        "Rows of the query; 0 by default.",
                        _list({"type": "integer", "minimum": 0}, MAX_QUERY_ROWS),
                    ),
                    _parameter(
                        "top",
                        "Hits for each row.",
                        {"type": "integer", "minimum": 1, "maximum": MAX_TOP, "default": TOP},
                    ),
                ],
            ),
            "/drift": _look("Whether each sensor's latest windows are of the kind that was learned", "Drift"),
            "/healthz": _look("Which generation answers", "Health"),
            "/metrics": _get("Figures for Prometheus", {METRICS.partition(";")[0]: {"schema": _TEXT}}),
            "/openapi.json": _get("This document", {JSON: {"schema": {"type": "object"}}}),
        },
        "components": {"schemas": _schemas()},
    }


def _example(model: Model) -> Schema:
    """Return a recording of one window of the sensor whose windows are smallest: zeros, which mean nothing."""
    records = {name: model.record(name) for name in model.modalities if name != TEXT}
    shapes = {name: tuple(record.frame or (record.channels or 1,)) for name, record in records.items()}
    smallest = min(shapes, key=lambda name: math.prod(shapes[name]))
    return {"windows": {smallest: np.zeros((1, MIN_SAMPLES, *shapes[smallest]), np.int64).tolist()}}


def _question(summary: str, body: str, example: Schema, answer: str, parameters: list[Schema]) -> Schema:
    described = "A pairs file (safetensors)" if body == "Recording" else _SIDES
    sent = {"schema": {"type": "string", "format": "binary", "description": described}}
    responses = {
        "200": {
            "description": "The answer; tensors (safetensors) where Accept asks for octets",
            "headers": {
                "Edge-Cmcl-Generation": {"description": "Digest of the generation that answered", "schema": _TEXT}
            },
            "content": {
                JSON: {"schema": _ref(answer)},
                BINARY: {"schema": {**_BYTES, "description": _TENSORS[answer]}},
            },
        },
        "400": _problem("A parameter is wrong, or the body is no JSON"),
        "406": _problem("Accept names nothing that is offered"),
        "408": _problem("The body did not come in time"),
        "413": _problem("The body is too large"),
        "415": _problem("The body is of a kind that is not read"),
        "422": _problem("The windows cannot be used"),
        "503": {
            **_problem("Too many requests at once"),
            "headers": {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}},
        },
    }
    content = {JSON: {"schema": _ref(body), "example": example}, BINARY: sent}
    operation = {
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": responses,
    }
    return {"post": operation}


def _look(summary: str, answer: str) -> Schema:
    return _get(summary, {JSON: {"schema": _ref(answer)}})


def _get(summary: str, content: Schema) -> Schema:
    return {"get": {"summary": summary, "responses": {"200": {"description": summary, "content": content}}}}


def _problem(description: str) -> Schema:
    return {"description": description, "content": {PROBLEM: {"schema": _ref("Problem")}}}


def _names(name: str, description: str, longest: int = 32) -> Schema:
    text = {"type": "string", "minLength": 1, "maxLength": longest}
    return _parameter(name, f"{description} Repeat it for more; all known ones by default.", _list(text))


def _parameter(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": description, "required": False, "schema": schema}


def _list(items: Schema, most: int | None = None) -> Schema:
    bound = {} if most is None else {"maxItems": most}
    return {"type": "array", "items": items, **bound}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **more}


def _by_sensor(values: Schema) -> Schema:
    return {"type": "object", "patternProperties": {f"^{_SENSOR}$": values}, "additionalProperties": False}


def _schemas() -> Schema:
    frames = _list(_SERIES)
    windows = _by_sensor({"anyOf": [_list(_SERIES), _list(frames)]})
    recording = {
        "windows": {**windows, "minProperties": 1, "description": "Per sensor (n, T, C), or (n, T, H, W) for frames"},
        "valid": _by_sensor(_list({"anyOf": [_FLAG, {"type": "integer", "minimum": 0, "maximum": 1}]})),
        "time": {**_list(_NUMBER), "description": "Start of each window in s"},
        "rate_hz": _by_sensor({"type": "number", "exclusiveMinimum": 0}),
        "units": _by_sensor({"type": "string", "maxLength": 64}),
    }
    whose = {"generation": _TEXT, "counter": _COUNT}
    sensors, warnings = {"modalities": _list(_TEXT)}, {"warnings": _list(_TEXT)}
    moment = {"row": _COUNT, "time": _NUMBER, "label": _or_null(_TEXT), "similarity": _NUMBER, "margin": _NUMBER}
    embeddings = {"embeddings": _list(_list(_NUMBER)), "present": _list(_FLAG), "time": _list(_NUMBER)}
    hit = {"query": _COUNT, "rows": _list(_COUNT), "similarity": _list(_NUMBER), "times": _list(_NUMBER)}
    labels = {"labels": _list(_TEXT), "moments": _list(_object(moment, ("time",)))}
    hits = {"from": _list(_TEXT), "in": _list(_TEXT), "hits": _list(_object(hit, ("times",)))}
    return {
        "Recording": _object(recording, ("valid", "time", "rate_hz", "units")),
        "Sides": _object({"query": _ref("Recording"), "gallery": _ref("Recording")}),
        "Embeddings": _object({**whose, **sensors, **embeddings, **warnings}, ("time",)),
        "Labels": _object({**whose, **sensors, **labels, **warnings}),
        "Hits": _object({**whose, **hits, **warnings}),
        "Drift": _object({**whose, "kept": _COUNT, "sensors": _list(_drift())}),
        "Health": _object({"status": {"enum": ["ok", "behind"]}, **whose, "reason": _TEXT, "modalities": _list(_TEXT)}),
        "Problem": _problem_schema(),
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _drift() -> Schema:
    figures = {name: _or_null(_NUMBER) for name in ("outside", "threshold", "beyond", "energy")}
    verdict = {"enum": ["normal", "drifted", "too few", "not calibrated"]}
    return _object({"modality": _TEXT, "windows": _COUNT, **figures, "false_alarms": _NUMBER, "verdict": verdict})


def _problem_schema() -> Schema:
    texts = dict.fromkeys(("type", "title", "detail", "error", "expected", "got", "to_do"), _TEXT)
    optional = ("error", "expected", "got", "to_do", "exit_code")
    return _object({**texts, "status": {"type": "integer"}, "exit_code": {"type": "integer"}}, optional)
