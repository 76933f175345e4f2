"""Anchors of the runtime: limits, schedules, loops, rings, the server."""

from __future__ import annotations

import itertools

import mujoco
import numpy as np

from robolearn.errors import BadInput

ARM_REST = np.array([0.0, 0.196, 0.0, -2.618, 0.0, 2.942, 0.785])  # a Panda above its table


def align_figures() -> tuple[float, bool]:
    """Returns the fastest step from 1 rad away, in shares of the top speed, and whether farther is refused (H14)."""
    from robolearn.runtime.align import Align
    from robolearn.runtime.limits import defaults

    limits = defaults(
        ("a", "b"), (-3.0, -3.0), (3.0, 3.0), (2.0, 2.0), without=("workspace", "collision", "effort", "temperature")
    )
    way, now, steps = Align(limits, 0.01, np.zeros(2), np.array([1.0, -0.5])), 0.0, [np.zeros(2)]
    while not way.done:
        now += 0.01
        steps.append(way.step(now, True))
    fastest = float(np.abs(np.diff(steps, axis=0)).max() / 0.01 / 2.0)
    try:
        Align(limits, 0.01, np.zeros(2), np.array([1.5, 0.0]))
    except BadInput:
        return fastest, True
    return fastest, False


def delay_error_s() -> float:
    """Returns the largest error [s] of the latency estimator on injected 5, 40 and 120 ms, five recordings each (H15)."""
    from robolearn.runtime.latency import chirp, estimate_delay

    offset, errors = chirp(10.0, 0.3, 2.0, 0.2), []
    for delay, seed in itertools.product((0.005, 0.04, 0.12), range(5)):
        rng = np.random.default_rng(seed)
        t_command = np.arange(0.0, 10.0, 0.01) + rng.uniform(0, 0.002, 1000)
        command = np.asarray(offset(t_command))
        t_measured = np.sort(rng.uniform(0.0, 10.0, 1000))
        held = np.clip(np.searchsorted(t_command, t_measured - delay, side="right") - 1, 0, None)
        measured = 0.9 * command[held] + 0.3 + rng.normal(0, 0.002, 1000)
        errors.append(abs(estimate_delay(t_command, command, t_measured, measured).seconds - delay))
    return max(errors)


def loop_overruns(seconds: float) -> tuple[float, float]:
    """Returns the share of overruns of a loop at 100 Hz, and the 99th percentile of its lateness [s] (H16)."""
    from robolearn.clock import Deadline

    deadline = Deadline(0.01)
    for _ in range(round(seconds / 0.01)):
        deadline.wait()
    timing = deadline.timing()
    return timing.overruns / timing.ticks, timing.p99_s


def broken_trials(trials: int) -> int:
    """Returns how many of so many random schedules broke a promise, dealt over all consumers (H19)."""
    from robolearn.runtime._trial import trial
    from robolearn.runtime.consumers._base import consumer_names

    names = consumer_names()
    return sum(bool(trial(names[k % len(names)], k).broken) for k in range(trials))


def bind_refused() -> bool:
    """Returns whether an open address without certificate, key and token is refused (H22)."""
    from robolearn.runtime.serve.auth import Bind, guard

    try:
        guard(Bind(host="0.0.0.0"))
    except BadInput:
        return True
    return False


def penetrations(goals: int) -> tuple[int, float]:
    """Returns poses in contact on the ways to random colliding goals of a Panda at a table, and the poses looked at (H25)."""
    from robolearn.runtime.collision import Checker, colliding_goals, rehearse
    from robolearn.teleop import robots

    spec = mujoco.MjSpec.from_file(str(robots.path_of("panda")))
    table = spec.worldbody.add_geom()
    table.name, table.type, table.size, table.pos = "table", mujoco.mjtGeom.mjGEOM_BOX, [0.5, 0.6, 0.02], [0.65, 0, -0.1]
    model = spec.compile()
    joints = tuple(f"joint{i}" for i in range(1, 8))
    checker = Checker(model, joints, ARM_REST)
    lower, upper = np.array([model.joint(name).range for name in joints]).T
    found = rehearse(checker, ARM_REST, colliding_goals(checker, lower, upper, goals, np.random.default_rng(0)))
    return found.penetrations, float(found.poses)


def calibration_error_ticks() -> float:
    """Returns the largest error [ticks] from pose to encoder and back, over all zeros and both signs (H26).

    A goal must lie the way from the pose at which the servo was read, also over the encoder's end, and read as the pose again.
    """
    from hardware._calibration import ServoCalibration, ServoJoint

    tick, worst = 2 * np.pi / 4096, 0.0
    for sign, zeros in itertools.product((1, -1), np.arange(4096).reshape(32, 128)):
        joints = tuple(ServoJoint(f"j{k}", k, sign, int(zero), -1.6, 1.6) for k, zero in enumerate(zeros))
        arm = ServoCalibration("koch", joints)
        for q in np.linspace(-1.6, 1.6, 9):
            place = np.rint(zeros - sign * q / tick).astype(int)  # of the mirrored pose, at which the servo is read
            for turns in (-4096, 0, 4096):  # that it has counted
                near = place % 4096 + turns
                goal = arm.ticks(np.full(len(zeros), q), near)
                off = goal - (zeros + sign * q / tick + near - place)  # the way from there to here, and no turn more
                back = (arm.radians(goal) - q) / tick
                worst = max(worst, float(np.abs([off, back]).max()))
    return worst
