"""A UR5e whose plug is pulled and put back, as a program: what `test_ur.py` runs in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest

from hardware._base import Setpoint
from hardware._errors import HwError, TransportLost
from hardware._life import Budget
from hardware.emulators._process import Running
from hardware.robots import ur5e
from tests.hardware.arm_bench import Bench


def main() -> None:
    """Ends without an error where the loss is said at once, and the same process connects again."""
    with Running("ur") as robot:
        config = ur5e.Config(host=robot.address, watchdog_s=1.0, power_on=True)
        bench = Bench(robot, ur5e.make, config, 1 / 125, Budget(hard=40, hard_s=3.0))
        arm = bench.active()
        here = bench.cycle().q
        bench.control("unplug")
        assert isinstance(bench.fault(Setpoint(here)), TransportLost)
        with pytest.raises(TransportLost):
            arm.clear_fault()
        assert all(isinstance(error, HwError) for error in arm.disconnect()) and bench.driver.disconnect() == []
        with pytest.raises(TransportLost, match=r"no controller at 127\..* in 3 tries"):
            ur5e.make(bench.config).connect()
        bench.control("replug")
        np.testing.assert_allclose(bench.active().cycle().q, here, atol=1e-3)


if __name__ == "__main__":
    main()
