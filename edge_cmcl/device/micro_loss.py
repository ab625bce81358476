"""What a micro model loses against the full model: on golden inputs, on a recording, or on pairs kept back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.contents import read_golden
from edge_cmcl.continual.metrics import classification, retrieval
from edge_cmcl.data import Pairs, file_digest
from edge_cmcl.device.encoders import BATCH
from edge_cmcl.device.evaluate import embed_all, thinned
from edge_cmcl.device.features import unit
from edge_cmcl.device.fits import check_holds
from edge_cmcl.device.golden import TOLERANCE, golden_windows
from edge_cmcl.device.held_out import HeldOut
from edge_cmcl.device.judgement import MIN_JUDGED, embedded, usable
from edge_cmcl.device.micro import MicroFit
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import learned_from
from edge_cmcl.device.self_test import FLIPPED
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.errors import DataError, ParityError, UsageError

Array = NDArray[np.float32]
Embed = Callable[[Array], Array]
"""Windows (n, T, C) in recorded units, or encoder outputs (n, w), to embeddings (n, d) of about unit length."""


@dataclass(frozen=True)
class Parity:
    """How a micro model answers on golden inputs, which are synthetic.

    Attributes:
        windows: how many.
        kernels: largest difference of an embedding's number that comes from its kernels: in single precision, against
            the same head on the full model's own outputs.
        precision: largest difference of an embedding's number between the model as written and in single precision.
        cosine: least cosine between the two.
    """

    windows: int
    kernels: float
    precision: float
    cosine: float


@dataclass(frozen=True)
class Loss:
    """What the micro model loses with one partner; R@10, MRR or accuracy, as shares.

    Attributes:
        partner: a sensor, or "text" for the labels.
        source: the file, or the origin whose pairs were kept back.
        n: windows.
        full: metrics of the full model.
        micro: the same of the micro model.
    """

    partner: str
    source: str
    n: int
    full: dict[str, float]
    micro: dict[str, float]

    @property
    def points(self) -> float:
        """Points of R@10 that are lost, of accuracy with the labels."""
        key = "accuracy" if self.partner == TEXT else "recall_at_10"
        return 100 * (self.full[key] - self.micro[key])

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {**vars(self), "points": self.points}


def parity(model: Model, fit: MicroFit, single: Embed, single_outputs: Embed, written: Embed) -> Parity:
    """Compare on the generation's golden inputs.

    Args:
        model: the generation.
        fit: the micro model.
        single: embeds windows with the micro model in single precision.
        single_outputs: embeds the full model's outputs (n, w) with its head, in single precision.
        written: embeds windows with the model as it is written.

    Raises:
        ParityError: its kernels answer differently than the full model's.
    """
    golden = read_golden(model.loaded, fit.modality)
    record = model.record(fit.modality)
    windows = golden_windows(fit.modality, record, fit.samples) if golden is None else golden.inputs["windows"]
    mine, theirs = single(windows), single_outputs(model.encoder(fit.modality)(windows)[:, fit.columns])
    off = np.sort(np.abs(mine - theirs).max(axis=1))
    # As in the self-test: an output within float error of zero may be counted on either side in one window of four.
    same = off[: len(off) - len(off) // 4]
    if not (same.max() <= TOLERANCE and off.max() <= FLIPPED):
        raise ParityError(
            f"the kernels of the micro model of {fit.modality} answer differently than the full model's",
            expected=f"embeddings of its golden inputs within {TOLERANCE:g}",
            got=f"a difference of {off.max():.3g}",
            hint="this is a fault of edge-cmcl or of this machine's onnxruntime: please report it",
        )
    found = written(windows)
    cosine = np.einsum("ij,ij->i", unit(found), unit(mine))
    return Parity(len(windows), float(off.max()), float(np.abs(found - mine).max()), float(cosine.min()))


def loss_on_pairs(model: Model, fit: MicroFit, pairs: Pairs, embed: Embed) -> list[Loss]:
    """Return what is lost on a recording, with every partner in it that the generation knows.

    Args:
        model: the generation.
        fit: the micro model.
        pairs: windows that neither has learned from.
        embed: embeds windows with the micro model.

    Raises:
        DataError: the file lacks the sensor, was learned from, has windows of another length, or no partner.
    """
    name = fit.modality
    check_holds(pairs, name)
    if f"sha256:{file_digest(pairs.path)}" in learned_from(model.generation.pairs, name):
        raise DataError(
            f"{name} was learned from {pairs.path}: what a micro model loses there is less than elsewhere",
            expected="a recording that was not learned from",
            got="one that was",
            hint="record another one, or let `edge-cmcl update --hold-back 0.1` keep pairs back and leave --data out",
        )
    if pairs.shape(name)[0] != fit.samples:
        raise DataError(
            f"{pairs.path}: windows of {name} are of another length than the micro model takes",
            expected=f"{fit.samples} samples, as {name} was learned with",
            got=str(pairs.shape(name)[0]),
        )
    full = embed_all(model, pairs, name)
    batches = [embed(pairs.read(name, start, start + BATCH)) for start in range(0, pairs.n, BATCH)]
    micro, valid = np.concatenate(batches), pairs.valid(name)
    found = []
    for partner in (other for other in pairs.modalities if other != name and other in model.modalities):
        rows = thinned(np.flatnonzero(valid & pairs.valid(partner)))
        if len(rows) >= MIN_JUDGED:
            known = embed_all(model, pairs, partner)[rows]
            found.append(_retrieval(partner, str(pairs.path), full[rows], micro[rows], known))
    if pairs.labels is not None and TEXT in model.modalities:
        rows = np.flatnonzero(valid & (pairs.labels >= 0))
        if len(rows) >= MIN_JUDGED:
            texts = model.embed_labels(pairs.label_names)
            found.append(_labels(str(pairs.path), full[rows], micro[rows], texts, pairs.labels[rows]))
    if not found:
        raise DataError(
            f"{pairs.path} has nothing to judge {name} by",
            expected=f"at least {MIN_JUDGED} windows beside one of {', '.join(model.modalities)}, or with labels",
            got=", ".join(pairs.modalities),
        )
    return found


def loss_on_kept(model: Model, fit: MicroFit, kept: Iterable[HeldOut], embed: Embed) -> list[Loss]:
    """Return what is lost on pairs that the device has kept back; none where it has none of the sensor.

    Args:
        model: the generation.
        fit: the micro model.
        kept: see `judgement.kept_pairs`.
        embed: embeds encoder outputs (n, w) with the micro model.
    """
    name, found = fit.modality, []
    for held in kept:
        if name not in held.members or not usable(model, held, name):
            continue
        for partner in held.members:
            if partner == name or not usable(model, held, partner):
                continue
            there = np.asarray(held.labels) >= 0 if partner == TEXT else held.valid[partner]
            rows = np.flatnonzero(held.valid[name] & there)
            if len(rows) < MIN_JUDGED:
                continue
            full, micro = embedded(model, held, name, rows), embed(held.raw[name][rows][:, fit.columns])
            if partner == TEXT:
                texts = unit(label_features(held.label_names) @ model.adapter(TEXT).weight.T)
                found.append(_labels(held.origin, full, micro, texts, np.asarray(held.labels)[rows]))
            else:
                known = embedded(model, held, partner, rows)
                found.append(_retrieval(partner, held.origin, full, micro, known))
    return found


def need_data(modality: str) -> UsageError:
    """Return the error for a sensor of which there is nothing to measure a loss by."""
    return UsageError(
        f"there is nothing to measure by what the micro model of {modality} loses",
        expected="--data, a pairs file that the model has not learned from, or pairs that the device has kept back",
        got="neither",
        hint="`edge-cmcl update --hold-back 0.1` keeps some of a recording back",
    )


def _retrieval(partner: str, source: str, full: Array, micro: Array, known: Array) -> Loss:
    before, after = (
        {key: metrics[key] for key in ("recall_at_10", "mrr", "chance_recall_at_10")}
        for metrics in (retrieval(full, known), retrieval(micro, known))
    )
    return Loss(partner, source, len(full), before, after)


def _labels(source: str, full: Array, micro: Array, texts: Array, labels: NDArray[np.int64]) -> Loss:
    before, after = (
        {key: metrics[key] for key in ("accuracy", "chance_accuracy")}
        for metrics in (classification(full, texts, labels), classification(micro, texts, labels))
    )
    return Loss(TEXT, source, len(full), before, after)
