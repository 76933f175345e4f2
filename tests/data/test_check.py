"""Every fault planted in one episode is found there, at its rows, and nothing else is; a sound set gives no flag at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from check_sets import LAG, STEPS, Episodes, build, episode
from small_sets import make

from robolearn.core import ArraySpec, Flag, Spec
from robolearn.data.check import CODES, ERRORS, Limits, Report, check, check_episode, context_of, motion_of
from robolearn.data.store import EpisodeSet

BAD = 5  # the episode with the fault


def all_clocks(rows: dict, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for key in ("t_monotonic", "t_wall", "t_dev_arm", "t_dev_front"):
        rows[key] = change(rows[key])


def slow_clock(e: Episodes, k: int = BAD) -> None:
    all_clocks(e[k], lambda t: t[0] + (t - t[0]) * 11 // 10)


def gap(e: Episodes, k: int = BAD) -> None:
    all_clocks(e[k], lambda t: t + np.where(np.arange(len(t)) >= 60, 3 * 10**8, 0))


def clock_stands(e: Episodes, k: int = BAD) -> None:
    e[k]["t_monotonic"][50] = e[k]["t_monotonic"][49]


def device_clock_turns_back(e: Episodes, k: int = BAD) -> None:
    e[k]["t_dev_front"][50] -= 65 * 10**6


def wall_clock_set(e: Episodes, k: int = BAD) -> None:
    e[k]["t_wall"][40:] -= 2 * 10**9


def repeat_frames(e: Episodes, k: int = BAD) -> None:
    for row in (20, 40, 60, 80):
        e[k]["front"][row] = e[k]["front"][row - 1]
        e[k]["flags"][row] |= int(Flag.FRAME_REPEATED)


def camera_clock_stands(e: Episodes, k: int = BAD) -> None:
    for row in (20, 40, 60, 80):
        e[k]["t_dev_front"][row] = e[k]["t_dev_front"][row - 1]


def blacken(e: Episodes, k: int = BAD) -> None:
    e[k]["front"][7:9] = 3


def freeze(e: Episodes, k: int = BAD) -> None:
    e[k]["front"][30:42] = e[k]["front"][30]


def stale_arm(e: Episodes, k: int = BAD) -> None:
    e[k]["t_dev_arm"][30:35] = e[k]["t_dev_arm"][30]


def stale_by_bit(e: Episodes, k: int = BAD) -> None:
    e[k]["flags"][30:33] |= int(Flag.STALE)


def saturate(e: Episodes, k: int = BAD) -> None:
    e[k]["action"][30:70, 0] = max(rows["action"][:, 0].max() for rows in e)


def clamp(e: Episodes, k: int = BAD) -> None:
    e[k]["flags"][10:50] |= int(Flag.CLAMPED)


def joint_at_limit(e: Episodes, k: int = BAD) -> None:
    shift = 2.99 - e[k]["joint_pos"][:, 1].max()
    e[k]["joint_pos"][:, 1] += shift
    e[k]["action"][:, 1] += shift


def gripper_stands(e: Episodes, k: int = BAD) -> None:
    e[k]["gripper"][:] = e[k]["gripper"][0]
    e[k]["action"][:, 3] = 0


def wait_at_the_start(e: Episodes, k: int = BAD) -> None:
    rows = np.clip(np.arange(STEPS) - 30, 0, None)
    e[k] = episode(k, at=rows**2 / (rows + 12))


def wait_at_the_end(e: Episodes, k: int = BAD) -> None:
    rows = np.clip(69 - np.arange(STEPS), 0, None)
    e[k] = episode(k, at=70 - rows**2 / (rows + 12))


def not_a_number(e: Episodes, k: int = BAD) -> None:
    e[k]["force"][40, 1] = np.nan


def far_off(e: Episodes, k: int = BAD) -> None:
    e[k]["force"][40, 1] = 1e6


def tremble(e: Episodes, k: int = BAD) -> None:
    wave = 0.03 * np.sin(2 * np.pi * 6 * np.arange(STEPS + LAG) / 20)[:, None]
    e[k]["joint_pos"] += wave[:STEPS].astype(np.float32)
    e[k]["action"][:, :3] += wave[LAG:]


def follow_late(e: Episodes, k: int = BAD) -> None:
    e[k] = episode(k, lag=5)


def lead(e: Episodes, k: int = BAD) -> None:
    e[k] = episode(k, lag=-2)


def miscalibrate(e: Episodes, k: int = BAD) -> None:
    e[k]["joint_pos"][:, 1] += 0.4


def copy_episode(e: Episodes, k: int = BAD) -> None:
    e[k] = {key: value.copy() for key, value in e[2].items()}
    e[k]["facts"] = {**e[k]["facts"], "uuid": "another"}


def same_uuid(e: Episodes, k: int = BAD) -> None:
    e[k]["facts"]["uuid"] = e[2]["facts"]["uuid"]


def break_off(e: Episodes, k: int = BAD) -> None:
    e[k]["facts"] |= {"label": "", "reason": "stopped: disk full"}


def partial(e: Episodes, k: int = BAD) -> None:
    e[k]["facts"]["label"] = "partial"


def forget_label(e: Episodes, k: int = BAD) -> None:
    e[k]["facts"]["label"] = ""


def come_late(e: Episodes, k: int = BAD) -> None:
    e[k]["flags"][[20, 40]] |= int(Flag.LATE)


def stumble(e: Episodes, k: int = BAD) -> None:
    e[k]["late_ms"][40:44] = 12


def shorten(e: Episodes, k: int = BAD) -> None:
    e[k] |= {key: value[:8] for key, value in e[k].items() if key != "facts"}


FAULTS = [
    (slow_clock, "rate", None, "t_monotonic runs at 18.2 Hz, the set says 20 Hz"),
    (gap, "gap", (60, 60), "t_monotonic jumps by 0.35 s (period 0.05 s), first at row 60, 1 in all"),
    (clock_stands, "backwards", (50, 50), "t_monotonic does not rise at row 50"),
    (device_clock_turns_back, "backwards", (50, 50), "t_dev_front does not rise at row 50"),
    (wall_clock_set, "clock_step", (40, 40), "t_wall moves by -1.95 s at row 40"),
    (repeat_frames, "repeated", (20, 80), "front, 4.0% of the frames"),
    (camera_clock_stands, "repeated", (20, 80), "front, 4.0% of the frames"),
    (blacken, "black", (7, 8), "front, 2 frames, first at row 7"),
    (freeze, "frozen", (30, 41), "front, rows 30 to 41 are one picture while the body moves"),
    (stale_arm, "stale", (32, 34), "arm was up to 203 ms old in 3 engaged steps"),
    (stale_by_bit, "stale", (30, 32), "the body marked an input as stale in 3 engaged steps"),
    (clamp, "saturated", None, "the limits changed the action in 40% of the steps"),
    (joint_at_limit, "joint_limit", None, "joint_pos[j1] is 0.0"),
    (gripper_stands, "gripper", None, "the gripper never moved"),
    (wait_at_the_start, "idle", None, "nothing moves in rows 0 to 3"),
    (wait_at_the_end, "idle", None, "nothing moves after row 70: trim rows 71 to 99"),
    (not_a_number, "nan", (40, 40), "force row 40, 1 rows in all"),
    (far_off, "outlier", (40, 40), "force[1] is 1e+06 in row 40"),
    (tremble, "jerky", None, ""),
    (follow_late, "lag", None, "the body follows the action after 2"),
    (lead, "lag", None, "the state leads the action by 1"),
    (miscalibrate, "offset", None, "action[1] is -0.4 off j1 of joint_pos all along"),
    (copy_episode, "duplicate", None, "the same as episode 2"),
    (same_uuid, "duplicate", None, "the uuid of episode 2"),
    (break_off, "partial", None, "ended by stopped: disk full"),
    (partial, "partial", None, "labelled as partial"),
    (forget_label, "unlabelled", None, "no label, the set has labels"),
    (come_late, "late", (20, 40), "2.0% of the ticks"),
    (stumble, "late", (40, 40), "0.0% of the ticks"),
    (saturate, "saturated", (30, 69), "action[0] at its maximum"),
    (shorten, "short", None, "8 steps (median 100)"),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Returns the report on a set in which episode 3 + k has fault k; the first three are sound."""

    def damage(e: Episodes) -> None:
        for k, (fault, *_) in enumerate(FAULTS):
            fault(e, 3 + k)

    return check(build(tmp_path_factory.mktemp("damaged") / "a.zarr", damage, n=len(FAULTS) + 10))


