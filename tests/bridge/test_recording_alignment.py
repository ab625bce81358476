from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from boards import Board, Event, chirp, dropped, in_order, label, without
from numpy.typing import NDArray

from edge_cmcl.errors import DataError, UsageError
from firmware_bridge.alignment import Aligned, align
from firmware_bridge.collecting import collect
from firmware_bridge.recording import Exchange, Label, Samples
from firmware_bridge.windows import Cutting

TWO_S = Cutting(window_s=2.0)
ORIGIN_S = 1_790_000_000.0


def aligned(*parts: Any, cutting: Cutting = TWO_S, wanted: tuple[str, ...] | None = None) -> Aligned:
    return align(collect("rec", in_order(*parts), wanted), cutting)


def truth(found: Aligned, row: int, rate_hz: float = 100.0, samples: int = 200) -> NDArray[np.float64]:
    return chirp(found.time_s[row] - ORIGIN_S + np.arange(samples) / rate_hz)


def sensor(found: Aligned, name: str) -> Any:
    return next(each for each in found.sensors if each.sensor == name)


def two(end_s: float = 60.0, **options: Any) -> tuple[Board, Board, list[Samples], list[Samples], list[Exchange]]:
    """Two boards that started at other times and drift apart, 300 ppm, measure the same."""
    a = Board("tcp:a", 11, started_s=-3.0, ppm=200, **options)
    b = Board("serial:b", 12, started_s=-4000.0, ppm=-100, **options)
    acc = a.samples(a.stream("acc"), chirp, 0.0, end_s)
    gyro = b.samples(b.stream("gyro", rate_hz=80), chirp, 0.013, end_s)
    return a, b, acc, gyro, a.exchanges(0, end_s) + b.exchanges(0, end_s)


def test_two_boards_with_other_clocks_are_aligned_to_a_fraction_of_a_sample() -> None:
    _, _, acc, gyro, exchanges = two(jitter_s=0.01)
    found = aligned(acc, gyro, exchanges)
    assert found.drops.as_json() == {"kept": 29, "dropped": {}, "interpolated": 0}
    assert {name: rows.shape for name, rows in found.windows.items()} == {"acc": (29, 200, 1), "gyro": (29, 160, 1)}
    assert found.windows["acc"].dtype == np.float32
    slope = 2 * np.pi * (3 + 0.04 * 60)
    for row in range(29):
        for name, rate, samples in (("acc", 100.0, 200), ("gyro", 80.0, 160)):
            error = np.abs(found.windows[name][row, :, 0] - truth(found, row, rate, samples)).max()
            assert error < slope * 0.001 + 0.03, "1 ms of clock, and what lies between two samples"
    assert sorted(clock.source for clock in found.clocks) == ["exchanges", "exchanges"]


def test_windows_begin_where_all_begin_and_tell_the_time_of_the_host() -> None:
    _, _, acc, gyro, exchanges = two()
    found = aligned(acc, gyro, exchanges, cutting=Cutting(window_s=2.0, step_s=1.0))
    assert found.time_s[0] - ORIGIN_S == pytest.approx(0.013, abs=0.001)
    assert np.diff(found.time_s) == pytest.approx(1.0)


def test_a_rate_that_differs_from_the_nominal_one_stretches_nothing() -> None:
    """A sensor that says 100 Hz and samples at 97 of its own clock."""
    board = Board(ppm=50)
    acc = board.samples(board.stream("acc"), chirp, 0, 40, rate_hz=97.0)
    gyro = board.samples(board.stream("gyro", stream=2), chirp, 0, 40)
    found = aligned(acc, gyro, board.exchanges(0, 40))
    assert sensor(found, "acc").recorded_hz == pytest.approx(97, abs=0.1)
    assert sensor(found, "acc").breaks == {}
    assert max(np.abs(found.windows["acc"][i, :, 0] - truth(found, i)).max() for i in range(19)) < 0.05


