"""Calibration of cameras: boards, lenses, pairs of cameras, cameras and robots, and the files that keep what was measured."""
