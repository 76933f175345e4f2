"""Drivers and emulators."""
