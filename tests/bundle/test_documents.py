from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import CREATED, make_store
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cmcl.bundle.canonical import canonical
from edge_cmcl.bundle.documents import (
    Descriptor,
    Index,
    Manifest,
    State,
    Trial,
    from_json,
    state_from_json,
    state_to_json,
    to_json,
)
from edge_cmcl.bundle.generation import Generation, check_manifest, generation_from_json, timestamp
from edge_cmcl.bundle.limits import MAX_INTEGER
from edge_cmcl.errors import FormatError

DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
DESCRIPTORS = st.builds(
    Descriptor,
    media_type=st.just("application/x"),
    digest=DIGESTS,
    size=st.integers(0, 1 << 30),
    annotations=st.none() | st.dictionaries(st.text("abc", max_size=4), st.text("xyz", max_size=4), max_size=3),
)
STATES = st.builds(
    State,
    device_id=st.from_regex(r"\A([A-Za-z0-9][A-Za-z0-9._-]{0,63})?\Z"),
    highest_counter=st.integers(0, MAX_INTEGER),
    unsigned=st.lists(DIGESTS, max_size=3).map(tuple),
    trial=st.none() | st.builds(Trial, digest=DIGESTS, previous=st.none() | DIGESTS, since=st.just(CREATED)),
)
DIGEST = "sha256:" + "0" * 64


@given(st.lists(DESCRIPTORS, max_size=4))
def test_an_index_reads_back_as_itself(entries: list[Descriptor]) -> None:
    index = Index.of(*entries)
    assert from_json(Index, to_json(index), "index") == index


@given(STATES)
def test_a_state_reads_back_as_itself(state: State) -> None:
    assert state_from_json(state_to_json(state), "state") == state


@given(STATES, st.data())
def test_no_flipped_bit_of_a_state_goes_unseen(state: State, data: st.DataObject) -> None:
    raw = bytearray(state_to_json(state))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FormatError):
        state_from_json(bytes(raw), "state")


def test_a_state_keeps_what_a_newer_version_wrote() -> None:
    newer = State.model_validate({"device_id": "d", "mood": "sunny"})
    read = state_from_json(state_to_json(newer), "state")
    kept = json.loads(state_to_json(read.model_copy(update={"highest_counter": 3})))
    assert (kept["mood"], kept["highest_counter"]) == ("sunny", 3)


def test_rewriting_an_index_keeps_what_another_tool_wrote() -> None:
    entry = {"mediaType": "application/x", "digest": DIGEST, "size": 1, "platform": {"os": "linux"}}
    data = canonical({"schemaVersion": 2, "manifests": [entry], "annotations": {"k": "v"}, "extra": 1})
    other = Descriptor(media_type="application/y", digest=DIGEST, size=1)
    written = json.loads(to_json(from_json(Index, data, "index").with_tag("new", other)))
    assert written["manifests"][0] == entry
    assert (written["annotations"], written["extra"]) == ({"k": "v"}, 1)


def test_a_tag_keeps_the_other_annotations_of_what_it_names() -> None:
    entry = Descriptor(media_type="application/x", digest=DIGEST, size=1, annotations={"who": "another tool"})
    (tagged,) = Index.of().with_tag("a", entry).with_tag("b", entry).without_tag("a").manifests
    assert (tagged.tag, (tagged.annotations or {})["who"]) == ("b", "another tool")