@pytest.mark.parametrize("k", range(len(FAULTS)), ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_planted_fault_is_found_in_its_episode_and_at_its_rows_and_nothing_else_is(damaged: Report, k: int) -> None:
    _, code, rows, text = FAULTS[k]
    card = damaged.cards[3 + k]
    assert {mark.code for mark in card.marks} == {code}, card.flags
    assert any(mark.text.startswith(text) for mark in card.marks), card.flags
    if rows is not None:
        assert any(mark.rows == rows for mark in card.marks), card.marks
    assert card.grade == ("D" if code in ERRORS else "B")


def test_the_sound_episodes_of_a_damaged_set_have_no_flag(damaged: Report) -> None:
    assert damaged.whole == [] and damaged.grade == "D"
    assert set(damaged.episodes) == set(range(3, 3 + len(FAULTS)))
    assert damaged.worst(1)[0].grade == "D" and len(damaged.worst(100)) == len(FAULTS)


@pytest.mark.parametrize(
    ("fault", "code"), [(miscalibrate, "offset"), (saturate, "saturated"), (tremble, "jerky"), (far_off, "outlier")]
)
def test_a_fault_is_found_among_few_episodes_too(tmp_path: Path, fault: Callable, code: str) -> None:
    report = check(build(tmp_path / "a.zarr", fault))
    assert report.whole == [] and {k: {flag.split(":")[0] for flag in flags} for k, flags in report.episodes.items()} == {
        BAD: {code}
    }


@pytest.mark.parametrize("seed", range(1, 3))
def test_sound_recordings_have_no_flag_and_grade_a(tmp_path: Path, seed: int) -> None:
    report = check(build(tmp_path / "a.zarr", seed=seed))
    assert report.episodes == {} and report.whole == [] and report.grade == "A"
    assert all(card.grade == "A" for card in report.cards)


def test_every_code_of_the_documentation_is_planted_here_or_below() -> None:
    planted = {code for _, code, *_ in FAULTS}
    below = {"length", "corrupt", "lost", "empty", "constant", "float_images", "sparse", "unfinished", "replay"}
    assert planted | below == set(CODES)


def test_a_sound_set_of_another_program_without_clocks_says_what_it_did_not_check(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", lengths=(30, 31, 32))
    report = check(EpisodeSet.open(tmp_path / "a.zarr"))
    assert report.episodes == {} and report.whole == []
    assert [note.split(":")[0] for note in report.notes] == ["joint limits", "rate and gaps", "label"]
    assert "no limits known" in report.notes[0]


def test_a_still_scene_is_not_frozen_and_a_held_pose_is_not_saturated(tmp_path: Path) -> None:
    def hold_the_highest_pose(e: Episodes) -> None:
        k = int(np.argmax([rows["action"][:, 0].max() for rows in e]))
        row = int(np.argmax(e[k]["action"][:, 0]))
        e[k - 1] = episode(k, at=np.concatenate([np.arange(row), np.full(30, row), np.arange(row, STEPS)])[:STEPS])
        e[k - 1]["front"][row + LAG + 2 : row + 28] = e[k - 1]["front"][row]

    made = build(tmp_path / "a.zarr", hold_the_highest_pose)
    assert not {"frozen", "saturated", "repeated"} & set(check(made).codes())


def test_a_number_that_bursts_in_many_episodes_is_no_outlier(tmp_path: Path) -> None:
    def knock(e: Episodes) -> None:
        for rows in e[3:]:
            rows["force"][50] = 500

    assert check(build(tmp_path / "a.zarr", knock)).episodes == {}


def test_declared_limits_of_the_action_come_before_the_sets_own_extremes(tmp_path: Path) -> None:
    def press(e: Episodes) -> None:
        for row in range(20, 80, 2):
            e[BAD]["action"][row, 1] = 2.5

    made = build(tmp_path / "a.zarr", press, meta={"action_limits": [[-2.5, 2.5]] * 3 + [[-9, 9]]})
    flags = [flag for flag in check(made).episodes[BAD] if flag.startswith("saturated")]
    assert flags == ["saturated: action[1] at its maximum 2.5 in 30% of the steps"]


def test_an_input_may_be_old_while_nobody_is_engaged(tmp_path: Path) -> None:
    def rest(e: Episodes) -> None:
        stale_arm(e)
        e[BAD]["flags"][28:40] = int(Flag.DISENGAGED)

    assert check(build(tmp_path / "a.zarr", rest)).episodes == {}


def test_a_device_clock_with_another_zero_tells_how_much_older_a_value_became(tmp_path: Path) -> None:
    def shift(e: Episodes) -> None:
        stale_arm(e)
        for rows in e:
            rows["t_dev_arm"] -= 5 * 10**11

    assert [flag.split(" in ")[0] for flag in check(build(tmp_path / "a.zarr", shift)).episodes[BAD]] == [
        "stale: arm was up to 200 ms old"
    ]


def test_a_simulator_that_runs_fast_is_not_at_the_wrong_rate(tmp_path: Path) -> None:
    spec = Spec({"state": ArraySpec((2,))}, ArraySpec((2,)), 10.0)
    clock = ArraySpec((), "int64", unit="ns")
    made = EpisodeSet.create(
        tmp_path / "a.zarr", spec, task="toy", env={}, extra={"t_monotonic": clock, "t_sim": clock}, durable=False
    )
    rng, steps = np.random.default_rng(0), np.arange(40)
    for sim_step in (10**8, 10**8, 2 * 10**8):
        rows = {key: rng.normal(size=(40, 2)).astype(np.float32) for key in ("state", "action")}
        made.append({**rows, "t_monotonic": 10**12 + steps * 10**6, "t_sim": steps * sim_step})
    assert check(made).episodes == {2: ["rate: t_sim runs at 5 Hz, the set says 10 Hz"]}


@pytest.mark.parametrize("unit", [1e-3, 1e-6, 1e-9])
def test_the_unit_of_integer_stamps_is_found(tmp_path: Path, unit: float) -> None:
    spec = Spec({"state": ArraySpec((2,)), "timestamp": ArraySpec((1,), "int64")}, ArraySpec((2,)), 10.0)
    made = EpisodeSet.create(tmp_path / "a.zarr", spec, task="toy", env={}, durable=False)
    rng = np.random.default_rng(0)
    rows = {key: rng.normal(size=(40, 2)).astype(np.float32) for key in ("state", "action")}
    made.append({**rows, "timestamp": np.arange(40)[:, None] * round(0.1 / unit)})
    report = check(made)
    assert report.episodes == {} and report.cards[0].numbers["rate_hz"] == pytest.approx(10)


def test_a_miscalibration_that_most_episodes_share_is_a_flag_of_the_set(tmp_path: Path) -> None:
    def all_off(e: Episodes) -> None:
        for rows in e:
            rows["joint_pos"][:, 1] += 0.4

    report = check(build(tmp_path / "a.zarr", all_off))
    assert report.whole == ["offset: action[1] is -0.4 off j1 in 9 of 9 episodes"] and report.grade == "B"


def test_an_element_that_never_changes_is_named(tmp_path: Path) -> None:
    def still(e: Episodes) -> None:
        for rows in e:
            rows["force"][:, 1] = 0.5

    report = check(build(tmp_path / "a.zarr", still))
    assert report.episodes == {} and report.whole == ["constant: force[1] never changes"] and report.grade == "A"


def test_broken_and_lost_chunks_are_errors_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/state/c.0.0").write_bytes(b"rubbish")
    (tmp_path / "a.zarr/data/img/c.0.0.0.0").unlink()
    report = check(EpisodeSet.open(tmp_path / "a.zarr"), Limits(min_steps=8))
    assert any(flag.startswith("corrupt: state: chunk 0") for flag in report.whole)
    assert any(flag.startswith("lost: img: 1 chunk") for flag in report.whole)
    assert report.n_errors >= 2 and report.grade == "D"
    assert "short: 7 steps (median 12)" in report.episodes[2]


def test_arrays_of_different_lengths_in_a_foreign_buffer_are_an_error(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    for name, rows in (("data/action", 20), ("data/state", 25), ("meta/episode_ends", 1)):
        group.create_array(name, data=np.full((rows, 2) if "data" in name else (rows,), 20, np.int64))
    report = check(EpisodeSet.open(tmp_path / "a.zarr"))
    assert "length: state has 25 rows, the episodes have 20" in report.whole and report.n_errors == 1


def test_float_images_are_a_remark_and_values_that_are_no_image_an_error(tmp_path: Path) -> None:
    spec = Spec({"img": ArraySpec((8, 8, 3), "float32")}, ArraySpec((2,)), 10.0)
    rng = np.random.default_rng(0)
    for name, top, codes in (
        ("a", 1.0, {"float_images"}),
        ("b", 255.0, {"float_images"}),
        ("c", 700.0, {"float_images", "corrupt"}),
    ):
        made = EpisodeSet.create(tmp_path / f"{name}.zarr", spec, task="toy", env={}, durable=False)
        images = rng.uniform(0.3, 1, (20, 8, 8, 3)) * top
        made.append({"img": images.astype(np.float32), "action": rng.normal(size=(20, 2)).astype(np.float32)})
        assert set(check(made).codes()) == codes


def test_an_empty_set_and_rows_of_a_broken_append_are_named(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr", lengths=())
    assert "empty: no episode" in check(made).whole
    made = make(tmp_path / "b.zarr", lengths=(30, 30))
    made.array("action").resize((70, 2))
    assert check(EpisodeSet.open(tmp_path / "b.zarr")).whole == [
        "unfinished: 10 rows after the last episode (an append that was cut off)"
    ]


def test_two_processes_give_the_report_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robolearn.data.check._BLOCK_ROWS", 250)
    made = build(tmp_path / "a.zarr", freeze, n=8)
    assert check(made, workers=2).to_json() == check(made).to_json()


def test_how_the_set_is_cut_into_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(tmp_path / "a.zarr", repeat_frames, shard_rows=16)
    whole = check(made).to_json()
    monkeypatch.setattr("robolearn.data.check._BLOCK_ROWS", 1)
    monkeypatch.setattr("robolearn.data._check_images._BLOCK_BYTES", 16 * 768)
    monkeypatch.setattr("robolearn.data._check_extent._BLOCK_BYTES", 4096)
    cut = check(made).to_json()
    assert [row["flag_rows"] for row in cut["episodes"]] == [row["flag_rows"] for row in whole["episodes"]]


@pytest.mark.parametrize("fault", [freeze, tremble])
def test_one_episode_checked_alone_has_the_flags_it_has_in_the_report(tmp_path: Path, fault: Callable) -> None:
    made = build(tmp_path / "a.zarr", fault)
    report, context = check(made), context_of(made)
    for index in (0, BAD):
        assert check_episode(made, index, context).flags == report.cards[index].flags
    speed = motion_of(made, BAD, context)
    assert speed.shape == (STEPS,) and speed[0] == 0 and (speed[1:] > 0).any()


def test_limits_are_moved_by_the_caller(tmp_path: Path) -> None:
    made = build(tmp_path / "a.zarr", gap)
    assert check(made, Limits(gap_periods=8.0)).episodes == {}
    assert len(check(made, Limits(stale_ms=5.0)).episodes) == len(made.episode_ends)


def test_the_joints_of_a_recorded_simulator_state_are_held_against_the_limits_of_its_model(tmp_path: Path) -> None:
    joints = "".join(f'<body><joint name="robot0_joint{k}" range="-1 1"/><geom size="1"/>' for k in (1, 2)) + "</body></body>"
    model = f'<mujoco><compiler angle="radian" autolimits="true"/><worldbody>{joints}</worldbody></mujoco>'
    spec = Spec({}, ArraySpec((2,)), 20.0)
    extra = {"sim_state": ArraySpec((5,), "float64")}
    made = EpisodeSet.create(tmp_path / "a.zarr", spec, task="toy", env={}, extra=extra, durable=False)
    for k in range(3):
        rows = episode(k)
        state = np.concatenate([np.arange(STEPS)[:, None] / 20, rows["joint_pos"][:, :2] * 0.3, np.zeros((STEPS, 2))], axis=1)
        state[50:60, 1] = 0.99 if k == 1 else 0.5
        made.append({"sim_state": state, "action": rows["action"][:, :2]}, model_xml=model)
    report = check(made)
    assert report.episodes == {1: ["joint_limit: sim_state[robot0_joint1] is 0.01 rad from its limit, in 10 steps"]}
    assert set(report.cards[0].series) == {"sim_state[robot0_joint1]", "sim_state[robot0_joint2]"}


def test_real_human_data_have_no_flag(root: Path) -> None:
    assert check(EpisodeSet.open(root / "tests/fixtures/schema1_pusht.zarr")).codes() == []
