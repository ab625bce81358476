"""One self-contained HTML page of a fleet, in the manner of the comparison's (`page`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_cmcl.durable import write_bytes
from edge_cmcl.limits import MAX_DRIFT
from edge_cmcl.report import charts, fleet_charts
from edge_cmcl.report.fleet import METRICS, FleetDevice, FleetOverview, Promoted, Score, pair_rows
from edge_cmcl.report.page import fill
from edge_cmcl.report.sentences import TITLES

MAX_MARKS = 8000
"""Generations and scores of devices in the charts: beyond that a browser is slow. Older ones are left out."""
MAX_OTHERS = 2000
"""Scores of offered generations and of the host in the charts, the latest ones."""
MAX_REFUSALS = 300
"""Refusals that a page lists, the latest ones."""
OLD_DAYS = 7.0
"""A device that has told nothing for longer is named in the first sentences."""


def write_fleet_page(fleet: FleetOverview, path: Path | str) -> int:
    """Write the page of `fleet` to `path`, durably, and return its size in bytes.

    Raises:
        MissingExtraError: Jinja2 or vl-convert-python is not installed.
        StorageError: the file system refused.
    """
    page = render_fleet(fleet).encode()
    write_bytes(Path(path), page)
    return len(page)


def render_fleet(fleet: FleetOverview) -> str:
    """Return the page of `fleet` as HTML.

    Raises:
        MissingExtraError: Jinja2 or vl-convert-python is not installed.
    """
    kept = recent_generations(fleet)
    return fill(
        "fleet.html.j2",
        {"share": share_text, "score": score_text, "ago": lambda at: age_text(at, fleet.made)},
        fleet=fleet,
        titles={metric: TITLES[metric] for metric in METRICS},
        sentences=fleet_verdict(fleet),
        pairs=pair_rows(fleet),
        colours=device_colours(fleet),
        near_limit=near_limit(fleet),
        limit=f"{MAX_DRIFT:.0%}".replace("%", " %"),
        device_colour=fleet_charts.DEVICE_COLOUR,
        host_colour=fleet_charts.HOST_COLOUR,
        kept=kept,
        left_out=sum(max(0, len(device.history) - kept) for device in fleet.devices),
        others_left_out=max(0, len(fleet.offers) + len(fleet.measured) - MAX_OTHERS),
        max_refusals=MAX_REFUSALS,
        tally=tally,
        data=chart_data(fleet, kept),
    )


def fleet_verdict(fleet: FleetOverview) -> list[str]:
    """Return what the fleet comes to in sentences: what is in use, what came of what is promoted, who is silent."""
    if not fleet.devices:
        return ["No device has been seen yet: `edge-cmcl fleet pull REMOTE` brings what devices sent."]
    states = Counter(device.state for device in fleet.devices)
    found = [f"{_count(len(fleet.devices), 'device')}: {_listed(states, ('confirmed', 'on trial', 'reverted'))}."]
    found += [_came_of(decision) for decision in fleet.promoted]
    silent = [device for device in fleet.devices if days(device.seen, fleet.made) > OLD_DAYS]
    if silent:
        oldest = min(silent, key=lambda device: device.seen)
        found.append(
            f"{_count(len(silent), 'device')} told nothing new for more than {OLD_DAYS:.0f} days, "
            f"{oldest.device_id[:16]} for the longest ({oldest.seen[:10]})."
        )
    if not fleet.promoted:
        found.append("Nothing is promoted.")
    return found


def _came_of(decision: Promoted) -> str:
    whom = "all devices" if decision.for_all else _count(len(decision.answers), "device")
    verb = {"trial": "to be tried by", "release": "released to", "withdrawn": "withdrawn from"}[decision.stage]
    told = f": {tally(decision)}" if decision.answers else ", and no device follows that now"
    return f"Generation {decision.counter} ({decision.digest[7:19]}) is {verb} {whom}{told}."


def tally(decision: Promoted) -> str:
    """Return how many devices have done what about a decision: "2 in use, 1 declined"."""
    counts = Counter(decision.answers.values())
    return _listed(counts, tuple(counts))


def _listed(counts: Counter[Any], order: Sequence[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in order if counts[name])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def share_text(share: float | None) -> str:
    """Return a share in percent, "12.3", with more digits where it is small; "-" for None."""
    if share is None:
        return "-"
    return f"{100 * share:.1f}" if share >= 0.01 or share == 0 else f"{100 * share:.2g}"


def score_text(score: Score) -> str:
    """Return the first metric of a score that is known, with what it was before: "MRR 61.2 (58.0 before)"."""
    name = next((metric for metric in METRICS if metric in score.metrics), None)
    if name is None:
        return ""
    before = "" if score.before is None else f", {share_text(score.before)} before"
    return f"{score.pair}: {TITLES[name]} {share_text(score.metrics[name])}{before}"


def days(then: str, now: str) -> float:
    """Return the days between two times as bundles write them."""
    start, end = (datetime.fromisoformat(f"{time[:19]}+00:00") for time in (then, now))
    return (end - start).total_seconds() / 86400


def age_text(then: str, now: str) -> str:
    """Return how long ago something was: "5 min", "3 h" or "12 d"."""
    minutes = max(0.0, days(then, now)) * 1440
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 2880 else f"{minutes / 1440:.0f} d"


def recent_generations(fleet: FleetOverview) -> int:
    """Return how many generations of each device charts show, the latest ones, to hold at most `MAX_MARKS`."""
    kept = max((len(device.history) for device in fleet.devices), default=0)
    while kept > 2 and sum(_marks(device, kept) for device in fleet.devices) > MAX_MARKS:
        kept -= max(1, kept // 10)
    return kept


def _marks(device: FleetDevice, kept: int) -> int:
    return len(device.history[-kept:]) + len(_recent(device, kept))


def _recent(device: FleetDevice, kept: int) -> list[Score]:
    digests = {each.digest for each in device.history[-kept:]}
    return [score for score in device.scores if score.digest in digests]


def chart_data(fleet: FleetOverview, kept: int) -> dict[str, Any]:
    """Return what fleet.js draws: specifications, and scores in percent, null where one is not known.

    Args:
        fleet: the fleet.
        kept: how many generations of each device.
    """
    others = sorted([*fleet.offers, *fleet.measured], key=lambda score: score.at)[-MAX_OTHERS:]
    pairs, origins = fleet.pairs, sorted({score.origin for score in fleet.scores})
    place = {name: i for names in (pairs, origins) for i, name in enumerate(names)}
    colours, count = device_colours(fleet), len(fleet.devices)
    return {
        "config": charts.CONFIG,
        "specs": {
            axis: {
                "pair": fleet_charts.pair_curve(axis, count, colours),
                "moved": fleet_charts.moved_curve(axis, count, colours, limit=near_limit(fleet)),
            }
            for axis in ("generation", "time")
        },
        "needed": max(3, count // 10),
        "pairs": pairs,
        "origins": origins,
        "metrics": list(METRICS),
        "devices": [{"id": each.device_id, "history": _history(each, kept, place)} for each in fleet.devices],
        "others": [
            [score.whose, score.device, score.counter, score.digest[7:19], score.at, _row(score, place)]
            for score in others
        ],
    }


def near_limit(fleet: FleetOverview) -> bool:
    """Return whether the chart of certificates shows the limit: far above all lines it would only press them flat."""
    return max((past.worst for device in fleet.devices for past in device.history), default=0.0) > MAX_DRIFT / 4


def device_colours(fleet: FleetOverview) -> dict[str, str]:
    """Return a colour for each device, none where they are too many to be told apart."""
    few = fleet.devices if len(fleet.devices) <= fleet_charts.MANY else ()
    return {device.device_id: colour for device, colour in zip(few, charts.PALETTE, strict=False)}


def _history(device: FleetDevice, kept: int, place: dict[str, int]) -> list[list[Any]]:
    """Return generations as fleet.js reads them: arrays, since names in each of thousands would be most of the page."""
    told: dict[str, list[list[Any]]] = {}
    for score in device.scores:
        told.setdefault(score.digest, []).append(_row(score, place))
    return [
        [past.counter, past.digest[7:19], past.at, past.action, _percent(past.worst), told.get(past.digest, [])]
        for past in device.history[-kept:]
    ]


def _row(score: Score, place: dict[str, int]) -> list[Any]:
    metrics = [_percent(score.metrics.get(metric)) for metric in METRICS]
    return [place[score.pair], metrics, score.n, score.gallery, place[score.origin]]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
