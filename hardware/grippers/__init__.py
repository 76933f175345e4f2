"""One file = one gripper driver."""
