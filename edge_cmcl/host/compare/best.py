"""The search for each strategy's hyper-parameters, and the best-config file it writes.

Every strategy gets the same search: first learning rate and start of new adapters, then, from the best of those, two
more learning rates and its own hyper-parameters. Judged on validation pairs cut out of the training parts; the test
parts are never touched.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import DataError
from edge_cmcl.host.strategies import STRATEGIES, Settings
from edge_cmcl.host.strategies.start import KINDS

if TYPE_CHECKING:
    from edge_cmcl.host.compare.comparison import Task

SCHEMA = "edge-cmcl/best-config/1"
LEARNING_RATES = (1e-3, 1e-2)
MORE_RATES = (3e-4, 3e-3)


def first_round(name: str, base: Settings) -> list[Settings]:
    """Return the settings of the first round for strategy `name`; none for one that chooses for itself."""
    if STRATEGIES[name].reads_files:
        return []
    return [base.with_(learning_rate=rate, start=kind) for rate in LEARNING_RATES for kind in KINDS]


def second_round(name: str, best: Settings) -> list[Settings]:
    """Return the settings of the second round: more rates, then all combinations of its own values but the default."""
    grid = STRATEGIES[name].grid
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    values = [*({"learning_rate": rate} for rate in MORE_RATES), *combinations[1:]]
    return [best.with_(**each) for each in values]


def score(cell: Mapping[str, Any]) -> float:
    """Return the mean over all pairs, after the last step, of R@10 or, against labels, accuracy."""
    rows = [cell["matrices"][metric][-1] for metric in ("recall_at_10", "accuracy") if metric in cell["matrices"]]
    return float(np.mean([value for row in rows for value in row if value is not None]))


def save(path: Path, tried: Mapping[str, Sequence[tuple[Task, float]]]) -> dict[str, dict[str, Any]]:
    """Write the best-config file: per strategy the best settings, and all that were tried."""
    chosen = {}
    for name, found in tried.items():
        if found:
            task, _ = max(found, key=lambda pair: pair[1])
            chosen[name] = _changed(task.settings)
    document = {
        "schema": SCHEMA,
        "strategies": chosen,
        "tried": [
            {"strategy": name, "settings": _changed(task.settings), "score": round(value, 6)}
            for name, found in tried.items()
            for task, value in found
        ],
    }
    write_bytes(path, (json.dumps(document, indent=1) + "\n").encode())
    return chosen


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Read the best settings by strategy from a best-config file.

    Raises:
        DataError: it is none, or names a strategy or a setting that there is not.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}", expected="a best-config file", got=str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"{path} is no best-config file", expected=SCHEMA, hint="`edge-cmcl search` writes one")
    chosen = document.get("strategies")
    if not isinstance(chosen, dict):
        raise DataError(f"{path} names no strategies", expected="settings by strategy", got=str(chosen)[:60])
    for name, settings in chosen.items():
        allowed = {"learning_rate", "start", *getattr(STRATEGIES.get(name), "grid", ())}
        if not isinstance(settings, dict) or not set(settings) <= allowed:
            expected = f"settings of {', '.join(STRATEGIES)}"
            raise DataError(f"{path} has settings that do not fit", expected=expected, got=f"{name}: {settings}")
    return dict(chosen)


def _changed(settings: Settings) -> dict[str, Any]:
    found = asdict(settings)
    return {"learning_rate": found["learning_rate"], "start": found["start"], **found["own"]}
