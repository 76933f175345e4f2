"""Tests of data write many small files; flushing each to the disk is not what they test."""

from __future__ import annotations

import pytest

from robolearn.data import _files


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes fsync do nothing; a crash of the program, which the tests act out, does not depend on it."""
    monkeypatch.setattr(_files.os, "fsync", lambda _: None)
