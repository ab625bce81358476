"""What a service is asked: one generation, one body, one answer, as JSON or as tensors (safetensors)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl import tensors
from edge_cmcl.data import Pairs
from edge_cmcl.device.encoders import BATCH
from edge_cmcl.device.fits import differences
from edge_cmcl.device.model import Model
from edge_cmcl.device.use import Hits, Joint, classify, joint_embeddings, joint_tensors, retrieve
from edge_cmcl.errors import UsageError
from edge_cmcl.service.bodies import pairs_of, sides_of
from edge_cmcl.service.problems import Problem
from edge_cmcl.service.recent import Recent

TOP = 10
MAX_TOP = 1000
MAX_QUERY_ROWS = 256
MAX_MOMENTS = 4096
"""Of a recording in a request: what it takes to answer is bounded by this, and not by the size of the body."""
MAX_SAMPLES = 1 << 17
"""Of the windows that an encoder takes at once: each sample is seen by some hundred kernels (64 windows of 2048)."""

Array = NDArray[np.float32]
Parameters = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Asked:
    """One request, read.

    Attributes:
        kind: media type of the body.
        body: its bytes.
        parameters: of the query string, each with its values.
        binary: whether tensors are wanted, and not JSON.
    """

    kind: str
    body: bytes
    parameters: Parameters
    binary: bool


@dataclass(frozen=True)
class Question:
    """Something that can be asked.

    Attributes:
        parameters: names that its query string may have.
        answer: gives the body of the answer.
    """

    parameters: tuple[str, ...]
    answer: Callable[[Model, Asked, Recent], bytes]


def check_parameters(question: Question, parameters: Parameters) -> None:
    """Check the names in a query string.

    Raises:
        UsageError: one is unknown.
    """
    for name in parameters:
        if name not in question.parameters:
            expected = ", ".join(question.parameters)
            raise UsageError(f"the query string has an unknown parameter {name!r}", expected=expected, got=name)


def _embed(model: Model, asked: Asked, recent: Recent) -> bytes:
    with _closing(pairs_of(asked.kind, asked.body)) as (pairs,):
        joint = joint_embeddings(model, pairs, asked.parameters.get("modality", ()), watch=_watch(model, recent))
        warnings = _warnings(model, (pairs, joint.modalities))
    if asked.binary:
        arrays, metadata = joint_tensors(joint, model)
        return tensors.to_bytes(arrays, {**metadata, "warnings": json.dumps(warnings)})
    found = {
        "modalities": joint.modalities,
        "embeddings": joint.embeddings.tolist(),
        "present": joint.present.tolist(),
        **({} if joint.time is None else {"time": joint.time.tolist()}),
    }
    return _document(model, found, warnings)


def _classify(model: Model, asked: Asked, recent: Recent) -> bytes:
    modalities, labels = (asked.parameters.get(name, ()) for name in ("modality", "label"))
    with _closing(pairs_of(asked.kind, asked.body)) as (pairs,):
        found = classify(model, pairs, modalities, labels, watch=_watch(model, recent))
        warnings = _warnings(model, (pairs, found.modalities))
    if asked.binary:
        arrays: dict[str, NDArray[Any]] = {
            "label": found.labels,
            "similarity": found.similarity,
            "margin": found.margin,
        }
        return _tensors(model, "labels", arrays, {"labels": found.names, "modalities": found.modalities}, warnings)
    shown = {"modalities": found.modalities, "labels": found.names, "moments": found.moments()}
    return _document(model, shown, warnings)


def _retrieve(model: Model, asked: Asked, recent: Recent) -> bytes:
    rows = [_integer("row", value, 0, MAX_MOMENTS) for value in asked.parameters.get("row", ())] or [0]
    if len(rows) > MAX_QUERY_ROWS:
        raise UsageError("too many rows are asked for", expected=f"at most {MAX_QUERY_ROWS}", got=str(len(rows)))
    top = _integer("top", asked.parameters.get("top", [str(TOP)])[-1], 1, MAX_TOP)
    with _closing(*sides_of(asked.kind, asked.body)) as (queries, gallery):
        query = joint_embeddings(model, queries, asked.parameters.get("from", ()))
        known = joint_embeddings(model, gallery, asked.parameters.get("in", ()))
        warnings = _warnings(model, (queries, query.modalities), (gallery, known.modalities))
    hits = retrieve(query, known, rows, top)
    if asked.binary:
        arrays = {
            "query": np.array([hit.query for hit in hits]),
            "rows": np.array([hit.rows for hit in hits], np.int64),
            "similarity": np.array([hit.similarity for hit in hits], np.float32),
        }
        return _tensors(model, "hits", arrays, {"from": query.modalities, "in": known.modalities}, warnings)
    listed = [_hit(hit, known) for hit in hits]
    return _document(model, {"from": query.modalities, "in": known.modalities, "hits": listed}, warnings)


QUESTIONS = {
    "/embed": Question(("modality",), _embed),
    "/classify": Question(("modality", "label"), _classify),
    "/retrieve": Question(("from", "in", "row", "top"), _retrieve),
}


def _watch(model: Model, recent: Recent) -> Callable[[str, Array], None]:
    return lambda name, raw: recent.add(name, model.record(name), raw)


def _hit(hit: Hits, gallery: Joint) -> dict[str, Any]:
    times = {} if gallery.time is None else {"times": [float(gallery.time[row]) for row in hit.rows]}
    return {**vars(hit), **times}


def _warnings(model: Model, *used: tuple[Pairs, Sequence[str]]) -> list[str]:
    """Return where what was sent differs from what was learned, as commands warn of it."""
    return [
        text for pairs, names in used for name in names for text in differences(pairs, name, name, model.record(name))
    ]


def _integer(name: str, text: str, least: int, most: int) -> int:
    expected = f"an integer from {least} to {most}"
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or not least <= int(text) <= most:
        raise UsageError(f"the parameter {name!r} is wrong", expected=expected, got=text[:80])
    return int(text)


def _document(model: Model, found: Mapping[str, Any], warnings: list[str]) -> bytes:
    whose = {"generation": model.loaded.digest, "counter": model.generation.counter}
    return json.dumps({**whose, **found, "warnings": warnings}, allow_nan=False).encode()


def _tensors(
    model: Model, kind: str, arrays: dict[str, NDArray[Any]], described: Mapping[str, Any], warnings: list[str]
) -> bytes:
    texts = {name: json.dumps(value) for name, value in {**described, "warnings": warnings}.items()}
    whose = {"format": f"edge-cmcl/{kind}", "version": "1", "generation": model.loaded.digest}
    return tensors.to_bytes(arrays, {**whose, **texts})


def check_size(pairs: Pairs) -> None:
    """Check that a recording can be answered in bounded memory and time.

    Raises:
        Problem: 413, it has too many windows, or too long ones.
    """
    hint = "send fewer windows at a time"
    if pairs.n > MAX_MOMENTS:
        expected = f"at most {MAX_MOMENTS} in a request"
        raise Problem(413, f"{pairs.path} has too many moments", expected=expected, got=str(pairs.n), hint=hint)
    for name in pairs.modalities:
        samples = min(pairs.n, BATCH) * pairs.shape(name)[0]
        if samples > MAX_SAMPLES:
            expected = f"at most {MAX_SAMPLES} samples in {BATCH} windows"
            raise Problem(413, f"{pairs.path}: {name} is too long", expected=expected, got=str(samples), hint=hint)


@contextmanager
def _closing(*opened: Pairs) -> Iterator[tuple[Pairs, ...]]:
    try:
        for pairs in opened:
            check_size(pairs)
        yield opened
    finally:
        for pairs in opened:
            pairs.close()
