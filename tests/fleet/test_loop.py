"""The whole loop of a fleet through a shared folder: sync, pull, merge, try, release, withdraw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worlds import LESSONS, World, fingerprint_of

from edge_cmcl.bundle import Loaded, State, Store
from edge_cmcl.bundle.attested import Judgement, attested, judgement_tag, shared_tag
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.payloads import Adapter, adapter_to_bytes, golden_from_bytes, golden_to_bytes, sketch_to_bytes
from edge_cmcl.bundle.signature import write_signature
from edge_cmcl.device.generations import collect_garbage, log
from edge_cmcl.device.golden import make_golden
from edge_cmcl.device.held_out import saved
from edge_cmcl.device.model import Model
from edge_cmcl.device.outbox import unsent
from edge_cmcl.device.sharing import share
from edge_cmcl.device.signing import keyring
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.trial import trial_of
from edge_cmcl.errors import DataError, OlderError, RemoteError, SignatureError, UntrustedKeyError
from edge_cmcl.host.fleet.evaluating import evaluate
from edge_cmcl.host.fleet.shared import shared_pairs
from edge_cmcl.sync.attached import blob_reader


def on_trial(store: Store) -> bool:
    return trial_of(store.state(), store.tags()[CURRENT]) is not None


def test_what_two_devices_learned_comes_back_to_both_as_one(pulled: World) -> None:
    merged = pulled.merge()
    pulled.promote(merged, stage="trial")
    for name in LESSONS:
        report = pulled.sync(name)
        assert report.followed.news == "installed"
        store = pulled.device(name)
        assert store.tags()[CURRENT] == merged
        assert set(Model(store.load(CURRENT)).modalities) == {"acoustic", "current", "text", "vibration"}
        assert on_trial(store)
    assert len(pulled.pull().news) == 2
    for device in pulled.fleet.devices().values():
        assert device.report.manifest == merged
        verdict = device.verdicts[merged]
        assert verdict.accepted
        assert verdict.against is not None
        assert all(pair.before is not None for pair in verdict.pairs)
    pulled.promote(merged)
    for name in LESSONS:
        assert pulled.sync(name).followed.news == "confirmed"
        assert not on_trial(pulled.device(name))
        assert pulled.sync(name).followed.news == "known"
    pulled.promote(merged, stage="withdrawn")
    for name in LESSONS:
        assert pulled.sync(name).followed.news == "rolled back"
        assert pulled.device(name).load(CURRENT).generation.device_id == pulled.device(name).state().device_id
    pulled.pull()
    assert {device.report.counter for device in pulled.fleet.devices().values()} == {2}


def test_a_release_without_a_trial_is_kept_at_the_sync_after(pulled: World) -> None:
    merged = pulled.merge()
    pulled.promote(merged)
    assert pulled.sync("a").followed.news == "installed"
    assert on_trial(pulled.device("a"))
    assert pulled.sync("a").followed.news == "confirmed"


@pytest.mark.parametrize("alone", ["release", "withdrawn"])
def test_what_was_withdrawn_after_its_release_is_not_taken_again(pulled: World, alone: str) -> None:
    merged, device = pulled.merge(), pulled.device("a").state().device_id
    whom = {alone: [device]}  # one of the two is for this device alone, the other for all
    pulled.promote(merged, *whom.get("release", []))
    assert [pulled.sync("a").followed.news for _ in range(2)] == ["installed", "confirmed"]
    pulled.promote(merged, *whom.get("withdrawn", []), stage="withdrawn")
    assert [pulled.sync("a").followed.news for _ in range(3)] == ["rolled back", "known", "known"]
    pulled.promote(merged, device)
    assert pulled.sync("a").followed.news == "installed", "a release after that counts again"


def test_a_second_sync_sends_nothing_and_a_device_that_never_synced_keeps_nothing_for_it(world: World) -> None:
    store = world.device("a")
    assert unsent(store, store.state()) == []
    assert unsent(store, State(device_id=store.state().device_id)) == []
    report = world.sync("a")
    assert [store.load(digest).generation.counter for digest in report.sent] == [1, 2]
    assert report.judged
    again = world.sync("a")
    assert (again.sent, again.sent_bytes, again.judged) == ([], 0, None)


def test_what_waits_to_be_sent_is_not_collected(world: World, teacher: Callable[[Store, str, list[str]], None]) -> None:
    world.sync("a")
    store = world.device("a")
    for _ in range(2):
        teacher(store, "acoustic", ["vibration"])
    assert len(unsent(store, store.state())) == 2
    collect_garbage(store, keep=1)
    assert len(unsent(store, store.state())) == 2
    (world.folder / "remote").rename(world.folder / "gone")
    with pytest.raises(RemoteError):
        world.sync("a")
    assert len(unsent(store, store.state())) == 2
    (world.folder / "gone").rename(world.folder / "remote")
    assert len(world.sync("a").sent) == 2
    assert unsent(store, store.state()) == []


def test_local_learning_is_never_lost_to_a_pull(
    pulled: World, teacher: Callable[[Store, str, list[str]], None]
) -> None:
    merged = pulled.merge()
    pulled.promote(merged)
    store = pulled.device("a")
    teacher(store, "acoustic", ["vibration"])
    own = store.tags()[CURRENT]
    report = pulled.sync("a")
    assert (report.followed.news, report.sent[-1]) == ("waits", own)
    assert store.tags()[CURRENT] == own
    assert pulled.sync("b").followed.news == "installed"
    pulled.pull()
    second = pulled.merge()
    assert set(pulled.fleet.store.load(second).generation.parents) == {own, merged}
    pulled.promote(second)
    assert [pulled.sync(name).followed.news for name in LESSONS] == ["installed", "installed"]


def test_a_generation_that_is_worse_on_the_kept_pairs_is_declined_and_the_host_told(pulled: World) -> None:
    merged = spoiled(pulled, pulled.merge())
    pulled.promote(merged)
    store = pulled.device("a")
    before = store.tags()[CURRENT]
    report = pulled.sync("a")
    assert report.followed.news == "declined"
    assert "became worse" in report.followed.reason
    assert store.tags()[CURRENT] == before
    assert pulled.sync("a").followed.news == "declined"
    pulled.pull()
    device = pulled.fleet.named(store.state().device_id)
    assert not device.verdicts[merged].accepted
    assert device.report.declined[0].digest == merged


def spoiled(world: World, digest: str) -> str:
    """Commit a copy of a merged generation whose acoustic adapter is noise, signed by the host; return its digest."""
    fleet = world.fleet
    model = Model(fleet.store.load(digest))
    record, adapter = model.record("acoustic"), model.adapter("acoustic")
    noise = np.random.default_rng(0).standard_normal(adapter.weight.shape).astype(np.float32)
    bad = Adapter(noise, adapter.mean, adapter.std)
    windows = golden_from_bytes(model.loaded.read(str(record.golden_blob))).inputs["windows"]
    golden = make_golden(model.encoder("acoustic"), bad, windows)
    with fleet.changing():
        sketches = [replace(o, reference=digest_of(adapter_to_bytes(bad))) for o in model.origins("acoustic")]
        changed = record.model_copy(
            update={
                "adapter_blob": fleet.store.put(adapter_to_bytes(bad)),
                "golden_blob": fleet.store.put(golden_to_bytes(golden)),
                "origins": tuple(fleet.store.put(sketch_to_bytes(origin)) for origin in sketches),
                "references": (),
            }
        )
        old = model.generation
        generation = old.model_copy(update={"modalities": {**old.modalities, "acoustic": changed}})

        def sign(new: Loaded) -> dict[str, Descriptor]:
            return write_signature(fleet.store, new, [world.host])

        return fleet.store.commit(generation, ["spoiled"], sign)


def test_a_device_refuses_an_older_decision_than_it_has_seen(pulled: World) -> None:
    merged = pulled.merge()
    first = pulled.folder / "first"
    pulled.promote(merged, stage="trial")
    (pulled.folder / "remote").rename(first)
    import shutil

    shutil.copytree(first, pulled.folder / "remote")
    pulled.promote(merged)
    pulled.sync("a")
    shutil.rmtree(pulled.folder / "remote")
    first.rename(pulled.folder / "remote")  # an attacker puts the older decision back
    with pytest.raises(OlderError, match="older decision"):
        pulled.sync("a")
    assert pulled.device("a").tags()[CURRENT] == merged


def test_a_decision_counts_only_if_a_trusted_key_has_signed_it(pulled: World) -> None:
    merged = pulled.merge()
    pulled.promote(merged, signer=PrivateKey.generate())
    before = pulled.device("a").tags()[CURRENT]
    with pytest.raises(UntrustedKeyError):
        pulled.sync("a")
    assert pulled.device("a").tags()[CURRENT] == before


def test_a_decision_for_another_device_is_not_followed(pulled: World) -> None:
    merged = pulled.merge()
    ids = {name: pulled.device(name).state().device_id for name in LESSONS}
    pulled.promote(merged, ids["b"])
    with pulled.remote() as remote:
        entry = remote.head(f"for-{ids['b']}")
        assert entry is not None
        data = remote.manifest(entry.digest)
        assert data is not None
        remote.put(f"for-{ids['a']}", data, entry.media_type)
    with pytest.raises(SignatureError, match="for something else"):
        pulled.sync("a")


def test_only_devices_with_a_trusted_key_are_taken_and_each_speaks_for_itself_alone(world: World) -> None:
    for name in LESSONS:
        world.sync(name)
    ids = {name: world.device(name).state().device_id for name in LESSONS}
    strangers = world.pull(trust=False)
    assert strangers.strangers == {ids[name]: fingerprint_of(world.device(name)) for name in LESSONS}
    assert world.fleet.devices() == {}
    assert sorted(world.pull().news) == sorted(ids.values())
    with world.remote() as remote:  # b's report under a's tag
        entry = remote.head(f"device-{ids['b']}")
        assert entry is not None
        data = remote.manifest(entry.digest)
        assert data is not None
        remote.put(f"device-{ids['a']}", data, entry.media_type)
    again = world.pull()
    assert list(again.problems) == [ids["a"]]
    assert world.fleet.devices()[ids["a"]].report.device_id == ids["a"]


def test_a_judgement_is_the_device_s_signed_word(pulled: World) -> None:
    store = pulled.device("a")
    device, digest = store.state().device_id, store.tags()[CURRENT]
    with pulled.remote() as remote:
        entry = remote.head(judgement_tag(digest, device))
        assert entry is not None
        found, key = attested(
            Judgement, blob_reader(remote), entry, keyring(store).trust(), "2026-01-01T00:00:00Z", "it"
        )
    assert (found.manifest, found.device_id, key) == (digest, device, fingerprint_of(store))
    assert found.pairs[0].n == 20


def test_an_update_that_holds_the_store_does_not_stop_a_sync(world: World) -> None:
    import subprocess
    import sys

    store = world.device("a")
    world.sync("a")
    code = (
        "import sys; from pathlib import Path; from edge_cmcl.bundle import Store\n"
        "with Store(Path(sys.argv[1])).writer():\n    print('holds', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holds\n"
        assert world.sync("a").sent == []
        other.communicate("\n")


def test_the_log_shows_who_has_signed_a_merge(pulled: World) -> None:
    merged = pulled.merge()
    pulled.promote(merged)
    pulled.sync("a")
    entry = next(each for each in log(pulled.device("a")) if each["digest"] == merged)
    assert (entry["action"], entry["signed_by"]["standing"]) == ("merge", "trusted")


def test_nothing_of_a_recording_leaves_the_device(pulled: World, machine: object) -> None:
    allowed = {
        *("oci.image.manifest.v1+json", "oci.empty.v1+json", "dsse.envelope.v1+json"),
        *(f"edge-cmcl.{kind}" for kind in ("generation.v1+json", "keys.v1+json", "encoder.v1+onnx", "step.v1+onnx")),
        *(f"edge-cmcl.{kind}.v1+safetensors" for kind in ("adapter", "sketch", "golden", "labels")),
        *(f"edge-cmcl.{kind}-part.v1" for kind in ("encoder", "step", "adapter", "sketch", "golden", "labels")),
    }
    kinds, sent = set(), b""
    from edge_cmcl.bundle.documents import Manifest, from_json

    blobs = pulled.folder / "remote" / "blobs" / "sha256"
    for path in sorted(blobs.iterdir()):
        data = path.read_bytes()
        sent += data
        if data.startswith(b"{") and b"schemaVersion" in data:
            manifest = from_json(Manifest, data, path.name)
            kinds |= {each.media_type for each in (manifest.config, *manifest.layers)}
            sent += b"".join((blobs / layer.digest[7:]).read_bytes() for layer in manifest.layers)  # parts in order
    assert {kind.removeprefix("application/vnd.") for kind in kinds} <= allowed
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.held_out import read

    assert isinstance(machine, object)
    for name in LESSONS:
        for path in saved(pulled.device(name)).values():
            for raw in read(path).raw.values():
                assert all(row.tobytes() not in sent for row in raw)
    with open_pairs(Path(str(machine.new))) as pairs:  # type: ignore[attr-defined]
        for sensor in pairs.modalities:
            assert all(window.tobytes() not in sent for window in pairs.read(sensor))


def test_pairs_are_shared_on_request_alone_and_the_host_judges_by_them(pulled: World) -> None:
    store = pulled.device("a")
    with pytest.raises(DataError, match="nothing to judge by"):
        evaluate(pulled.fleet, store.state().device_id, ())
    pulled.sync("a")  # under its new address, so that the remote is known
    with pulled.remote() as remote:
        shared = share(store, remote, 12)
    assert (shared.pairs, len(shared.steps)) == (12, 1)
    pulled.pull()
    (held,) = shared_pairs(pulled.fleet)[store.state().device_id]
    assert held.n == 12
    _, _, _, found = evaluate(pulled.fleet, store.state().device_id, ())
    assert {frozenset(each.modalities) for each in found} == {frozenset(("acoustic", "vibration"))}
    assert found[0].metrics["n"] == 12
    assert pulled.fleet.state().measured[store.tags()[CURRENT]][0].file.startswith("shared by ")


def test_shared_pairs_that_another_key_has_signed_are_not_taken(pulled: World) -> None:
    ids = {name: pulled.device(name).state().device_id for name in LESSONS}
    digest = pulled.device("a").tags()[CURRENT]
    with pulled.remote() as remote:
        share(pulled.device("b"), remote, 10)
        entry = remote.head(shared_tag(pulled.device("b").tags()[CURRENT], ids["b"]))
        assert entry is not None
        data = remote.manifest(entry.digest)
        assert data is not None
        remote.put(shared_tag(digest, ids["a"]), data, entry.media_type)
    assert list(pulled.pull().problems) == [ids["a"]]
    assert list(shared_pairs(pulled.fleet)) == [ids["b"]]
