"""A delayed plant does what the one inside does, later by exactly its delay, however time is cut into steps."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.emulators._delayed import Delayed
from hardware.emulators._plants import FirstOrder
from robolearn.errors import BadInput


def moved(plant: FirstOrder | Delayed, steps: list[float], commands: dict[int, float]) -> list[float]:
    """Returns q after each step [s]; commands: by the step before which they are given."""
    found = []
    for k, step in enumerate(steps):
        if k in commands:
            plant.command(np.array([commands[k]]))
        plant.advance(step)
        found.append(float(plant.measure()["q"][0]))
    return found


@pytest.mark.parametrize("step", (0.0007, 0.003, 0.01))
def test_it_moves_as_the_inner_plant_does_but_later(step: float) -> None:
    n = round(0.3 / step)
    plain = moved(FirstOrder([0.0]), [step] * n, {0: 0.1, n // 3: -0.1})
    late = moved(Delayed(FirstOrder([0.0]), 0.04), [step] * n, {0: 0.1, n // 3: -0.1})
    t = step * np.arange(1, n + 1)
    after = t > 0.05
    np.testing.assert_allclose(np.array(late)[after], np.interp(t[after] - 0.04, t, plain), atol=0.002)
    assert not np.array(late)[t <= 0.04].any()


def test_one_long_step_ends_where_many_short_ones_do() -> None:
    steps = moved(Delayed(FirstOrder([0.0], speed=100.0), 0.0333), [0.0011] * 100, {0: 0.5})
    assert moved(Delayed(FirstOrder([0.0], speed=100.0), 0.0333), [0.11], {0: 0.5})[-1] == pytest.approx(steps[-1], abs=1e-9)


def test_torque_is_switched_at_once_and_a_negative_delay_is_refused() -> None:
    inner = FirstOrder([0.0])
    plant = Delayed(inner, 0.5)
    plant.torque[:] = False
    assert not inner.torque.any()
    with pytest.raises(BadInput, match="want a delay of 0 to 10 s"):
        Delayed(inner, -0.1)
