from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_bridge.clock import Clock, fit_arrivals, fit_exchanges
from firmware_bridge.recording import Exchange

Delays = Callable[[np.random.Generator, int], NDArray[np.float64]]
Host = Callable[[NDArray[np.float64]], NDArray[np.float64]]

ORIGIN_NS = 1_790_000_000_000_000_000
JITTER_S = 0.020
JITTERS: dict[str, tuple[Delays, Delays]] = {
    "exponential": (lambda r, n: r.exponential(JITTER_S, n), lambda r, n: r.exponential(JITTER_S, n)),
    "uniform": (lambda r, n: r.uniform(0, JITTER_S, n), lambda r, n: r.uniform(0, JITTER_S, n)),
    "half normal": (lambda r, n: abs(r.normal(0, JITTER_S, n)), lambda r, n: abs(r.normal(0, JITTER_S, n))),
    "only on the way back": (lambda r, n: np.zeros(n), lambda r, n: r.exponential(JITTER_S, n)),
    "only on the way there": (lambda r, n: r.exponential(JITTER_S, n), lambda r, n: np.zeros(n)),
}


def drifting(ppm: float) -> Host:
    """Host time of a device clock that is `ppm` too fast."""
    return lambda device_s: device_s / (1 + ppm * 1e-6)


def exchanges(
    device_s: NDArray[np.float64], to_host_s: Host, there_s: NDArray[np.float64], back_s: NDArray[np.float64]
) -> list[Exchange]:
    """Exchanges that reach the device at `device_s` and are answered 0.1 ms later."""
    sent = to_host_s(device_s) - there_s - 0.001
    arrived = to_host_s(device_s + 1e-4) + back_s + 0.001
    return [
        Exchange(
            "tcp:a", 7, ORIGIN_NS + round(s * 1e9), ORIGIN_NS + round(a * 1e9), round(d * 1e6), round(d * 1e6) + 100
        )
        for s, a, d in zip(sent.tolist(), arrived.tolist(), device_s.tolist(), strict=True)
    ]


def fitted(found: list[Exchange]) -> Clock:
    clock = fit_exchanges("tcp:a", 7, found, ORIGIN_NS)
    assert clock is not None
    return clock


def error_ms(clock: Clock, to_host_s: Host, begin_s: float, end_s: float) -> NDArray[np.float64]:
    device = np.linspace(begin_s, end_s, 500)
    return np.abs(clock.to_host_s(device) - to_host_s(device)) * 1e3


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("jitter", JITTERS)
def test_200_ppm_and_20_ms_of_jitter_leave_less_than_2_ms_after_a_minute(jitter: str, rate_hz: float) -> None:
    there, back = JITTERS[jitter]
    truth = drifting(200)
    medians = []
    for seed in range(15):
        random = np.random.default_rng(seed)
        n = int(60 * rate_hz)
        device = 5 + np.arange(n) / rate_hz + random.uniform(0, 0.1 / rate_hz, n)
        clock = fitted(exchanges(device, truth, there(random, n), back(random, n)))
        medians.append(float(np.median(error_ms(clock, truth, 5, 65))))
        assert clock.source == "exchanges"
        assert clock.rejected == 0
    assert np.median(medians) < 1
    assert max(medians) < 2 if rate_hz >= 1 else np.quantile(medians, 0.9) < 2


def test_without_jitter_offset_and_drift_are_exact() -> None:
    truth = drifting(-1e4)  # an oscillator without a crystal
    device = np.arange(20.0)
    clock = fitted(exchanges(device, truth, np.zeros(20), np.zeros(20)))
    assert error_ms(clock, truth, 0, 30).max() < 0.01
    assert clock.drift_ppm == pytest.approx(-1e4, abs=1)
    assert clock.residual_max_ms < 0.01
    assert clock.bound_ms == pytest.approx(1.0, abs=0.01)


def test_exchanges_that_cannot_be_true_are_rejected() -> None:
    random = np.random.default_rng(3)
    truth = drifting(150)
    found = exchanges(np.arange(60.0), truth, *random.exponential(0.005, (2, 60)))
    late = [Exchange(e.link, e.boot, e.sent_ns, e.arrived_ns, e.received_us + 400_000, e.answered_us + 400_000)
            for e in found[10:60:10]]  # fmt: skip
    backwards = [Exchange("tcp:a", 7, ORIGIN_NS + 9, ORIGIN_NS, 0, 1), Exchange("tcp:a", 7, ORIGIN_NS, ORIGIN_NS, 2, 1)]
    absurd = [Exchange("tcp:a", 7, 0, 2**64 - 1, 2**64 - 2, 2**64 - 1)]
    clock = fitted([*found, *late, *backwards, *absurd])
    assert clock.rejected == 8
    assert error_ms(clock, truth, 0, 60).max() < 2


