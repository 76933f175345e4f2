"""From predicted tracks to poses of a body: exact tracks give the exact trajectory, and doubt makes the hand hold still."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn import config, geometry
from robolearn.apps import _deploy_mind
from robolearn.apps._evaluate import Options, evaluate, find
from robolearn.apps.train import fit_task
from robolearn.core import ArraySpec, Ask, Camera, Chunk, Policy, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, ConfigError, SpecMismatch
from robolearn.policies import diffusion, mt_pi
from robolearn.policies._tracked import Tracked, Views, body_spec
from robolearn.training import checkpoint
from robolearn.training.settings import TrainConfig
from robolearn.video import pinhole
from robolearn.video.decoding import Gates
from robolearn.video.points import gripper_points
from sim_envs import _base as tasks

H = 8
VIEWS = ("left", "right")


def camera(angle: float, hash_: str = "a") -> Camera:
    """Returns a camera 1 m away on a circle around the origin, looking at it from above."""
    eye = np.array([np.sin(angle), -np.cos(angle), 0.6])
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    pose = geometry.pose(eye, np.stack([right, np.cross(forward, right), forward], axis=1))
    return Camera((64, 64), ((60.0, 0, 31.5), (0, 60.0, 31.5), (0, 0, 1.0)), (), tuple(map(tuple, pose.tolist())), hash_)


CAMERAS = {"left_image": camera(-0.6), "right_image": camera(0.6)}
PICTURE = ArraySpec((64, 64, 3), "uint8")


def net_spec(joint: bool) -> Spec:
    obs = {f"{view}_image": PICTURE for view in VIEWS} if joint else {"image": PICTURE}
    n = 20 if joint else 10
    return Spec({**obs, "track": ArraySpec((n,))}, ArraySpec((n + 1,)), 10.0, CAMERAS, codec="tracks", execute=4)


def at(k: float) -> np.ndarray:
    """Returns the hand's pose k rows from now: it goes aside, down, and turns."""
    turn = geometry.rotation_z(0.05 * k) @ np.diag([-1.0, 1.0, -1.0])
    return geometry.pose((0.01 * k, 0.02 - 0.005 * k, 0.3 - 0.01 * k), turn)


class Oracle:
    """Stands for a `Learned` that knows the future: the points' tracks of `at`, one view a stream or all in one."""

    def __init__(self, joint: bool, closes: Sequence[int] = (99, 99), off_px: float = 0.0, from_row: int = 0) -> None:
        self.spec, self.joint, self.net = net_spec(joint), joint, types.SimpleNamespace()
        self.closes, self.off_px, self.from_row = closes, off_px, from_row
        self.seen: dict[int, dict[str, np.ndarray]] = {}
        self.seeds: dict[int, int] = {}

    def reset_stream(self, i: int, seed: int) -> None:
        self.seeds[i] = seed

    def observe_stream(self, i: int, obs: dict[str, np.ndarray], applied: None) -> None:
        self.seen[i] = obs

    def snapshot(self, i: int) -> dict[str, np.ndarray]:
        return self.seen[i]

    def restore(self, kept: dict[str, np.ndarray], i: int) -> None:
        self.seen[i] = kept

    def view(self, v: int) -> np.ndarray:
        """Returns the rows (H, 11) of one view; the second view is off by some px from a row on."""
        points = gripper_points(np.stack([at(k) for k in range(H)]), np.ones(H))
        tracks = pinhole.project(CAMERAS[f"{VIEWS[v]}_image"], points).reshape(H, 10)
        tracks[self.from_row :] += v * self.off_px
        return np.concatenate([tracks, (np.arange(H) < self.closes[v])[:, None]], axis=1).astype(np.float32)

    def plan_streams(self, indices: Sequence[int], ask: Ask) -> list[Chunk]:
        rows = [self.view(v) for v in range(2)]
        both = np.concatenate([rows[0][:, :10], rows[1]], axis=1)
        plans = [both if self.joint else rows[i % 2] for i in indices]
        return [Chunk(p, 0, samples=np.stack([p] * ask.draws) if ask.draws > 1 else None, features=np.ones(3)) for p in plans]


def driver(joint: bool = False, gates: Gates = Gates(outlier_px=500.0), **oracle) -> Tracked:
    return Tracked(Oracle(joint, **oracle), Views(VIEWS, joint, gates), streams=2)  # type: ignore[arg-type]


def observation(k: float = 0.0, open_: float = 1.0) -> dict[str, np.ndarray]:
    pose = at(k)
    quat = geometry.quat_wxyz_from_matrix(pose[:3, :3]).astype(np.float32)
    body = {"eef_pos": pose[:3, 3].astype(np.float32), "eef_quat_wxyz": quat, "gripper_open": np.array([open_], np.float32)}
    return {**body, **{f"{view}_image": np.zeros((64, 64, 3), np.uint8) for view in VIEWS}}


