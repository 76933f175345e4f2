"""Delays are measured to 2 ms, clocks of devices are followed through drift and jitter, and bad signals are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.clock import ping_offset
from robolearn.errors import BadInput, ConfigError, UnknownName
from robolearn.runtime.latency import ClockMap, Delay, Latency, LatencyModel, chirp, estimate_delay

S = 1_000_000_000


def lagged(t: np.ndarray, t_command: np.ndarray, command: np.ndarray, delay_s: float, constant_s: float = 0.0) -> np.ndarray:
    """Returns what a plant does at t that holds each command and answers after a delay, with a first-order lag if asked for."""
    fine = np.arange(-0.5, t[-1] + 0.001, 0.0005)
    held = command[np.clip(np.searchsorted(t_command, fine - delay_s, side="right") - 1, 0, len(command) - 1)]
    if constant_s:
        state, out = held[0], []
        for value in held:
            state += (value - state) * -np.expm1(-0.0005 / constant_s)
            out.append(state)
        held = np.array(out)
    return np.interp(t, fine, held)


def recorded(delay_s: float, seed: int, constant_s: float = 0.0, gain: float = 0.9) -> tuple[np.ndarray, ...]:
    """Returns a chirp at 100 Hz with jittered stamps and its answer with noise and the steps of an encoder."""
    rng = np.random.default_rng(seed)
    t_command = np.arange(1000) * 0.01 + rng.uniform(0, 0.002, 1000)
    command = chirp(9.5, 0.3, 3.0, 0.1)(t_command)
    t_measured = np.arange(1000) * 0.01 + rng.uniform(0, 0.006, 1000)
    measured = gain * lagged(t_measured, t_command, command, delay_s, constant_s) + 0.3 + rng.normal(0, 0.002, 1000)
    return t_command, command, t_measured, np.round(measured / 0.0015) * 0.0015


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.04, 0.12, 0.29])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_injected_delay_is_found_to_2_ms_and_its_gain_too(delay_s: float, seed: int) -> None:
    found = estimate_delay(*recorded(delay_s, seed))
    assert found.seconds == pytest.approx(delay_s, abs=0.002)
    assert found.gain == pytest.approx(0.9, abs=0.01)
    assert found.interval[0] - 0.002 <= delay_s <= found.interval[1] + 0.002
    assert 0.001 < found.residual < 0.004  # the noise that was put in


def test_a_first_order_lag_is_told_from_dead_time_and_is_part_of_the_plain_shift() -> None:
    signals = [signal[:600] for signal in recorded(0.04, 0, constant_s=0.05)]
    apart = estimate_delay(*signals, plant="first_order")
    assert apart.seconds == pytest.approx(0.04, abs=0.002)
    assert apart.time_constant_s == pytest.approx(0.05, abs=0.004)
    assert 0.06 < estimate_delay(*signals).seconds < 0.095


def test_a_plant_without_lag_has_none() -> None:
    signals = [signal[:600] for signal in recorded(0.04, 0)]
    assert estimate_delay(*signals, plant="first_order").time_constant_s < 0.002


def test_commands_that_the_device_interpolates_are_half_a_period_earlier_than_held_ones() -> None:
    t = np.arange(1000) * 0.01
    command = chirp(9.5, 0.3, 3.0, 0.1)(t)
    measured = np.interp(t - 0.043, t, command)
    assert estimate_delay(t, command, t, measured, between="linear").seconds == pytest.approx(0.043, abs=0.0005)


def test_samples_in_step_with_held_commands_leave_one_period_open_and_the_interval_says_so() -> None:
    t = np.arange(1000) * 0.01
    command = chirp(9.5, 0.3, 3.0, 0.1)(t)
    measured = command[np.maximum(np.arange(1000) - 4, 0)]  # any delay from 30 to 40 ms gives this
    found = estimate_delay(t, command, t + 1e-6, measured)
    assert found.interval[0] <= 0.031 and found.interval[1] >= 0.04
    assert found.seconds == pytest.approx(0.035, abs=0.002)


@given(delay_s=st.floats(0.0, 0.25), gain=st.floats(0.2, 3.0))
@settings(max_examples=5)
def test_scaling_and_shifting_the_measurement_does_not_move_the_delay(delay_s: float, gain: float) -> None:
    t_command, command, t_measured, measured = recorded(delay_s, 3)
    assert estimate_delay(t_command, command, t_measured, gain * measured - 1).seconds == pytest.approx(
        estimate_delay(t_command, command, t_measured, measured).seconds, abs=1e-6
    )


def test_an_error_that_lasts_is_seen_by_segments_and_not_by_the_f_test() -> None:
    """A slow wander of the measurement (a cable that pulls) is no noise from sample to sample."""
    t = np.arange(1000) * 0.01
    command, inside = chirp(9.5, 0.3, 0.8, 0.1)(t), {0: 0, 8: 0}
    true = np.interp(t - 0.04, t, command)
    for seed in range(10):
        measured = true + np.interp(t, np.linspace(0, 10, 30), np.random.default_rng(seed).normal(0, 0.01, 30))
        for segments in inside:
            low, high = estimate_delay(t, command, t, measured, between="linear", segments=segments).interval
            inside[segments] += low <= 0.04 <= high
    assert inside[8] >= 9 > inside[0], inside


def refused(change: dict[str, np.ndarray] | None = None, **options: float) -> str:
    t_command, command, t_measured, measured = recorded(0.04, 0)
    signals = {"t_command": t_command, "command": command, "t_measured": t_measured, "measured": measured} | (change or {})
    with pytest.raises(BadInput) as caught:
        estimate_delay(**signals, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_signals_that_cannot_tell_are_refused_with_the_reason() -> None:
    t_command, _, t_measured, measured = recorded(0.04, 0)
    assert "want finite numbers" in refused({"measured": np.where(np.arange(1000) == 7, np.nan, measured)})
    assert "want a signal that moves" in refused({"command": np.zeros(1000)})
    assert "want times that rise" in refused({"t_command": t_command[::-1]})
    assert "as many times as values" in refused({"measured": measured[:-1]})
    assert "want 1 s and 50 samples" in refused({"t_measured": t_measured[:120], "measured": measured[:120]})
    assert "does not follow" in refused({"measured": np.random.default_rng(1).normal(size=1000)})
    assert "does not follow" in refused({"measured": -measured})
    assert "the stamps are of two clocks" in refused({"t_measured": t_measured - 0.055})
    assert "raise max_delay_s" in refused({"t_measured": t_measured + 0.075}, max_delay_s=0.1)


def test_a_chirp_begins_and_ends_at_rest_and_keeps_its_amplitude() -> None:
    offset = chirp(5.0, 0.5, 4.0, 0.2)
    t = np.linspace(-1, 6, 7001)
    values = offset(t)
    assert np.abs(values).max() <= 0.2 and np.abs(values).max() > 0.19
    assert not values[t <= 0].any() and np.abs(values[t >= 5]).max() < 1e-12
    assert np.abs(np.diff(values)[[1000, 5998]]).max() < 1e-5  # no jump of speed at either end
    middle = values[(t > 4.0) & (t < 4.5)]
    assert np.count_nonzero(np.diff(np.sign(middle))) == pytest.approx(2 * 0.5 * (0.5 + 3.5 * 4.25 / 5), abs=1)


def test_a_chirp_without_time_for_its_slow_end_is_refused() -> None:
    with pytest.raises(BadInput, match="want 0 < f0 <= f1"):
        chirp(1.0, 0.5, 4.0, 0.2)


def test_a_latency_model_survives_json_and_names_what_it_does_not_know() -> None:
    model = LatencyModel({"arm": Latency(0.001, 0.1), "cam": Latency(0.17)})
    assert LatencyModel.from_json(model.to_json()) == model
    assert model.captured_ns("cam", S) == S - 170_000_000
    assert model.send_ns("arm", S) == S - 100_000_000
    assert model.commit_ns(S, margin_s=0.01) == S + 110_000_000
    with pytest.raises(UnknownName, match="unknown device 'arn'; did you mean 'arm'"):
        model.of("arn")
    with pytest.raises(ConfigError, match="latency: arm: unknown field 'act'"):
        LatencyModel.from_json({"arm": {"act": 0.1}})
    with pytest.raises(BadInput, match="want seconds from 0 to 10"):
        Latency(-0.1)


@pytest.mark.parametrize("drift_ppm", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("wrap", [0.0, 32768.0])
def test_a_clock_map_follows_drift_under_one_sided_jitter(drift_ppm: float, wrap: float) -> None:
    rng = np.random.default_rng(4)
    clock, worst = ClockMap(tick_s=0.001, wrap=wrap), 0.0
    for k in range(2500):
        true_s = 0.01 * k
        ticks = 5000 + true_s * (1 - drift_ppm * 1e-6) / 0.001
        received_ns = 7 * S + round((true_s + rng.exponential(0.003)) * 1e9)
        mapped_ns = clock.add(ticks % wrap if wrap else ticks, received_ns)
        assert mapped_ns <= received_ns
        if k > 500:
            worst = max(worst, abs(mapped_ns - 7 * S - true_s * 1e9) * 1e-9)
    assert worst < 0.0006  # the jitter alone is 3 ms
    assert clock.drift_ppm == pytest.approx(drift_ppm, abs=15)
    assert clock.resets == 0


def test_a_device_that_restarts_begins_a_new_map() -> None:
    clock = ClockMap()
    for k in range(100):
        clock.add(1000.0 + 0.1 * k, round(0.1 * k * 1e9))
    mapped_ns = clock.add(0.5, 20 * S)
    assert clock.resets == 1 and mapped_ns == 20 * S
    assert clock.add(1.5, 21 * S + 5) == 21 * S


def test_a_clock_map_refuses_what_is_no_time() -> None:
    with pytest.raises(BadInput, match="want a finite device time"):
        ClockMap().add(float("nan"), 0)
    with pytest.raises(BadInput, match="want tick_s and window_s above 0"):
        ClockMap(tick_s=0)


def test_the_fastest_ping_gives_the_offset_and_half_its_trip_the_doubt() -> None:
    lead, doubt = ping_offset([0, 100, 200], [5050, 5106, 5290], [100, 110, 300])
    assert (lead, doubt) == (5106 - 105, 5)
    with pytest.raises(BadInput, match="one ping or more"):
        ping_offset([], [], [])
    with pytest.raises(BadInput, match="want replies after their pings"):
        ping_offset([10], [0], [5])


def test_a_delay_is_plain_data() -> None:
    assert Delay(0.1, 1.0, 0.0, (0.09, 0.11)).time_constant_s == 0.0