@pytest.mark.parametrize(("spoil", "reason"), [(without, "loss"), (dropped, "gap")])
def test_lost_frames_and_dropped_samples_cost_the_windows_that_they_fall_into(spoil: Any, reason: str) -> None:
    _, _, acc, gyro, exchanges = two()
    found = aligned(spoil(acc, 20.5, 21.5), gyro, exchanges)
    assert found.drops.dropped == {reason: 1}
    assert found.drops.kept == 28
    assert sensor(found, "acc").breaks == {reason: 1}
    assert sensor(found, "acc").missing == {reason: 1}


@pytest.mark.parametrize("spoil", [without, dropped])
def test_a_short_loss_is_interpolated_and_counted(spoil: Any) -> None:
    _, _, acc, gyro, exchanges = two()
    found = aligned(spoil(acc, 20.5, 20.6), gyro, exchanges)
    assert found.drops.dropped == {}
    assert 8 <= found.drops.interpolated <= 12
    assert max(np.abs(found.windows["acc"][i, :, 0] - truth(found, i)).max() for i in range(9)) < 0.05


def test_what_a_hello_takes_of_the_sequence_is_no_loss() -> None:
    _, _, acc, gyro, exchanges = two()
    found = aligned([replace(each, sequence=each.sequence + each.sequence // 50) for each in acc], gyro, exchanges)
    assert sensor(found, "acc").breaks == {}
    assert found.drops.dropped == {}


def test_nothing_is_interpolated_over_a_reboot() -> None:
    a = Board("tcp:a", 11, started_s=-3.0, ppm=100)
    again = Board("tcp:a", 13, started_s=29.02, ppm=100)
    b = Board("tcp:b", 12)
    acc = a.samples(a.stream("acc"), chirp, 0, 29) + again.samples(again.stream("acc"), chirp, 29.05, 60)
    gyro = b.samples(b.stream("gyro"), chirp, 0, 60)
    found = aligned(acc, gyro, a.exchanges(0, 29), again.exchanges(29.1, 60), b.exchanges(0, 60))
    assert found.drops.dropped == {"reboot": 1}, "0.05 s are missing: less than the 20 % that are filled in elsewhere"
    assert sensor(found, "acc").starts == 2
    assert len(found.clocks) == 3
    for row in range(len(found.time_s)):
        assert np.abs(found.windows["acc"][row, :, 0] - truth(found, row)).max() < 0.06


def test_frames_that_come_twice_late_or_with_an_old_time_do_not_move_the_others() -> None:
    _, _, acc, gyro, exchanges = two()
    clean = aligned(acc, gyro, exchanges)
    spoilt = [*acc]
    spoilt[100], spoilt[103] = spoilt[103], spoilt[100]
    again = [replace(acc[200], arrived_ns=acc[202].arrived_ns), replace(acc[300], sequence=acc[301].sequence)]
    found = align(collect("rec", sorted([*spoilt, *again, *gyro, *exchanges], key=lambda e: e.arrived_ns)), TWO_S)
    np.testing.assert_array_equal(found.windows["acc"], clean.windows["acc"])
    assert sensor(found, "acc").repeated == 2


def test_a_sequence_may_wrap() -> None:
    _, _, acc, gyro, exchanges = two()
    clean = aligned(acc, gyro, exchanges)
    found = aligned([replace(e, sequence=(e.sequence + 2**32 - 300) % 2**32) for e in acc], gyro, exchanges)
    np.testing.assert_array_equal(found.windows["acc"], clean.windows["acc"])


def test_where_one_of_three_is_missing_the_others_stay_a_pair() -> None:
    board = Board()
    events = [
        *board.samples(board.stream("acc"), chirp, 0, 20),
        *board.samples(board.stream("gyro", stream=2), chirp, 0, 20),
        *board.samples(board.stream("mag", stream=3), chirp, 0, 10),
    ]
    found = aligned(events, board.exchanges(0, 20))
    assert found.drops.dropped == {}
    assert found.valid["mag"].tolist() == [True] * 5 + [False] * (found.drops.kept - 5)
    assert not found.windows["mag"][~found.valid["mag"]].any()
    assert sensor(found, "mag").missing == {"not recorded": found.drops.kept - 5}


def test_a_sensor_by_itself_is_a_row_only_where_there_is_a_label_or_where_nothing_is_learned() -> None:
    board = Board()
    acc = board.samples(board.stream("acc"), chirp, 0, 20)
    exchanges = board.exchanges(0, 20)
    assert aligned(acc, exchanges).drops.dropped == {"no partner": 9}
    labelled = aligned(acc, exchanges, [label(10.0, "walk")])
    assert labelled.drops.dropped == {"no partner": 5}
    assert set(labelled.labels) == {"walk"}
    assert aligned(acc, exchanges, cutting=replace(TWO_S, alone=True)).drops.as_json()["kept"] == 9


def test_a_label_holds_until_the_next_and_must_cover_80_percent() -> None:
    _, _, acc, gyro, exchanges = two(20.0)
    said = [label(4.3, "walk"), label(11.0, "run"), label(15.0, "")]
    found = aligned(acc, gyro, exchanges, said)
    begin = found.time_s - ORIGIN_S
    assert found.drops.dropped == {"mixed label": 2}, "4.3 lies 0.3 s within a window, 11 and 15 in the middle of one"
    assert dict(zip(np.round(begin).astype(int).tolist(), found.labels, strict=True)) == {
        0: "", 2: "", 4: "walk", 6: "walk", 8: "walk", 12: "run", 16: "",
    }  # fmt: skip


def test_missing_values_of_a_sensor_are_missing_samples() -> None:
    _, _, acc, gyro, exchanges = two(20.0)
    acc[30].values.setflags(write=True)
    acc[30].values[:5] = np.nan
    for each in acc[100:140]:
        each.values.setflags(write=True)
        each.values[:] = np.inf
    found = aligned(acc, gyro, exchanges)
    assert found.drops.interpolated == 8, "6 around the first ones, and 2 at the end of the window before the others"
    assert found.drops.dropped == {"gap": 2}
    assert np.isfinite(found.windows["acc"]).all()


def test_faster_recordings_are_averaged_down_to_the_rate_that_is_asked_for() -> None:
    board = Board()
    acc = board.samples(board.stream("acc", rate_hz=1000.0), chirp, 0, 20, frame=50)
    found = aligned(acc, board.samples(board.stream("gyro", stream=2), chirp, 0, 20), board.exchanges(0, 20),
                    cutting=replace(TWO_S, rates_hz={"acc": 50.0}, windows_s={"gyro": 1.0}))  # fmt: skip
    assert found.windows["acc"].shape[1:] == (100, 1)
    assert found.windows["gyro"].shape[1:] == (100, 1)
    assert np.diff(found.time_s) == pytest.approx(2.0), "the longest window is the step"
    assert max(np.abs(found.windows["acc"][i, :, 0] - truth(found, i, 50.0, 100)).max() for i in range(9)) < 0.1


def test_after_a_pause_the_grid_begins_anew() -> None:
    _, _, acc, gyro, exchanges = two(20.0)
    a, b, *_ = two(20.0)
    later = [
        *a.samples(a.stream("acc"), chirp, 3600.5, 3620),
        *b.samples(b.stream("gyro", rate_hz=80), chirp, 3600, 3620),
    ]
    later = [replace(each, sequence=each.sequence + 1000) for each in later]
    found = aligned(acc, gyro, exchanges, later, a.exchanges(3600, 3620), b.exchanges(3600, 3620))
    assert found.drops.as_json() == {"kept": 18, "dropped": {}, "interpolated": 0}
    assert found.time_s[9] - ORIGIN_S == pytest.approx(3600.5, abs=0.002)


def test_accelerated_time_is_seconds_of_the_device() -> None:
    """Sixty times faster: a minute of the machine passes in a second of the host."""

    class Fast(Board):
        def device_us(self, host_s: float) -> int:
            return round(host_s * 60e6)

        def host_s(self, device_s: NDArray[np.float64]) -> NDArray[np.float64]:
            return device_s / 60

    board = Fast(jitter_s=0.0)
    signal = lambda host_s: chirp(host_s * 60)  # noqa: E731
    made = [board.samples(board.stream(name, rate_hz=100.0, stream=i), signal, 0, 1, rate_hz=100.0, frame=10)
            for i, name in enumerate(("acc", "gyro"), start=1)]  # fmt: skip
    # `samples` counts by seconds of the host: 100 of them, so give each sixty times as many.
    made = [board.samples(info, signal, 0, 60, rate_hz=100.0) for info in (each[0].stream for each in made)]
    found = aligned(*made, board.exchanges(0, 1, rate_hz=20.0))
    assert found.speed == pytest.approx(60, rel=1e-3)
    assert found.drops.kept == 29 or found.drops.kept == 30
    row = found.windows["acc"][3, :, 0]
    assert np.abs(row - chirp(found.time_s[3] - found.time_s[0] + np.arange(200) / 100)).max() < 0.1


def test_a_stream_that_changes_its_unit_is_refused() -> None:
    board = Board()
    events = (
        board.samples(board.stream("acc"), chirp, 0, 9),
        board.samples(board.stream("acc", unit="m/s2"), chirp, 9, 18),
    )
    with pytest.raises(DataError, match="changes within the recording"):
        aligned(*events, board.exchanges(0, 18))


def test_two_streams_of_one_name_are_refused() -> None:
    a, b = Board("tcp:a"), Board("tcp:b")
    with pytest.raises(DataError, match="two streams called 'acc'") as error:
        aligned(a.samples(a.stream("acc"), chirp, 0, 9), b.samples(b.stream("acc"), chirp, 0.2, 9))
    assert error.value.got == "tcp:a stream 1 and tcp:b stream 1"


def test_other_kinds_of_streams_and_other_sensors_are_left_out() -> None:
    board = Board()
    events = [
        *board.samples(board.stream("acc"), chirp, 0, 9),
        *board.samples(board.stream("gyro", stream=2), chirp, 0, 9),
        *board.samples(board.stream("acc_embedding", stream=3, kind="embedding"), chirp, 0, 9),
        *board.samples(board.stream("mag", stream=4), chirp, 0, 9),
    ]
    assert aligned(events, wanted=("acc", "gyro")).windows.keys() == {"acc", "gyro"}


@pytest.mark.parametrize("name", ["text", "label", "a-b", "a" * 33])
def test_a_name_that_no_modality_can_have_is_refused(name: str) -> None:
    board = Board()
    with pytest.raises(DataError, match="cannot"):
        aligned(board.samples(board.stream(name), chirp, 0, 9))


def test_nothing_recorded_is_refused() -> None:
    with pytest.raises(DataError, match="no samples") as error:
        aligned([])
    assert error.value.got == "an empty recording"


def test_windows_too_short_or_too_many_are_refused() -> None:
    board = Board()
    events = board.samples(board.stream("acc"), chirp, 0, 9)
    with pytest.raises(UsageError, match="too short"):
        aligned(events, cutting=Cutting(0.1))
    with pytest.raises(DataError, match="too many windows"):
        aligned(events, cutting=Cutting(2.0, step_s=1e-6, alone=True))


BIG = 2**64 - 1


@pytest.mark.parametrize("bad", [
    lambda s: replace(s, device_time_us=BIG), lambda s: replace(s, device_time_us=2**49),
    lambda s: replace(s, arrived_ns=BIG), lambda s: replace(s, arrived_ns=0), lambda s: replace(s, sequence=2**32 - 1),
    lambda s: replace(s, boot=2**32 - 1, device_time_us=BIG), lambda s: replace(s, values=s.values[:0]),
    lambda s: replace(s, values=np.full_like(s.values, 3e38)),
    lambda s: replace(s, values=np.full_like(s.values, np.nan)),
])  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_hostile_frames_cost_at_most_windows(bad: Any) -> None:
    _, _, acc, gyro, exchanges = two(20.0)
    absurd: list[Event] = [
        Exchange("tcp:a", 11, 0, BIG, BIG, BIG),
        Exchange("tcp:a", 11, 5, 9, 2**49, 2**49),
        Label(BIG, "x"),
    ]
    found = align(collect("rec", [*acc[:100], bad(acc[100]), *acc[101:], *gyro, *exchanges, *absurd]), TWO_S)
    assert found.drops.kept >= 3
    assert all(np.isfinite(rows).all() for rows in found.windows.values())


def test_labels_without_end_are_refused() -> None:
    with pytest.raises(DataError, match="label that is too long"):
        aligned([label(0, "x" * 1000)])