def test_a_tag_names_one_manifest() -> None:
    first, second = (Descriptor(media_type="application/x", digest=DIGEST, size=size) for size in (1, 2))
    index = Index.of().with_tag("a", first).with_tag("b", first).with_tag("a", second)
    assert {entry.tag: entry.size for entry in index.manifests} == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1},
        {"size": 1 << 40},
        {"size": "1"},
        {"size": 1.0},
        {"size": True},
        {"size": None},
        {"digest": "sha256:../../../etc/passwd"},
        {"digest": "sha256:" + "A" * 64},
        {"digest": "sha256:" + "0" * 63},
        {"digest": "sha256:" + "0" * 64 + "\n"},
        {"digest": "sha512:" + "0" * 128},
        {"digest": 5},
        {"mediaType": "x" * 300},
        {"annotations": {"k": 1}},
        {"annotations": [1]},
        {"annotations": {str(i): "" for i in range(65)}},
    ],
)
def test_a_hostile_index_entry_is_refused(entry: dict[str, Any]) -> None:
    good = {"mediaType": "application/x", "digest": DIGEST, "size": 1}
    from_json(Index, canonical({"schemaVersion": 2, "manifests": [good]}), "index")
    with pytest.raises(FormatError):
        from_json(Index, canonical({"schemaVersion": 2, "manifests": [good | entry]}), "index")


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        7,
        {},
        {"schemaVersion": 1, "manifests": []},
        {"schemaVersion": "2", "manifests": []},
        {"schemaVersion": 2, "manifests": {}},
        {"schemaVersion": 2, "manifests": [None]},
        {"schemaVersion": 2, "manifests": [{}]},
        {"schemaVersion": 2, "mediaType": "text/plain", "manifests": []},
        {"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "digest": DIGEST, "size": 1}] * 4097},
    ],
)
def test_a_hostile_index_is_refused(document: Any) -> None:
    with pytest.raises(FormatError) as caught:
        from_json(Index, canonical(document), "index")
    assert len(str(caught.value)) < 2000


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, Any]]:
    """The manifest and the generation document, as plain JSON, of an updated bundle."""
    loaded = make_store(tmp_path_factory.mktemp("documents") / "store").load("current")
    return loaded.manifest, json.loads(to_json(loaded.generation))


def test_a_generation_reads_back_as_itself(sample: tuple[Manifest, dict[str, Any]]) -> None:
    data = canonical(sample[1])
    generation = generation_from_json(data, "generation")
    assert to_json(generation) == data
    assert set(json.loads(data)) == {field.alias or name for name, field in Generation.model_fields.items()}


CHANGES: list[dict[str, Any]] = [
    {"schema": "edge-cmcl/generation/2"},
    {"schema": None},
    {"surprise": 1},
    {"counter": 0},
    {"counter": -1},
    {"counter": 2.0},
    {"counter": "2"},
    {"counter": True},
    {"name": "../up"},
    {"name": ""},
    {"created": "yesterday"},
    {"created": CREATED + "\n"},
    {"parents": []},
    {"base": None},
    {"parents": [DIGEST, DIGEST]},
    {"parents": [f"sha256:{i:064x}" for i in range(129)]},
    {"parents": ["sha256:short"]},
    {"modalities": {}},
    {"modalities": []},
    {"embedding_dim": 0},
    {"embedding_dim": 1e3},
    {"action": "Rm -rf"},
    {"device_id": "a/b"},
    {"universal": None},
    {"pairs": [{"modalities": ["acc", "unknown"], "origin": "o", "n": 1, "metrics": {}}]},
    {"pairs": [{"modalities": ["acc"], "origin": "o", "n": 1, "metrics": {}}]},
    {"pairs": [{"modalities": ["acc", "gyro"], "origin": "o o", "n": 1, "metrics": {}}]},
    {"pairs": [{"modalities": ["acc", "gyro"], "origin": "o", "n": 0, "metrics": {}}]},
    {"certificate": [{"modality": "acc", "origin": "o", "bound": -1.0, "relative": 0.0}]},
    {"certificate": [{"modality": "nose", "origin": "o", "bound": 1.0, "relative": 0.0}]},
    {"metrics": {"long": "x" * (1 << 18)}},
    {"metrics": []},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change)[:50])
def test_a_generation_that_breaks_a_rule_is_refused(
    sample: tuple[Manifest, dict[str, Any]], change: dict[str, Any]
) -> None:
    with pytest.raises(FormatError):
        generation_from_json(canonical(sample[1] | change), "generation")


