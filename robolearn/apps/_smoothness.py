"""How smooth a motion is: spectral arc length and logarithmic dimensionless jerk, per joint; both 0 at best."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
PAD, CUT_HZ, LEAST = 4, 10.0, 0.05  # zero padding, highest frequency, share of the largest amplitude: as published
MOVING = 0.02  # [rad/s] a joint that never moves faster than this has no motion to judge


def sparc(speed: Array, hz: float) -> float:
    """Returns the spectral arc length of a speed profile (n,): minus the length of its normalised amplitude spectrum.

    Balasubramanian et al., "On the analysis of movement smoothness", 2015, equation 7, with the adaptive cut-off; nan where
    nothing moves.
    """
    if len(speed) < 3 or not np.any(speed):
        return float("nan")
    n = int(2 ** (np.ceil(np.log2(len(speed))) + PAD))
    frequency = np.arange(n // 2) * hz / n
    amplitude = np.abs(np.fft.fft(speed, n))[: n // 2]
    amplitude = amplitude / amplitude.max()
    inside = frequency <= min(CUT_HZ, hz / 2)
    frequency, amplitude = frequency[inside], amplitude[inside]
    loud = np.flatnonzero(amplitude >= LEAST)
    frequency, amplitude = frequency[loud[0] : loud[-1] + 1], amplitude[loud[0] : loud[-1] + 1]
    if len(frequency) < 2:
        return float("nan")
    return -float(np.sum(np.hypot(np.diff(frequency) / (frequency[-1] - frequency[0]), np.diff(amplitude))))


def log_jerk(speed: Array, hz: float) -> float:
    """Returns -ln(T^3 / v_peak^2 integral (d2v/dt2)^2 dt) of a speed profile (n,): minus the log of its dimensionless jerk."""
    peak = float(np.max(np.abs(speed), initial=0.0))
    if len(speed) < 4 or peak == 0.0:
        return float("nan")
    jerk = np.diff(speed, 2) * hz**2
    seconds, total = len(speed) / hz, float(np.sum(jerk**2)) / hz
    return -float(np.log(max(seconds**3 / peak**2 * total, 1e-12)))


def of_joints(q: Array, hz: float) -> dict[str, float]:
    """Returns, for joint angles (n, joints) [rad] over time, the mean over moving joints of both measures, the largest step
    [rad], and the root mean square of the jerk [rad/s^3] over all joints."""
    speed = np.diff(np.asarray(q, float), axis=0) * hz
    moving = np.flatnonzero(np.max(np.abs(speed), axis=0, initial=0.0) > MOVING)

    def mean(values: list[float]) -> float:
        finite = [value for value in values if np.isfinite(value)]
        return float(np.mean(finite)) if finite else float("nan")

    jerk = np.diff(speed, 2, axis=0) * hz**2
    return {
        "sparc": mean([sparc(speed[:, j], hz) for j in moving]),
        "log_jerk": mean([log_jerk(speed[:, j], hz) for j in moving]),
        "largest_step": float(np.max(np.abs(speed), initial=0.0)) / hz,
        "rms_jerk": float(np.sqrt(np.mean(jerk**2))) if jerk.size else float("nan"),
    }
