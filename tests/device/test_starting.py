from __future__ import annotations

import subprocess
import sys

import pytest
from wrong_generations import commit_wrong, damage

from edge_cmcl.bundle import Store
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.intact import DamagedGenerationWarning
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.starting import RevertedWarning, confirm, start
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.trial import trial_of
from edge_cmcl.errors import DigestError, RefusedError


def attempts(store: Store) -> int:
    trial = trial_of(store.state(), store.tags()[CURRENT])
    assert trial is not None
    return trial.attempts


def test_an_update_is_on_trial_and_starts_leave_no_count_once_its_self_test_passed(taught_copy: Store) -> None:
    assert attempts(taught_copy) == 0
    start(taught_copy)
    assert attempts(taught_copy) == 0


def test_confirming_ends_the_trial_and_may_be_repeated(taught_copy: Store) -> None:
    current = taught_copy.tags()[CURRENT]
    assert confirm(taught_copy).digest == current
    assert trial_of(taught_copy.state(), current) is None
    assert confirm(taught_copy).digest == current


def test_a_generation_that_fails_its_self_test_is_reverted_with_a_warning(taught_copy: Store) -> None:
    good = confirm(taught_copy).digest
    wrong = commit_wrong(taught_copy)
    with pytest.warns(RevertedWarning, match="answers differently"):
        model = open_model(taught_copy.root)
    assert model.loaded.digest == good == taught_copy.tags()[CURRENT]
    state = taught_copy.state()
    assert trial_of(state, good) is None
    assert state.reverted is not None
    assert state.reverted.digest == wrong
    assert rollback(taught_copy, wrong).digest == wrong  # its user may have it all the same


def test_confirming_what_fails_its_self_test_is_refused_and_reverts_it(taught_copy: Store) -> None:
    good = confirm(taught_copy).digest
    commit_wrong(taught_copy)
    with pytest.raises(RefusedError, match="is in use again"):
        confirm(taught_copy)
    assert taught_copy.tags()[CURRENT] == good


KILLED = """
import os, sys
from pathlib import Path
import edge_cmcl.device.starting as starting
from edge_cmcl.bundle import Store
starting.self_test = lambda model: os.kill(os.getpid(), 9)
starting.start(Store(Path(sys.argv[1])))
"""


def test_three_starts_that_are_killed_on_the_way_revert_it(taught_copy: Store) -> None:
    on_trial, good = taught_copy.tags()[CURRENT], taught_copy.load(CURRENT).generation.parents[0]
    for count in (1, 2, 3):
        done = subprocess.run([sys.executable, "-c", KILLED, taught_copy.root], check=False)
        assert done.returncode == -9
        assert (attempts(taught_copy), taught_copy.tags()[CURRENT]) == (count, on_trial)
    with pytest.warns(RevertedWarning, match="3 starts did not get through"):
        assert start(taught_copy).loaded.digest == good


def test_a_reader_beside_a_writer_neither_waits_nor_counts(taught_copy: Store) -> None:
    other = Store(taught_copy.root)
    with taught_copy.writer():
        assert start(other).loaded.digest == taught_copy.tags()[CURRENT]
        assert attempts(taught_copy) == 0


def test_where_the_generation_in_use_is_damaged_an_older_one_answers_and_nothing_is_changed(taught_copy: Store) -> None:
    confirm(taught_copy)
    current = taught_copy.load(CURRENT)
    damage(taught_copy, current.generation.modalities["vibration"].adapter_blob)
    with pytest.warns(DamagedGenerationWarning, match="generation 1 answers"):
        model = open_model(taught_copy.root)
    assert model.loaded.digest == current.generation.parents[0]
    assert taught_copy.tags()[CURRENT] == current.digest


def test_where_nothing_intact_is_left_the_damage_is_told(taught_copy: Store) -> None:
    confirm(taught_copy)
    damage(taught_copy, taught_copy.load(CURRENT).generation.universal)
    with pytest.raises(DigestError, match="is damaged"):
        open_model(taught_copy.root)


def test_a_failed_trial_whose_predecessor_is_damaged_returns_to_an_older_generation(taught_copy: Store) -> None:
    second = confirm(taught_copy)
    commit_wrong(taught_copy)
    damage(taught_copy, second.generation.modalities["vibration"].adapter_blob)
    with pytest.warns(RevertedWarning):
        assert start(taught_copy).loaded.digest == second.generation.parents[0]
