from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.documents import SyncState
from edge_cmcl.device.drift import Drift
from edge_cmcl.device.exposition import write_exposition
from edge_cmcl.device.status import status

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(path: Path) -> Samples:
    families = list(text_string_to_metric_families(path.read_text()))
    assert all(family.type == "gauge" and family.documentation for family in families)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_prometheus_reads_what_the_device_tells(taught_copy: Store, tmp_path: Path) -> None:
    with taught_copy.writer():
        state = taught_copy.state()
        known = SyncState(remote="oci://host/machine", reported="2026-01-02T03:04:05Z")
        taught_copy.save_state(state.model_copy(update={"sync": known}))
    found = status(taught_copy)
    drift = Drift("vibration", 30, 0.25, 0.5, 0.1, 1.0, 0.01, "normal")
    write_exposition(tmp_path / "device.prom", taught_copy, found, [drift])
    samples = parsed(tmp_path / "device.prom")

    assert samples["edge_cmcl_generation", ()] == 2
    assert samples["edge_cmcl_on_trial", ()] == 1
    assert samples["edge_cmcl_unsent_generations", ()] == 1
    assert samples["edge_cmcl_update_seconds", ()] > 0
    assert samples["edge_cmcl_reported_seconds", ()] == 1767323045
    assert samples["edge_cmcl_drift_outside", (("modality", "vibration"),)] == 0.25
    pairs = {labels[0][1]: value for (name, labels), value in samples.items() if name == "edge_cmcl_pair_mrr"}
    assert set(pairs) == {"acoustic-vibration", "acoustic-text"}  # the base was judged by its host
    assert all(0 < value <= 1 for value in pairs.values())
    (info,) = (dict(labels) for name, labels in samples if name == "edge_cmcl_info")
    assert info["device"] == found["device_id"]


def test_a_name_with_quotes_and_backslashes_is_escaped(taught: Store, tmp_path: Path) -> None:
    found = {**status(taught), "name": 'a "b" \\ c\nd'}
    write_exposition(tmp_path / "device.prom", taught, found)
    (info,) = (dict(labels) for name, labels in parsed(tmp_path / "device.prom") if name == "edge_cmcl_info")
    assert info["name"] == 'a "b" \\ c\nd'
    assert not any(name.startswith("edge_cmcl_drift") for name, _ in parsed(tmp_path / "device.prom"))
