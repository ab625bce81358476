"""A few hundred inputs of each fuzz target in the default suite; `make fuzz` gives each 300,000, blindly and guided."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from parsers import fuzz, input_of, limited_memory
from target import ViolationError, execute
from targets import TARGETS

from edge_cmcl.errors import EdgeCmclError, FormatError, UsageError

QUICK = 300


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_refuses_by_an_error_of_ours_or_keeps_what_it_accepts(name: str) -> None:
    outcomes = fuzz(TARGETS[name], QUICK, seed=0)
    assert outcomes.total() == QUICK
    assert "accepted" in outcomes or name == "lock"
    # Of a line or a cut recording, what is not whole is passed over.
    assert len(outcomes) > 1 or name in ("lock", "line", "recording")


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_are_accepted_and_its_inputs_replay(name: str) -> None:
    target = TARGETS[name]
    if name != "lock":  # whatever stands in it, it is held
        assert "accepted" in {execute(target, seed) for seed in target.seeds()}
    assert input_of(target, 0, 5) == input_of(target, 0, 5) != input_of(target, 1, 5)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no error of ours"), "ValueError"),
        (EdgeCmclError("a bug"), "exit code 1"),
        (UsageError("the wrong kind"), "exit code 2"),
        (FormatError("a" * 3000, expected="b" * 3000, got="c" * 3000), "a message of"),
    ],
)
def test_a_parser_that_fails_otherwise_is_told_with_the_id_that_replays_it(error: Exception, told: str) -> None:
    def careless(data: bytes) -> None:
        raise error

    with pytest.raises(AssertionError, match=r"index/0/0 fails") as caught:
        fuzz(replace(TARGETS["index"], accept=careless), 3, seed=0)
    assert told in str(caught.value)


def test_a_parser_that_takes_too_long_is_a_violation() -> None:
    def slow(data: bytes) -> None:
        start = time.thread_time()
        while time.thread_time() - start < 1.1:
            pass

    with pytest.raises(ViolationError, match="s for 1 bytes"):
        execute(replace(TARGETS["index"], accept=slow), b"x")


@pytest.mark.parametrize("where", ["certificate", "modalities", "metrics", "later"])
def test_a_document_of_4_mib_takes_bounded_memory_and_time(where: str) -> None:
    """Each took gigabytes and up to a minute: the checks keep a kilobyte for each wrong value."""
    values = b"[%s]" if where == "certificate" else b"{%s}"
    members = [b"{}" if where == "certificate" else b'"a%d":{}' % number for number in range(350_000)]
    inside = b",".join(members)[:4_000_000].rsplit(b",", 1)[0]
    data = b'{"schema":"edge-cmcl/generation/1","%s":%s}' % (where.encode(), values % inside)
    assert 3 << 20 < len(data) < 4 << 20 or where == "certificate"
    with limited_memory() as grown_mib:
        assert execute(TARGETS["generation"], data) == "FormatError"
        assert grown_mib() < 100


def test_what_an_error_quotes_cannot_steer_a_terminal() -> None:
    error = FormatError("a\x1b[2J", got="\ud800\u202e", hint="two\nlines")
    assert (error.message, error.got, error.hint) == ("a\\x1b[2J", "\\ud800\\u202e", "two\nlines")


def test_a_key_file_that_openssl_fails_on_is_no_key() -> None:
    """One flipped bit turns the curve into X448, whose keys have another length: OpenSSL has no error for that."""
    pem = TARGETS["pem"].seeds()[0]
    assert b"K2Vw" in pem
    assert execute(TARGETS["pem"], pem.replace(b"K2Vw", b"K2Vv")) == "ModelError"


def test_a_lock_whose_owner_is_a_thousand_brackets_is_still_held() -> None:
    assert execute(TARGETS["lock"], b"[" * 1024) == "StoreLockedError"
