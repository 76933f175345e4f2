"""Teleoperation: pure geometry, no torch and no device."""
