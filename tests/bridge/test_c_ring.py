"""The ring buffer between an interrupt and the main loop."""

from __future__ import annotations

import json

from c_build import program, run


def test_a_threaded_producer_loses_no_sample_but_what_is_counted_as_dropped() -> None:
    """The program itself demands order, wholeness and times."""
    counted = json.loads(run(program("ring_threads", cflags="-O2")))
    assert counted["taken"] > 0
    assert counted["taken"] + counted["dropped"] == 400000


def test_the_same_holds_under_the_address_sanitizer_which_makes_the_consumer_slow() -> None:
    counted = json.loads(run(program("ring_threads")))
    assert counted["taken"] + counted["dropped"] == 400000
