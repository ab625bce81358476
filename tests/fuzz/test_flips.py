"""A few flips of each subject in the default suite; `make fuzz` puts 10,000."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from flip_subjects import SUBJECTS, BundleSubject, StoreSubject
from flips import Flip, Region, attempt, nth_flip, survey
from machine_bundle import Machine, make_machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_machine(tmp_path_factory)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_no_flipped_bit_of_a_bundle_is_accepted_where_it_matters(machine: Machine, tmp_path: Path, form: str) -> None:
    outcomes = survey(SUBJECTS[form](machine, form, tmp_path), range(12))
    assert outcomes.total() == 12
    assert any(outcome.startswith("refused") for _, outcome in outcomes)


def test_a_store_with_a_flipped_bit_answers_the_same_or_refuses(machine: Machine, tmp_path: Path) -> None:
    """Of each kind of file one flip, and no kind is left out."""
    subject = StoreSubject(machine, "trial", tmp_path)
    flips = [nth_flip(subject, 0, number) for number in range(1, 1000)]
    drawn = Counter(flip.kind for flip in flips)
    wanted = {"index.json", "state.json", "oci-layout", "lock", "trust.json", "private key", "manifest", "generation"}
    wanted |= {f"copy-of-{name}" for name in ("index.json", "state.json", "trust.json")}
    wanted |= {"encoder", "step", "adapter", "sketch", "golden", "labels"}
    wanted |= {"signature manifest", "signature config", "signature keys", "DSSE envelope"}
    assert drawn.keys() == wanted
    assert min(drawn.values()) > 20
    assert nth_flip(subject, 0, 7) == flips[6]
    outcomes = {kind: attempt(subject, next(flip for flip in flips if flip.kind == kind)) for kind in wanted}
    assert outcomes["lock"] == "the same"
    for kept_twice in ("oci-layout", "state.json", "index.json", "trust.json"):
        assert outcomes[kept_twice] == "the same, from a copy"


class Careless:
    """A reader that takes whatever is there."""

    name = "careless"

    def __init__(self, path: Path, error: Exception | None) -> None:
        self.regions, self._error = [Region("a file", path, 0, 4)], error

    def outcome(self, flip: Flip) -> str:
        if self._error:
            raise self._error
        return "accepted"


@pytest.mark.parametrize("error", [ValueError("no error of ours"), MemoryError(), AssertionError("another model")])
def test_a_reader_that_fails_otherwise_is_told_with_the_id_that_replays_it(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "file").write_bytes(b"good")
    with pytest.raises(AssertionError, match=r"careless/0/0: bit \d of byte \d of file") as caught:
        survey(Careless(tmp_path / "file", error), range(3))
    assert type(error).__name__ in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b"good"


def test_a_lost_signature_is_refused_and_not_taken_for_an_unsigned_bundle(machine: Machine, tmp_path: Path) -> None:
    subject = BundleSubject(machine, "folder", tmp_path)
    index = subject.path / "index.json"
    tag = index.read_bytes().index(b"sha256-")
    assert attempt(subject, Flip("by hand", "index.json", index, tag, 1)) == "refused: UnsignedError"
