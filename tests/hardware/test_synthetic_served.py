"""The synthetic camera with pictures that somebody else draws: what it takes for one, and what it says where there is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from hardware._errors import TransportLost
from hardware.cameras import synthetic
from robolearn.errors import ConfigError

IMAGE = np.arange(2 * 8 * 3, dtype=np.uint8).reshape(2, 8, 3)


@contextmanager
def drawing(said: bytes, answers: int = 3) -> Iterator[str]:
    """Serves one client the same bytes for each of its bytes, in two pieces, and hangs up after so many."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                for _ in range(answers):
                    if not client.recv(1):
                        return
                    client.sendall(said[:7])
                    client.sendall(said[7:])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10.0)
        assert not thread.is_alive()


def picture(size: tuple[int, int] = (8, 2)) -> bytes:
    return synthetic.PICTURE.pack(*size, 123) + IMAGE.tobytes()


def test_a_served_picture_has_its_own_instant_and_pixels() -> None:
    with drawing(picture(), answers=2) as address:
        camera = synthetic.make(synthetic.Config((8, 2), 1000.0, address))
        assert camera.connect().emulated
        first, second = camera.read(1.0), camera.read(1.0)
        camera.close()
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.image, IMAGE)
    assert first.t_capture_ns == 123 and second.seq > first.seq


def test_a_picture_of_another_size_is_refused() -> None:
    with drawing(picture((4, 4))) as address:
        camera = synthetic.make(synthetic.Config((8, 2), 1000.0, address))
        camera.connect()
        with pytest.raises(TransportLost, match=r"want pictures of \(8, 2\), 127.* draws \(4, 4\)"):
            camera.read(1.0)
        camera.close()


def test_a_painter_that_hangs_up_is_lost_and_so_is_one_that_is_not_there() -> None:
    with drawing(picture(), answers=1) as address:
        camera = synthetic.make(synthetic.Config((8, 2), 1000.0, address))
        camera.connect()
        assert camera.read(1.0) is not None
        with pytest.raises(TransportLost, match="no picture from 127"):
            for _ in range(3):
                camera.read(1.0)
        camera.close()
    with pytest.raises(TransportLost, match=r"nobody draws at 127.*emulate --scene"):
        camera.connect()


@pytest.mark.parametrize("address", ["here", ":30", "127.0.0.1:", "host:port"])
def test_an_address_that_is_none_is_refused_before_anything_is_opened(address: str) -> None:
    with pytest.raises(ConfigError, match="synthetic address: want HOST:PORT"):
        synthetic.Config(address=address)
