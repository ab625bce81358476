"""The ring buffer between an interrupt and the main loop."""

from __future__ import annotations

import json

from c_build import needs, program, run


def test_a_threaded_producer_loses_no_sample_but_what_is_counted_as_dropped() -> None:
    """The program itself demands order, wholeness and times."""
    counted = json.loads(run(program("ring_threads", cflags="-O2")))
    assert counted["taken"] > 0
    assert counted["taken"] + counted["dropped"] == 400000


def test_the_thread_sanitizer_finds_no_access_that_the_indices_leave_unordered() -> None:
    needs("setarch")
    binary = program("ring_threads", cflags="-O1 -g -fsanitize=thread")
    counted = json.loads(run("setarch", "-R", binary))  # its shadow memory does not go with all address layouts
    assert counted["taken"] + counted["dropped"] == 400000


def test_the_same_holds_under_the_address_sanitizer_which_makes_the_consumer_slow() -> None:
    counted = json.loads(run(program("ring_threads")))
    assert counted["taken"] + counted["dropped"] == 400000