RECORD_CHANGES: list[dict[str, Any]] = [
    {"kind": "smell"},
    {"channels": None},
    {"channels": 0},
    {"frame": [4, 4]},
    {"kind": "frames"},
    {"kind": "frames", "channels": None, "frame": [4]},
    {"kind": "frames", "channels": None, "frame": [0, 4]},
    {"kind": "text"},
    {"encoder": "text"},
    {"encoder": "conv"},
    {"encoder_blob": None},
    {"encoder_blob": DIGEST},
    {"scale": 0.0},
    {"rate_hz": -1.0},
    {"width": 0},
    {"width": 65537},
    {"adapter_blob": None},
    {"label_blob": DIGEST},
    {"origins": [DIGEST, DIGEST]},
    {"calibration": None},
    {"extra": 1},
]


@pytest.mark.parametrize("change", RECORD_CHANGES, ids=str)
def test_a_modality_that_breaks_a_rule_is_refused(
    sample: tuple[Manifest, dict[str, Any]], change: dict[str, Any]
) -> None:
    modalities = sample[1]["modalities"]
    changed = {**sample[1], "modalities": {**modalities, "acc": modalities["acc"] | change}}
    with pytest.raises(FormatError):
        generation_from_json(canonical(changed), "generation")


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_documents_are_read_or_refused_but_never_crash(
    sample: tuple[Manifest, dict[str, Any]], data: st.DataObject
) -> None:
    readers = {
        to_json(sample[0]): lambda raw: from_json(Manifest, raw, "manifest"),
        canonical(sample[1]): lambda raw: generation_from_json(raw, "generation"),
    }
    good = data.draw(st.sampled_from(list(readers)))
    start = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:start] + data.draw(st.binary(max_size=6)) + good[start + data.draw(st.integers(0, 6)) :]
    with suppress(FormatError):
        readers[good](damaged)


def test_another_spelling_of_a_generation_is_refused(sample: tuple[Manifest, dict[str, Any]]) -> None:
    short = {name: value for name, value in sample[1].items() if name != "device_class"}
    acc = {**sample[1]["modalities"]["acc"], "scale": 2}
    whole_number = {**sample[1], "modalities": {**sample[1]["modalities"], "acc": acc}}
    for data in (json.dumps(sample[1]).encode(), canonical(short), canonical(whole_number)):
        with pytest.raises(FormatError, match="not canonical"):
            generation_from_json(data, "generation")


def test_the_layers_are_exactly_the_blobs_that_the_generation_names(sample: tuple[Manifest, dict[str, Any]]) -> None:
    manifest, document = sample
    generation = generation_from_json(canonical(document), "generation")
    check_manifest(manifest, generation, "it")
    layers = manifest.layers
    stranger = layers[0].model_copy(update={"digest": DIGEST})
    retyped = layers[0].model_copy(update={"media_type": "application/x"})
    for wrong in (layers[1:], (*layers, stranger), (*layers, layers[0]), (retyped, *layers[1:])):
        with pytest.raises(FormatError):
            check_manifest(manifest.model_copy(update={"layers": wrong}), generation, "it")
    with pytest.raises(FormatError, match="not a bundle"):
        check_manifest(manifest.model_copy(update={"artifact_type": None}), generation, "it")


def test_a_blob_cannot_be_two_kinds_of_things(sample: tuple[Manifest, dict[str, Any]]) -> None:
    document = {**sample[1], "step": sample[1]["modalities"]["acc"]["adapter_blob"]}
    with pytest.raises(FormatError, match="something else"):
        generation_from_json(canonical(document), "generation").media_types()


def test_a_timestamp_is_one_that_the_format_takes(sample: tuple[Manifest, dict[str, Any]], tmp_path: Path) -> None:
    assert generation_from_json(canonical({**sample[1], "created": timestamp()}), "generation").created.endswith("Z")
