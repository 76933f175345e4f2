"""Demonstrations on disk: the zarr episode store, windows, statistics, normalizers, checks. No torch."""