def test_a_glitch_smaller_than_a_round_trip_closes_the_corridor_and_is_left_out() -> None:
    random = np.random.default_rng(4)
    truth = drifting(20)
    found = exchanges(np.arange(60.0), truth, *random.uniform(0, 0.004, (2, 60)))
    shifted = [Exchange(e.link, e.boot, e.sent_ns, e.arrived_ns, e.received_us - 4500, e.answered_us - 4500)
               for e in found[5:60:12]]  # fmt: skip
    assert error_ms(fitted(found + shifted), truth, 0, 60).max() < 1.5


def test_a_crystal_that_warms_up_for_an_hour_is_followed() -> None:
    """30 ppm of change: 15 ms away from any straight line."""
    random = np.random.default_rng(5)

    def truth(device_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return device_s * (1 - 80e-6) + 30e-6 * 900 * np.exp(-device_s / 900)

    device = np.arange(0, 3600, 0.5)
    clock = fitted(exchanges(device, truth, *random.exponential(0.003, (2, len(device)))))
    straight = np.polyval(np.polyfit(device, truth(device), 1), device)
    assert np.abs(straight - truth(device)).max() > 2e-3
    assert error_ms(clock, truth, 0, 3600).max() < 0.5
    assert clock.rejected == 0


def test_an_hour_without_answers_is_bridged() -> None:
    truth = drifting(40)
    device = np.concatenate([np.arange(0, 300.0), np.arange(3900, 4200.0)])
    clock = fitted(exchanges(device, truth, *np.random.default_rng(6).exponential(0.002, (2, 600))))
    assert error_ms(clock, truth, 0, 4200).max() < 1


def test_a_short_recording_is_not_given_a_drift_that_only_jitter_suggests() -> None:
    random = np.random.default_rng(7)
    clock = fitted(exchanges(np.arange(5.0), drifting(50), *random.exponential(JITTER_S, (2, 5))))
    assert abs(clock.drift_ppm) < 500


def test_accelerated_time_has_a_clock_too() -> None:
    truth: Host = lambda device_s: device_s / 60  # noqa: E731
    device = np.arange(0, 600, 30.0)
    clock = fitted(exchanges(device, truth, *np.random.default_rng(8).exponential(1e-4, (2, 20))))
    assert clock.rate == pytest.approx(1 / 60, rel=1e-4)
    assert error_ms(clock, truth, 0, 600).max() < 0.1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_exchanges_are_no_clock(count: int) -> None:
    assert fit_exchanges("l", 0, exchanges(np.arange(float(count)), drifting(0), *np.zeros((2, count))), 0) is None


def test_exchanges_of_one_moment_are_no_clock() -> None:
    assert fit_exchanges("l", 0, exchanges(np.ones(9), drifting(0), *np.zeros((2, 9))), ORIGIN_NS) is None


def test_without_exchanges_the_fastest_arrivals_bound_the_offset() -> None:
    random = np.random.default_rng(9)
    truth = drifting(200)
    device = np.arange(0, 60, 0.02)
    arrived = truth(device) + 0.003 + random.exponential(JITTER_S, len(device))
    clock = fit_arrivals("serial:b", 1, device, arrived)
    assert (clock.source, clock.bound_ms) == ("arrivals", None)
    late_ms = (clock.to_host_s(device) - truth(device)) * 1e3
    assert np.all(late_ms > 2.9), "it cannot know of the 3 ms that every frame took"
    assert np.all(late_ms < 3.3)
    assert clock.drift_ppm == pytest.approx(200, abs=10)
    assert clock.residual_median_ms == pytest.approx(JITTER_S * 1e3 * np.log(2), rel=0.1)


def test_a_replay_as_fast_as_it_goes_keeps_the_time_of_the_device() -> None:
    device = np.arange(0, 600, 0.1)
    clock = fit_arrivals("replay", 1, device, np.linspace(5.0, 5.3, len(device)))
    assert clock.rate == pytest.approx(1)


def test_one_frame_is_enough_for_an_offset() -> None:
    clock = fit_arrivals("l", 1, np.array([12.5]), np.array([3.0]))
    assert clock.to_host_s(np.array([12.5, 13.5])) == pytest.approx([3.0, 4.0])