def action(pose: np.ndarray, gripper: float) -> np.ndarray:
    return np.concatenate([pose[:3, 3], geometry.rot6d_from_matrix(pose[:3, :3]), [gripper]])


@pytest.mark.parametrize("joint", [False, True])
def test_exact_tracks_give_the_trajectory_of_the_hand_from_the_next_tick_on(joint: bool) -> None:
    policy = driver(joint)
    assert isinstance(policy, Policy) and policy.spec.codec == "pose_abs" and policy.spec.execute == 4
    policy.reset(1)
    policy.observe(observation(), None)
    chunk = policy.plan()
    wanted = np.stack([action(at(k), -1.0) for k in range(1, H)])
    np.testing.assert_allclose(chunk.actions, wanted, atol=2e-4)
    assert chunk.actions.dtype == np.float32 and policy.tally() == {"plans": 1, "plans_held": 0, "points_repaired": 0}


def test_the_network_is_told_where_the_points_are_now_in_every_view() -> None:
    single, joint = driver(False), driver(True)
    for policy in (single, joint):
        policy.observe_stream(1, observation(2.0, open_=0.3), None)
    points = gripper_points(at(2.0), 0.3)
    tracks = [pinhole.project(CAMERAS[f"{view}_image"], points).ravel() for view in VIEWS]
    np.testing.assert_allclose(single.inner.seen[2]["track"], tracks[0], atol=1e-3)
    np.testing.assert_allclose(single.inner.seen[3]["track"], tracks[1], atol=1e-3)
    np.testing.assert_allclose(joint.inner.seen[1]["track"], np.concatenate(tracks), atol=1e-3)


def test_the_gripper_moves_only_when_both_views_say_so() -> None:
    policy = driver(closes=(3, 5))
    policy.observe(observation(), None)
    assert policy.plan().actions[:, 9].tolist() == [-1.0] * 4 + [1.0] * 3  # rows 1..4 open, from row 5 on closed
    policy.observe(observation(open_=0.2), None)
    assert policy.plan().actions[:, 9].tolist() == [-1.0] * 4 + [1.0] * 3, "both say open in rows 1 and 2, then it stays"


@pytest.mark.parametrize("joint", [False, True])
def test_a_plan_whose_views_disagree_from_the_beginning_is_not_followed(joint: bool) -> None:
    """T11: only the future of one view is shifted, and the gate stops the hand."""
    policy = driver(joint, off_px=6.0, from_row=1)
    policy.observe(observation(1.0, open_=0.2), None)
    np.testing.assert_allclose(policy.plan().actions, np.stack([action(at(1.0), 1.0)] * (H - 1)), atol=1e-5)
    assert policy.tally()["plans_held"] == 1


def test_a_plan_whose_views_disagree_later_is_followed_until_then() -> None:
    policy = driver(off_px=6.0, from_row=4)
    policy.observe(observation(), None)
    followed = [action(at(min(k, 3)), -1.0) for k in range(1, H)]
    np.testing.assert_allclose(policy.plan().actions, np.stack(followed), atol=2e-4)
    assert policy.tally()["plans_held"] == 0


def test_draws_become_poses_and_plan_is_pure() -> None:
    policy = driver()
    policy.observe(observation(), None)
    chunk = policy.plan(Ask(draws=3))
    assert chunk.samples is not None and chunk.samples.shape == (3, H - 1, 10)
    np.testing.assert_array_equal(chunk.samples[0], chunk.actions)
    np.testing.assert_array_equal(policy.plan().actions, chunk.actions)


def test_a_stream_goes_on_from_a_snapshot_and_views_draw_noise_of_their_own() -> None:
    policy = driver()
    policy.reset_stream(0, 7)
    assert policy.inner.seeds[0] != policy.inner.seeds[1]
    policy.observe_stream(0, observation(3.0), None)
    kept = policy.snapshot(0)
    policy.observe_stream(0, observation(5.0), None)
    policy.restore(kept, 0)
    np.testing.assert_allclose(policy.inner.seen[0]["track"], kept.inner[0]["track"])
    assert policy.plan().actions.shape == (H - 1, 10)


def test_the_body_s_cameras_count_and_one_calibrated_anew_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    policy = driver()
    moved = {"left_image": camera(-0.8, "b"), "right_image": CAMERAS["right_image"]}
    large = {key: pinhole.resized(found, (640, 480)) for key, found in moved.items()}
    policy.meet(dataclasses.replace(policy.spec, cameras=large))
    assert "view 'left' was calibrated anew" in capsys.readouterr().err
    np.testing.assert_allclose(np.array(policy.cameras["left_image"].K), np.array(moved["left_image"].K), atol=1e-9)
    policy.meet(dataclasses.replace(policy.spec, cameras={}))  # none of its own: those there were stay


