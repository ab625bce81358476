"""How far a fitted clock is off: 200 ppm of drift, by the rate of exchanges and the jitter of each way (issue 6).

python tests/bench/clock_error.py [--seconds 60] [--seeds 100]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.clock import fit_arrivals, fit_exchanges
from firmware_bridge.recording import Exchange

RATES_HZ = (0.5, 1.0, 2.0, 5.0)
DRIFT = 200e-6
LEAST_S = 0.001
SHAPES = {
    "exponential": lambda random, scale, n: random.exponential(scale, n),
    "uniform": lambda random, scale, n: random.uniform(0, scale, n),
    "half normal": lambda random, scale, n: abs(random.normal(0, scale, n)),
    "none": lambda random, scale, n: np.zeros(n),
}
CASES = [
    ("exponential", "exponential", 0.020), ("uniform", "uniform", 0.020), ("half normal", "half normal", 0.020),
    ("none", "exponential", 0.020), ("exponential", "none", 0.020), ("exponential", "exponential", 0.005),
    ("exponential", "exponential", 0.050),
]  # fmt: skip


def error_ms(there: str, back: str, jitter_s: float, rate_hz: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Return how far a clock is off over a recording, in ms."""
    random = np.random.default_rng(seed)
    n = int(rate_hz * seconds)
    sent = np.arange(n) / rate_hz + random.uniform(0, 0.1 / rate_hz, n)
    came = sent + LEAST_S + SHAPES[there](random, jitter_s, n)
    arrived = came + 1e-4 + LEAST_S + SHAPES[back](random, jitter_s, n)
    exchanges = [
        Exchange("link", 1, round(s * 1e9), round(a * 1e9), *(round(d * (1 + DRIFT) * 1e6) for d in (c, c + 1e-4)))
        for s, c, a in zip(sent, came, arrived, strict=True)
    ]
    clock = fit_exchanges("link", 1, exchanges, 0)
    assert clock is not None
    return off_ms(clock.to_host_s, seconds)


def arrivals_error_ms(shape: str, jitter_s: float, rate_hz: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Return how far a clock is off that was fitted from arrivals only, in ms; the least delay is part of it."""
    random = np.random.default_rng(seed)
    host = np.arange(int(rate_hz * seconds)) / rate_hz
    arrived = host + LEAST_S + SHAPES[shape](random, jitter_s, len(host))
    return off_ms(fit_arrivals("link", 1, host * (1 + DRIFT), arrived).to_host_s, seconds)


def off_ms(to_host_s, seconds: float) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """Return the distance of a clock from the truth over a recording, in ms."""
    host = np.linspace(0, seconds, 300)
    return np.abs(to_host_s(host * (1 + DRIFT)) - host) * 1e3


def cell(errors: NDArray[np.float64]) -> str:
    """Return the median over everything, and the 95th percentile of the recordings' medians."""
    return f"{np.median(errors):.2f} / {np.quantile(np.median(errors, axis=1), 0.95):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    print(f"error in ms after {options.seconds:g} s, {options.seeds} seeds: median / 95th percentile of recordings\n")
    print("| jitter there, back | ms | " + " | ".join(f"{rate:g} Hz" for rate in RATES_HZ) + " | arrivals, 50 Hz |")
    print("| --- | --- |" + " --- |" * (len(RATES_HZ) + 1))
    for there, back, jitter_s in CASES:
        cells = [
            cell(np.array([error_ms(there, back, jitter_s, rate, options.seconds, s) for s in range(options.seeds)]))
            for rate in RATES_HZ
        ]
        late = np.array([arrivals_error_ms(back, jitter_s, 50.0, options.seconds, s) for s in range(options.seeds)])
        print(f"| {there}, {back} | {jitter_s * 1e3:g} | " + " | ".join([*cells, cell(late)]) + " |")


if __name__ == "__main__":
    main()
