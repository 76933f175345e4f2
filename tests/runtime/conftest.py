"""A policy server that the tests of serving share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served_sums import Place

from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.peers import Limits


@pytest.fixture(scope="module")
def shared_place() -> Iterator[Place]:
    place = Place(Bind(port=0), Limits(hello_s=20))
    yield place
    place.server.close()
    place.server.close()


@pytest.fixture
def place(shared_place: Place) -> Iterator[Place]:
    """A server that nobody is connected to."""
    shared_place.quiet()
    shared_place.made.clear()
    yield shared_place
    for policy in shared_place.made:
        policy.gate.set()
