"""Scripted and replayed streams: what is given when, and that a file gives back what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.devices import _stream_file, keyboard, leader, replayed, scripted, spacemouse
from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import BadInput, ConfigError


def same(a: TeleopSample, b: TeleopSample, tolerance: float = 0.0) -> bool:
    for key in ("pose", "delta", "keypoints", "joints"):
        one, two = getattr(a, key), getattr(b, key)
        if (one is None) != (two is None) or (one is not None and not np.allclose(one, two, rtol=0, atol=tolerance)):
            return False
    plain = ("arm", "deadman", "grip", "events", "confidence")
    return all(getattr(a, key) == getattr(b, key) for key in plain)


def stream() -> list[TeleopSample]:
    rng = np.random.default_rng(3)
    samples = []
    for k in range(12):
        pose = geometry.pose(rng.normal(size=3), geometry.matrix_from_rotvec(rng.normal(size=3)))
        t_ns = 7_000_000_000 + 16_666_667 * k
        samples.append(
            TeleopSample(
                t_ns - 3_000_000,
                t_ns,
                arm=k % 2,
                pose=None if k == 4 else pose,
                keypoints=rng.normal(size=(3, 3)) if k % 3 else None,
                deadman=(None, True, False)[k % 3],
                grip=None if k % 5 == 0 else k / 11,
                events=("success", "stop") if k == 7 else (),
                confidence=1.0 - k / 20,
            )
        )
    return samples


@pytest.mark.parametrize("ending, tolerance", [(".npz", 0.0), (".csv", 1e-12)])
def test_a_file_gives_back_every_field_of_every_sample(tmp_path: Path, ending: str, tolerance: float) -> None:
    written = stream()
    _stream_file.write(tmp_path / f"stream{ending}", written)
    got = _stream_file.read(tmp_path / f"stream{ending}")
    assert len(got) == len(written)
    assert all(same(a, b, tolerance) for a, b in zip(written, got, strict=True))
    assert [s.t_recv_ns for s in got] == [s.t_recv_ns - written[0].t_recv_ns for s in written]
    assert [s.t_recv_ns - s.t_dev_ns for s in got] == [3_000_000] * len(got)


@pytest.mark.parametrize("module", [keyboard, leader, scripted, spacemouse])
@pytest.mark.parametrize("ending", [".csv", ".npz"])
def test_what_a_recorder_kept_of_a_device_is_replayed(tmp_path: Path, module, ending: str) -> None:
    device, feed = module.fake(module.Config())
    tape = replayed.Recorder(device)
    tape.connect()
    for _ in range(10):
        feed.play()
        tape.read()
    tape.close()
    tape.save(tmp_path / f"tape{ending}")
    again, clock = replayed.fake(replayed.Config(path=str(tmp_path / f"tape{ending}")))
    again.connect()
    got = []
    while not again.finished:
        got += again.read()
        clock.play()
    assert (again.kind, again.arms) == (device.kind, device.arms)
    assert all(same(a, b, 1e-12) for a, b in zip(tape.samples, got, strict=True))


@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=40))
def test_replay_gives_every_sample_once_in_order_and_never_early(waits: list[float]) -> None:
    now = [5.0]
    samples = [TeleopSample(k * 20_000_000, k * 20_000_000, delta=np.full(6, k / 100)) for k in range(50)]
    device = replayed.Replayed(samples, clock=lambda: now[0])
    device.connect()
    given_so_far = 0
    for wait in waits:
        now[0] += wait
        new = device.read()
        assert all(sample.t_recv_ns * 1e-9 <= now[0] + 1e-6 for sample in new)
        for sample in new:
            assert sample.delta is not None and sample.delta[0] == given_so_far / 100
            given_so_far += 1
    assert given_so_far == min(50, int((now[0] - 5.0) / 0.02 + 1e-6) + 1)


def test_a_loop_begins_anew_and_a_stream_without_one_ends() -> None:
    once, clock = replayed.fake(replayed.Config())
    again, second = replayed.fake(replayed.Config(loop=True))
    once.connect()
    again.connect()
    counts = [0, 0]
    for _ in range(60):
        counts[0] += len(once.read())
        counts[1] += len(again.read())
        clock.play()
        second.play()
    assert once.finished and counts[0] == 20
    assert not again.finished and counts[1] > 40


def test_double_speed_takes_half_the_time() -> None:
    device, clock = replayed.fake(replayed.Config(speed=2.0))
    device.connect()
    clock.now_s += 0.475
    assert len(device.read()) == 20


@pytest.mark.parametrize(
    "text, said",
    [
        ("x,y\n1,2\n", "no column 't'"),
        ("t,delta_0\n0,1\n", "delta: no column 'delta_1'"),
        ("t,grip\n0,half\n", "line 2: grip: want a number, got 'half'"),
        ("t,gripp\n0,1\n", "unknown column 'gripp'; did you mean 'grip'"),
        ("t,grip\n1,0\n0,0\n", "times must not fall"),
        ("t,grip\n,0\n", "line 2: t: want a time"),
        ("t,grip\n", "holds no samples"),
        ("t,pose_x,pose_y,pose_z,pose_qw,pose_qx,pose_qy,pose_qz\n0,0,0,0,0,0,0,0\n", "four zeros"),
        ("t,pose_x,pose_y,pose_z,pose_qw,pose_qx,pose_qy,pose_qz\n0,0,0,,1,0,0,0\n", "all its numbers or none"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_by_column_and_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(BadInput, match=said):
        _stream_file.read(tmp_path / "bad.csv")


def test_an_npz_that_does_not_fit_is_refused_by_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", t_ns=np.arange(3), pose=np.zeros((3, 7)))
    with pytest.raises(BadInput, match=r"pose: want shape \(3, 4, 4\), got \(3, 7\)"):
        _stream_file.read(tmp_path / "bad.npz")
    (tmp_path / "none.npz").write_bytes(b"not a zip")
    with pytest.raises(BadInput, match="not a stream"):
        _stream_file.read(tmp_path / "none.npz")


def test_a_refused_write_leaves_the_old_file(tmp_path: Path) -> None:
    _stream_file.write(tmp_path / "tape.csv", stream())
    before = (tmp_path / "tape.csv").read_bytes()
    with pytest.raises(BadInput, match="no samples"):
        _stream_file.write(tmp_path / "tape.csv", [])
    assert (tmp_path / "tape.csv").read_bytes() == before


def test_a_replay_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="replayed path"):
        replayed.make(replayed.Config())
    with pytest.raises(BadInput, match="no such file"):
        replayed.make(replayed.Config(path="nowhere.npz"))


def test_streams_that_nobody_holds_have_no_deadman_and_so_drive_no_robot() -> None:
    assert not scripted.make(scripted.Config()).deadman
    held = TeleopSample(0, 0, pose=np.eye(4), deadman=True)
    device = replayed.Replayed([held], clock=lambda: 1.0)
    device.connect()
    assert not device.deadman and device.read()[0].deadman is True


@pytest.mark.parametrize("motion", scripted.MOTIONS)
def test_a_scripted_hand_begins_at_the_identity_and_comes_back_after_its_period(motion: str) -> None:
    at = scripted.motion(scripted.Config(motion=motion, period_s=3.0))
    for t_s in (0.0, 3.0, 6.0):
        np.testing.assert_allclose(at(t_s)[0].pose, np.eye(4), atol=1e-12)


def test_a_scripted_hand_gives_its_rate_and_after_a_stall_the_last_half_second() -> None:
    device, feed = scripted.fake(scripted.Config(hz=50.0))
    device.connect()
    assert len(device.read()) == 1
    feed.now_s += 0.2
    assert len(device.read()) == 10
    feed.now_s += 10.0
    late = device.read()
    assert len(late) == 25
    assert late[-1].t_dev_ns == pytest.approx(feed.now_s * 1e9, abs=1e3)


def test_two_scripted_hands_mirror_each_other() -> None:
    right, left = scripted.motion(scripted.Config(arms=2))(0.7)
    assert right.pose is not None and left.pose is not None
    np.testing.assert_allclose(left.pose[:3, 3], right.pose[:3, 3] * (1, -1, 1))
