"""Comparisons that look real, made deterministically: 11 steps, 14 strategies, 3 seeds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from edge_cmcl.report.results import Comparison

PAIRS = [
    ("utd-skeleton-acc", "skeleton", "acc", 431, 430, 0.62),
    ("utd-acc-gyro", "acc", "gyro", 431, 430, 0.93),
    ("utd-skeleton-depth", "skeleton", "depth", 431, 430, 0.73),
    ("sisfall-acc-gyro", "acc", "gyro", 620, 308, 0.92),
    ("isl-acc-emg", "acc", "emg", 702, 78, 0.60),
    ("isl-orientation-emg", "orientation", "emg", 702, 78, 0.28),
    ("watch-acc-gyro", "acc", "gyro", 3100, 780, 0.79),
    ("phone-acc-gyro", "acc", "gyro", 3100, 780, 0.47),
    ("borealtc-acc-gyro", "acc", "gyro", 720, 361, 0.74),
    ("borealtc-gyro-current", "gyro", "current", 720, 361, 0.44),
    ("hydraulic-temperature-vibration", "temperature", "vibration", 1470, 735, 0.24),
]

PAPER = "X. Liu et al., NeurIPS 2025, section 5.1 (baseline)"

# name: title, source, kind, share of a pair's score lost with every later step, seconds, MB stored, raw samples
STRATEGIES: dict[str, tuple[str, str, str, float, float, float, int]] = {
    "joint": ("Joint", "all steps at once; an upper reference", "reference", 0.0, 63.0, 0.0, 12000),
    "individual": ("Individual", "a pair of adapters per step; a reference", "reference", 0.0, 21.0, 36.9, 0),
    "vanilla": ("Vanilla", PAPER, "continual", 0.14, 19.0, 0.0, 0),
    "gem": ("GEM", "D. Lopez-Paz, M. Ranzato, NeurIPS 2017, equation 11", "continual", 0.09, 70.0, 7.4, 512),
    "der": ("DER", "P. Buzzega et al., NeurIPS 2020, equation 5", "continual", 0.075, 34.0, 8.0, 512),
    "derpp": ("DER++", "P. Buzzega et al., NeurIPS 2020, equation 6", "continual", 0.055, 41.0, 8.0, 512),
    "ewc": ("EWC", "J. Kirkpatrick et al., PNAS 2017, equation 3", "continual", 0.10, 26.0, 14.7, 0),
    "co2l": ("Co2L", "H. Cha et al., ICCV 2021, equation 6", "continual", 0.085, 44.0, 9.2, 512),
    "c_flat": ("C-FLAT", "A. Bian et al., NeurIPS 2024, equation 9", "continual", 0.12, 88.0, 0.0, 0),
    "cila": ("CILA", "Y. Wen et al., ICML 2024, equation 12", "continual", 0.08, 47.0, 9.4, 512),
    "dns": ("DNS", "X. Liu et al., NeurIPS 2025, equations 7 to 10", "continual", 0.05, 39.0, 25.9, 0),
    "dns_released": ("DNS, as released", "github.com/Xiaohao-Liu/CMCL", "continual", 0.11, 92.0, 151.0, 0),
    "hmcl": ("Projected step", "projection after AdamW (HMCL, ICML 2026)", "continual", 0.045, 36.0, 25.9, 0),
    "ours": ("edge-cmcl", "design.md section 2", "continual", 0.006, 30.0, 2.2, 0),
}


def comparison(**changes: Any) -> Comparison:
    """Return the sample with some of its fields replaced."""
    return parsed({**document(), **changes})


def parsed(value: dict[str, Any]) -> Comparison:
    """Return a document as it is after a round through JSON."""
    return Comparison.model_validate_json(json.dumps(value))


def document(strategies: list[str] | None = None, seeds: int = 3, steps: int = 11) -> dict[str, Any]:
    """Return the sample in JSON types."""
    names = list(STRATEGIES) if strategies is None else strategies
    return {
        "schema": "edge-cmcl/comparison/1",
        "created": "2026-11-23T21:07:45Z",
        "command": ["edge-cmcl", "compare", "streams/retrieval.toml", "--seeds", str(seeds), "--out", "my results"],
        "versions": {
            "edge_cmcl": "0.1.0",
            "python": "3.11.7",
            "numpy": "2.4.6",
            "torch": "2.13.0+cpu",
            "onnxruntime": "1.32.0",
        },
        "machine": {"cpu": "AMD EPYC 9B14", "cores": 2, "memory_bytes": 25276502016},
        "stream": {"name": "retrieval", "steps": [_step(*pair) for pair in PAIRS[:steps]]},
        "settings": {"width": 1800, "embedding_dim": 256, "epochs": 20, "seeds": list(range(seeds))},
        "corruption": None,
        "cells": [_cell(name, seed, steps) for name in names for seed in range(seeds)],
    }


def _step(name: str, a: str, b: str, train: int, test: int, _: float) -> dict[str, Any]:
    chance = round(10 / test, 4)
    return {
        "name": name,
        "modalities": [a, b],
        "train_rows": train,
        "test_rows": test,
        "gallery": test,
        "chance": chance,
    }


def _cell(name: str, seed: int, steps: int) -> dict[str, Any]:
    title, source, kind, lost, seconds, megabytes, raw = STRATEGIES[name]
    rng = np.random.default_rng([seed, list(STRATEGIES).index(name)])
    recall = _recalls(name, lost, rng, steps)
    scale = {"recall_at_1": 0.22, "recall_at_5": 0.71, "recall_at_10": 1.0, "mrr": 0.4}
    each = 1 if name == "joint" else steps
    stored = round(megabytes * 1e6)
    return {
        "strategy": name,
        "title": title,
        "source": source,
        "kind": kind,
        "seed": seed,
        "settings": {"learning_rate": 0.001, "epochs": 20, "start": "closed_form"},
        "matrices": {
            metric: [[None if np.isnan(v) else round(float(v) * factor, 6) for v in row] for row in recall]
            for metric, factor in scale.items()
        },
        "seconds": {
            "total": round(seconds + float(rng.normal(0, seconds / 30)), 3),
            "steps": [round(seconds / each, 3)] * each,
        },
        "peak_memory_bytes": round((0.9 + megabytes / 200 + float(rng.uniform(0, 0.05))) * 1e9),
        "stored": {"bytes": stored, "raw_samples": raw, "details": {"sketches": stored} if name == "ours" else {}},
        "certificate": [
            {"modality": pair[1], "origin": pair[0], "bound": 0.002 * (steps - i), "relative": 0.003 * (steps - i)}
            for i, pair in enumerate(PAIRS[:steps])
        ]
        if name == "ours"
        else None,
    }


def _recalls(name: str, lost: float, rng: np.random.Generator, steps: int) -> Any:
    """Return R@10 (T, T) of a strategy that loses `lost` of what it had with every step; NaN where nothing is known."""
    found = np.full((steps, steps), np.nan)
    known: set[str] = set()
    for after, pair in enumerate(PAIRS[:steps]):
        known |= {pair[1], pair[2]}
        for i, (_, a, b, _, test, best) in enumerate(PAIRS[:steps]):
            if name == "joint" and after < steps - 1:
                continue
            if i > after and (name == "individual" or not {a, b} <= known):
                continue
            chance = 10 / test
            kept = 0.2 if i > after else (1.0 - lost) ** (after - i)
            found[after, i] = np.clip(chance + (best - chance) * kept + rng.normal(0, 0.012), 0.0, 1.0)
    return found
