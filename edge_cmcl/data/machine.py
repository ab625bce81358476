"""The physics of the simulated machine: a speed-controlled motor driving a three-vane pump.

One hidden state per moment (shaft phase and speed, load, fault and its severity, heat) drives every sensor, so that
any two of them tell about the same operating point. The signs of the faults are the textbook ones (R. B. Randall,
Vibration-based Condition Monitoring, 2nd ed., chapters 2, 3 and 5): imbalance at 1x shaft speed growing with its
square, misalignment at 2x and along the axis, an outer-race defect at BPFO and its harmonics, looseness at half
orders, cavitation as broadband noise with a loss of head. Speeds are low (240 to 600 rpm) so that low sample rates
show all of it without aliasing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STATES = ("healthy", "imbalance", "misalignment", "bearing_outer", "looseness", "cavitation")

LATENT_HZ = 32.0
MARGIN_S = 1.0  # the hidden state is known this long before and after a run, for sensors whose clock is off
VANES = 3
BPFO = 3.58  # ball passes over the outer race per revolution
POLE_PAIRS = 2
NOMINAL_HZ = 7.0
LOWEST_HZ, HIGHEST_HZ = 4.0, 10.0

_FAULT_HEAT = {"misalignment": 0.15, "bearing_outer": 0.3, "looseness": 0.05}


@dataclass(frozen=True)
class Latent:
    """The hidden state of one run, each array float64 (t,), on any clock.

    Attributes:
        phase: shaft angle in revolutions.
        electrical: angle of the supply in periods; ahead of the shaft by the slip.
        speed_hz: shaft speed.
        load: torque demand, 0.15 to 1 of the nominal one.
        winding: heat of the winding, a lag of 0.8 s behind the copper losses.
        bearing: heat of the bearing, a lag of 0.8 s behind friction and the heat of the fault.
        housing: heat of the housing, a lag of 40 s behind both.
        state: one of `STATES`.
        severity: of the fault, 0 to 1.
    """

    phase: Array
    electrical: Array
    speed_hz: Array
    load: Array
    winding: Array
    bearing: Array
    housing: Array
    state: str
    severity: float

    @property
    def relative(self) -> Array:
        """Shaft speed over the nominal one."""
        return self.speed_hz / NOMINAL_HZ

    def degree(self, *states: str) -> float:
        """Return the severity where the fault is one of `states`, else 0."""
        return self.severity if self.state in states else 0.0

    def order(self, multiple: float, lead: float = 0.0) -> Array:
        """Return the cosine at `multiple` times shaft speed, `lead` periods ahead."""
        return np.cos(2 * np.pi * (multiple * self.phase + lead))


def run_latent(duration_s: float, state: str, rng: np.random.Generator) -> tuple[Array, Latent]:
    """Draw the hidden state of one run: a drive cycle with slow variation, run-ups, run-downs and load steps.

    Args:
        duration_s: length of the run.
        state: one of `STATES`.
        rng: the run's random stream.

    Returns:
        The clock in seconds (t,), from -MARGIN_S to duration_s + MARGIN_S at `LATENT_HZ`, and the state on it.
    """
    count = int(np.ceil((duration_s + 2 * MARGIN_S) * LATENT_HZ)) + 2
    time = np.arange(count) / LATENT_HZ - MARGIN_S
    speed = rng.uniform(5.0, 9.0) + _cycle(time, rng) + 0.35 * _wander(count, 3.0, rng)
    speed += _lag(rng.uniform(-1.5, 1.5) * (time > rng.uniform(0.2, 0.8) * duration_s), 2.0)
    speed = np.clip(speed, LOWEST_HZ, HIGHEST_HZ)
    load = rng.uniform(0.35, 0.85) + 0.15 * _cycle(time, rng) + 0.06 * _wander(count, 2.0, rng)
    load += _lag(rng.uniform(-0.3, 0.3) * (time > rng.uniform(0.2, 0.8) * duration_s), 0.7)
    load = np.clip(load, 0.15, 1.0)
    severity = rng.uniform(0.4, 1.0) if state != "healthy" else 0.0
    copper = load**2
    friction = (speed / NOMINAL_HZ) ** 2 + _FAULT_HEAT.get(state, 0.0) * severity
    latent = Latent(
        phase=rng.uniform() + np.cumsum(speed) / LATENT_HZ,
        electrical=rng.uniform() + np.cumsum(POLE_PAIRS * speed * (1 + 0.05 * load)) / LATENT_HZ,
        speed_hz=speed,
        load=load,
        winding=_lag(copper, 0.8, copper[0]),
        bearing=_lag(friction, 0.8, friction[0]),
        housing=_lag(copper + friction, 40.0, float((copper + friction).mean() + 0.1 * rng.standard_normal())),
        state=state,
        severity=severity,
    )
    return time, latent


def on_sensor_clock(time_s: Array, latent: Latent, clock_s: Array) -> Latent:
    """Return `latent`, known at `time_s`, at the instants `clock_s` of one sensor."""
    named = {name: value for name, value in vars(latent).items() if isinstance(value, np.ndarray)}
    moved = {name: np.interp(clock_s, time_s, value) for name, value in named.items()}
    return Latent(**moved, state=latent.state, severity=latent.severity)


def _lag(values: NDArray[np.floating[Any]], tau_s: float, start: float = 0.0) -> Array:
    """First-order response of time constant `tau_s` to `values` on the latent clock."""
    share = 1.0 - np.exp(-1.0 / (tau_s * LATENT_HZ))
    out = np.empty(len(values))
    level = start
    for i, value in enumerate(values.tolist()):
        level += share * (value - level)
        out[i] = level
    return out


def _wander(count: int, tau_s: float, rng: np.random.Generator) -> Array:
    """Ornstein-Uhlenbeck noise of unit variance and correlation time `tau_s`."""
    share = 1.0 - np.exp(-1.0 / (tau_s * LATENT_HZ))
    noise: Array = _lag(rng.standard_normal(count), tau_s, 0.0) * np.sqrt((2.0 - share) / share)
    return noise


def _cycle(time: Array, rng: np.random.Generator) -> Array:
    """Return a drive cycle: a sine of 4 to 15 s with a random amplitude and phase."""
    return rng.uniform(0.3, 1.0) * np.sin(2 * np.pi * (time / rng.uniform(4.0, 15.0) + rng.uniform()))


def _fault_torque(latent: Latent, rng: np.random.Generator) -> Array:
    """Return the torque ripple (t,) that the fault puts on the shaft, of order 1 at full severity."""
    waves: dict[str, Callable[[], Array]] = {
        "healthy": lambda: np.zeros(len(latent.phase)),
        "imbalance": lambda: latent.order(1),
        "misalignment": lambda: latent.order(2),
        "bearing_outer": lambda: latent.order(BPFO) * (1 + 0.5 * latent.order(1)),
        "looseness": lambda: latent.order(0.5) + 0.5 * latent.order(1.5),
        "cavitation": lambda: rng.standard_normal(len(latent.phase)),
    }
    torque: Array = latent.severity * waves[latent.state]()
    return torque


def vibration(latent: Latent, rng: np.random.Generator) -> Array:
    """Acceleration of the bearing housing in g, (t, 3): radial, radial, axial."""
    force = latent.relative**2
    imbalance = 0.1 + 0.7 * latent.degree("imbalance")
    misaligned = latent.degree("misalignment") * (0.5 + latent.load)
    loose = latent.degree("looseness")
    vane = 0.35 * latent.load * force * latent.order(VANES)
    impulses = sum(latent.order(BPFO * k) * _resonance(BPFO * k * latent.speed_hz) for k in (1, 2, 3))
    defect = latent.degree("bearing_outer") * impulses * (1 + 0.5 * latent.order(1))
    rattle = loose * sum(0.25 / k * latent.order(0.5 * k, 0.1 * k) for k in (1, 2, 3, 5, 6))
    rough = 0.05 * latent.relative + 0.12 * latent.load**2 + 0.35 * latent.degree("cavitation") * latent.load
    x = imbalance * force * latent.order(1) + 0.3 * misaligned * latent.order(2) + vane + defect + rattle
    y = imbalance * force * latent.order(1, 0.25) + 0.2 * misaligned * latent.order(2, 0.25) + vane + 0.6 * defect
    axial = misaligned * (0.3 * latent.order(1) + 0.35 * latent.order(2, 0.1)) + 0.3 * vane + 0.2 * defect + rattle
    return np.stack([x, y, axial], axis=1) + rough[:, None] * rng.standard_normal((len(force), 3))


def _resonance(frequency_hz: Array) -> Array:
    """Gain of the housing, resonant at 45 Hz, with the anti-aliasing filter of the sensor above 60 Hz."""
    gain: Array = 0.5 / np.sqrt((1 - (frequency_hz / 45.0) ** 2) ** 2 + (0.5 * frequency_hz / 45.0) ** 2)
    gain[frequency_hz >= 60.0] = 0.0
    return gain


def current(latent: Latent, rng: np.random.Generator) -> Array:
    """Motor phase current in units of 10 A, (t, 1): magnetising and load part, modulated by the torque ripple."""
    amplitude = np.sqrt(0.3**2 + (latent.load * (0.6 + 0.4 * latent.relative)) ** 2)
    ripple = 1 + 0.05 * latent.load * latent.order(VANES) + 0.12 * _fault_torque(latent, rng)
    wave = np.cos(2 * np.pi * latent.electrical) + 0.05 * np.cos(2 * np.pi * 3 * latent.electrical)
    return (amplitude * ripple * wave + 0.03 * rng.standard_normal(len(wave)))[:, None]


def acoustic(latent: Latent, rng: np.random.Generator) -> Array:
    """Envelope of the sound pressure in Pa, (t, 1): broadband flow noise, beating at vane pass and with the fault."""
    level = 0.1 + 0.8 * latent.relative**2 * (0.4 + 0.6 * latent.load)
    beat = 1 + 0.3 * latent.load * latent.order(VANES) + 0.25 * _fault_torque(latent, rng)
    hiss = latent.degree("cavitation") * (0.4 + 0.4 * rng.standard_exponential(len(level)))
    return np.abs(level * beat * (1 + 0.12 * rng.standard_normal(len(level))) + level * hiss)[:, None]


def temperature(latent: Latent, rng: np.random.Generator) -> Array:
    """Temperatures as (degrees Celsius - 50) / 10, (t, 3): winding, bearing, housing; thin probes, so fast ones."""
    winding = 1.5 * latent.winding + 0.3 * latent.housing
    bearing = 1.0 * latent.bearing + 0.3 * latent.housing
    heat = np.stack([winding - 1.2, bearing - 1.5, 0.7 * latent.housing - 1.0], axis=1)
    return heat + 0.004 * rng.standard_normal(heat.shape)


def shaft_speed(latent: Latent, rng: np.random.Generator) -> Array:
    """Shaft speed from an encoder in units of 400 rpm, (t, 1), with the ripple that the torque leaves on it."""
    ripple = 0.02 * latent.load * latent.order(VANES) + 0.02 * _fault_torque(latent, rng)
    speed = latent.speed_hz * 60.0 / 400.0
    return (speed * (1 + ripple) + 0.004 * rng.standard_normal(len(speed)))[:, None]


def pressure(latent: Latent, rng: np.random.Generator) -> Array:
    """Pressure at the outlet in bar, (t, 1): pump curve, vane-pass pulsation, and the head that cavitation takes."""
    head = 0.8 + 1.5 * latent.relative**2 - 0.9 * latent.load**2 - 0.3 * latent.degree("cavitation")
    pulsation = 0.15 * latent.relative**2 * (0.3 + latent.load) * latent.order(VANES)
    fault = 0.08 * latent.relative * _fault_torque(latent, rng)
    return (head + pulsation + fault + 0.02 * rng.standard_normal(len(head)))[:, None]