def test_views_without_calibration_are_refused() -> None:
    oracle = Oracle(False)
    oracle.spec = dataclasses.replace(oracle.spec, cameras={})
    policy = Tracked(oracle, Views(VIEWS, False))  # type: ignore[arg-type]
    with pytest.raises(SpecMismatch, match="view 'left' has no calibration"):
        policy.meet(dataclasses.replace(policy.spec, cameras={}))
    with pytest.raises(SpecMismatch, match="view 'left' has no calibration"):
        policy.observe(observation(), None)
    with pytest.raises(SpecMismatch, match="mt_pi reads 'left_image' for view 'left', the network has image, track"):
        body_spec(net_spec(False), Views(VIEWS, True))


def run_folder(folder: Path, joint: bool) -> Path:
    """Returns the run folder of a small untrained network for the drawer, which asks for tiny steps."""
    body = tasks.make("drawer", {"cameras": list(VIEWS), "image_size": 64})
    spec = dataclasses.replace(net_spec(joint), cameras=body.spec.cameras)
    body.close()
    n = spec.action.shape[0]
    low, high = np.zeros(n), np.full(n, 64.0)
    stats = {"track": Stats(low[1:], high[1:], high[1:] / 2, high[1:], 9), "action": Stats(low, high, high / 2, high, 9)}
    small = dict(denoiser="mlp", width=16, depth=1, image_net="small", image_features=8, steps=2, prediction="sample", execute=6)
    keys = tuple(spec.obs)
    policy = mt_pi.Config(obs=keys, joint=joint, views=VIEWS, outlier_gate_px=500.0, **small)  # type: ignore[arg-type]
    cfg = TrainConfig(policy=policy, task="drawer", env={"image_size": 64}, out=str(folder))
    torch.manual_seed(0)
    net = checkpoint.make_net(cfg, spec)
    net.step_scale.fill_(1e-4)
    step = folder / "checkpoints" / "step_000001"
    normalizer = Normalizer.fit(stats)
    checkpoint.save(step, weights=net.state_dict(), cfg=cfg, spec=spec, normalizer=normalizer, state={}, progress={"step": 1})
    checkpoint.point(folder, "last", step)
    return folder


@pytest.mark.parametrize("joint", [False, True])
def test_a_run_drives_the_bench_like_any_policy(tmp_path: Path, joint: bool) -> None:
    subject = find(str(run_folder(tmp_path / "run", joint)))
    done = evaluate(subject, Options(episodes=2, seed=50_000, workers=0, max_steps=8))
    assert [row["steps"] for row in done.rows] == [8, 8] and done.spec.codec == "pose_abs"
    assert done.tally["plans"] == 4 and done.tally["plans_held"] == 0 and done.figures()["plans"] == 4


def test_verification_is_refused_because_tracks_have_no_past(tmp_path: Path) -> None:
    from robolearn.policies._verified import Verification

    subject = find(str(run_folder(tmp_path / "run", False)))
    with pytest.raises(BadInput, match="needs a policy that predicts past actions"):
        evaluate(subject, Options(episodes=1, seed=0, workers=0, max_steps=8, verify=Verification(draws=3)))


def test_a_deployment_reads_the_body_s_keys_and_gives_poses(tmp_path: Path) -> None:
    source = _deploy_mind.local(run_folder(tmp_path / "run", False), "last", "cpu", {"execute": 3})
    assert source.spec.codec == "pose_abs" and source.spec.execute == 3 and source.spec.action.shape == (10,)
    assert set(source.spec.obs) == {"left_image", "right_image", "eef_pos", "eef_quat_wxyz", "gripper_open"}
    policy = source.make()
    policy.reset(0)
    policy.observe(observation(), None)
    assert policy.plan().actions.shape == (15, 10) and policy.spec.execute == 3


def test_training_checks_that_the_tracks_drive_the_task_s_body(tmp_path: Path) -> None:
    made = EpisodeSet.create(tmp_path / "t.zarr", net_spec(False), task="drawer", env={"image_size": 64}, durable=False)
    policy = config.from_mapping(mt_pi.Config, {"views": ["left", "right"]}, "test")
    _, spec = fit_task(TrainConfig(policy=policy), made)
    assert spec.codec == "tracks"
    with pytest.raises(SpecMismatch, match=r"reads observation 'left_image' as uint8\(64, 64, 3\), the body shows"):
        fit_task(TrainConfig(policy=policy, env={"image_size": 96}), made)
    with pytest.raises(ConfigError, match="policy 'diffusion' has no way from them to poses; want mt_pi"):
        fit_task(TrainConfig(policy=diffusion.Config()), made)
