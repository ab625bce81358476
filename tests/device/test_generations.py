from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bundle_samples import make_store, updated_generation

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.collect import hold
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.documents import Descriptor, Manifest, Trial, to_json
from edge_cmcl.bundle.media_types import OCI_MANIFEST
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.device.generations import collect_garbage, log
from edge_cmcl.device.store import CURRENT, store_bytes
from edge_cmcl.errors import DigestError


@pytest.fixture
def grown(tmp_path: Path) -> Store:
    """A store of five generations in a line, tagged as a device tags them."""
    store = make_store(tmp_path / "store")
    with store.writer():
        store.move_tags({}, drop=["base"])
        for seed in (21, 22, 23):
            generation = updated_generation(store, CURRENT, seed)
            store.commit(generation, [CURRENT, generation_tag(generation)])
    assert counters(store) == [5, 4, 3, 2, 1]
    return store


def counters(store: Store) -> list[int]:
    return [each["counter"] for each in log(store)]


def check_whole(store: Store) -> None:
    for each in log(store):
        check_digests(store.load_manifest(each["digest"]))


def test_the_newest_generations_stay_whole_and_what_only_older_ones_needed_goes(grown: Store) -> None:
    size = store_bytes(grown)
    done = collect_garbage(grown, keep=2)
    assert len(done.generations) == 2
    assert counters(grown) == [5, 4, 1]  # and the base
    assert size - store_bytes(grown) == done.bytes > 0
    check_whole(grown)
    assert collect_garbage(grown, keep=2).blobs == 0


def test_blobs_that_no_generation_names_go_too(grown: Store) -> None:
    with grown.writer():
        stray = grown.put(b"left by a killed writer")
    collect_garbage(grown, keep=5)
    assert not grown.has(stray)
    assert counters(grown) == [5, 4, 3, 2, 1]


def test_what_a_trial_returns_to_stays_findable_when_those_between_go(grown: Store) -> None:
    second = log(grown)[3]["digest"]
    with grown.writer():
        trial = Trial(digest=grown.tags()[CURRENT], previous=second, since="2026-01-02T03:04:05Z")
        grown.save_state(grown.state().model_copy(update={"trial": trial}))
    for _ in range(2):
        collect_garbage(grown, keep=1)
        assert counters(grown) == [5, 2, 1]
        check_whole(grown)


READER = """
import sys
from pathlib import Path
from edge_cmcl.bundle import Store
from edge_cmcl.bundle.collect import hold
store = Store(Path(sys.argv[1]))
print(hold(store, sys.argv[2]) is not None, flush=True)
sys.stdin.readline()
"""


def test_what_another_process_uses_stays_until_it_ends(grown: Store) -> None:
    second = log(grown)[3]["digest"]
    command = [sys.executable, "-c", READER, grown.root, second]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "True\n"
        for _ in range(2):
            assert collect_garbage(grown, keep=1).held == (second,)
            assert counters(grown) == [5, 2, 1]
        check_whole(grown)
        reader.communicate("\n")
    assert collect_garbage(grown, keep=1).generations == (second,)
    assert hold(grown, second) is None


def test_the_signature_of_a_removed_generation_goes_and_that_of_a_kept_one_stays(grown: Store) -> None:
    newest, oldest = log(grown)[0]["digest"], log(grown)[-2]["digest"]
    with grown.writer():
        for digest in (newest, oldest):
            config = Descriptor(media_type="application/x", digest=grown.put(f"about {digest}".encode()), size=77)
            config = config.model_copy(update={"size": len(f"about {digest}")})
            manifest = to_json(Manifest(schema_version=2, config=config, layers=()))
            entry = Descriptor(media_type=OCI_MANIFEST, digest=grown.put(manifest), size=len(manifest))
            grown.move_tags({f"{digest.replace(':', '-')}.sig": entry})
    collect_garbage(grown, keep=1)
    assert grown.attachments(oldest) == []
    (entry,) = grown.attachments(newest)
    assert b"about" in grown.read(Manifest.model_validate_json(grown.read(entry)).config)


def test_nothing_is_removed_where_something_to_keep_is_damaged(grown: Store) -> None:
    before = {path.name for path in grown.blob_path("").iterdir()}
    manifest = grown.blob_path(log(grown)[1]["digest"])
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(DigestError):
        collect_garbage(grown, keep=2)
    assert {path.name for path in grown.blob_path("").iterdir()} == before
