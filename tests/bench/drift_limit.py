"""How much recall a certificate's bound costs: what the guard's default `--max-drift` is set from.

    python tests/bench/drift_limit.py            # after `make data`

The product learns the 11-step stream over six data sets, as shipped and with ever weaker protection (a larger alpha).
After every step each pair learned before is judged again on its test part, beside the largest relative bound that the
certificate gives its two modalities. The table goes to stdout: per range of the bound, the share of its MRR lost.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from edge_cmcl.continual.metrics import retrieval
from edge_cmcl.continual.update_space import ALPHA
from edge_cmcl.device.features import unit
from edge_cmcl.host.compare.features import StreamData, Test, load_data
from edge_cmcl.host.compare.stream import load_stream
from edge_cmcl.host.strategies import STRATEGIES, Settings, Step, Strategy

WEAKENED = (1.0, 30.0, 1e8)
"""What alpha is multiplied by; the last leaves no protection."""
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, np.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", type=Path, default=Path(__file__).parent / "streams" / "retrieval.toml")
    parser.add_argument("--out", type=Path, default=Path(".bench/retrieval"), help="features are cached there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(load_stream(options.stream), options.out / "cache")
    found: list[dict[str, Any]] = []
    for factor in WEAKENED:
        for each in measured(data, factor):
            found.append({"alpha": factor * ALPHA, **each})
            print(json.dumps(found[-1]), file=sys.stderr)
    print(table(found))


def measured(data: StreamData, factor: float) -> Iterator[dict[str, Any]]:
    """Yield, after every step and for every pair learned before it, its bound and what became of its MRR."""
    learned: list[float] = []
    with (
        closing(STRATEGIES["ours"](Settings())) as strategy,
        patch("edge_cmcl.device.members.ALPHA", factor * ALPHA),
        patch("edge_cmcl.device.attempt.failures", lambda *_: []),
    ):
        for done in strategy.learn_stream(data.steps):
            bounds = _bounds(strategy)
            for index, (step, test) in enumerate(zip(data.steps[:done], data.tests[:done], strict=True)):
                mrr = _mrr(strategy, step, test)
                if index == done - 1:
                    learned.append(mrr)
                elif (name := "" if index == 0 else step.name) in bounds:
                    yield {"after": done, "step": step.name, "bound": bounds[name], "lost": 1 - mrr / learned[index]}


def table(found: list[dict[str, Any]]) -> str:
    """Return per range of the bound how many pairs it held and which share of their MRR they lost."""
    lines = ["| bound | pairs | MRR lost, mean | median | most |", "|---|---|---|---|---|"]
    for low, high in pairwise(EDGES):
        lost = np.array([each["lost"] for each in found if low <= each["bound"] < high])
        if len(lost):
            shares = " | ".join(f"{value:.1%}" for value in (lost.mean(), np.median(lost), lost.max()))
            lines.append(f"| {low:g} to {high:g} | {len(lost)} | {shares} |")
    return "\n".join(lines)


def _bounds(strategy: Strategy) -> dict[str, float]:
    """Return the largest relative bound of each step by its name, "" for the base."""
    bounds: dict[str, float] = {}
    for record in strategy.certificates() or ():
        name = record.origin.partition("@")[2]
        if name or record.origin.startswith("base:"):
            bounds[name] = max(bounds.get(name, 0.0), record.relative)
    return bounds


def _mrr(strategy: Strategy, step: Step, test: Test) -> float:
    weights = strategy.weights(step)
    assert weights is not None
    a, b = (unit(x @ w.detach().numpy().T) for x, w in zip((test.a, test.b), weights, strict=True))
    return retrieval(a, b)["mrr"]


if __name__ == "__main__":
    main()
