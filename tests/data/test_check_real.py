"""On real human demonstrations the check is silent, and a fault planted in one of them is found there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robolearn.core import ArraySpec, Spec
from robolearn.data.check import check
from robolearn.data.store import EpisodeSet

VECTORS = {"state": ArraySpec((5,)), "action": ArraySpec((2,))}
IMAGE = ArraySpec((96, 96, 3), "uint8")
_FILMED = 12  # episodes with pictures: enough to be sure, few enough to be quick


@pytest.fixture(scope="module")
def pusht(shared: Path) -> EpisodeSet:
    return EpisodeSet.open(shared / "data" / "pusht_zarr" / "pusht_cchi_v7_replay.zarr")


def rebuilt(path: Path, source: EpisodeSet, rows: dict[str, np.ndarray]) -> EpisodeSet:
    """Returns a set with these rows, cut into the episodes of `source` as far as they reach."""
    obs = {"state": VECTORS["state"]} | ({"img": IMAGE} if "img" in rows else {})
    made = EpisodeSet.create(path, Spec(obs, VECTORS["action"], 10.0), task="pusht", env={}, durable=False)
    ends = source.episode_ends[source.episode_ends <= len(rows["action"])]
    made.extend(ends, ((key, 0, values[: ends[-1]]) for key, values in rows.items()))
    return made


def late(action: np.ndarray, state: np.ndarray) -> None:
    action[:-3] = action[3:].copy()


def leading(action: np.ndarray, state: np.ndarray) -> None:
    action[4:] = action[:-4].copy()


def displaced(action: np.ndarray, state: np.ndarray) -> None:
    state[:, 0] += 40


def trembling(action: np.ndarray, state: np.ndarray) -> None:
    state[:, 0] += 12 * np.sin(2.5 * np.arange(len(state)))


def noisy(action: np.ndarray, state: np.ndarray) -> None:
    state[:, :2] += np.random.default_rng(0).normal(0, 8, (len(state), 2))


def clipped(action: np.ndarray, state: np.ndarray) -> None:
    action[20:70, 1] = 511


def waiting(action: np.ndarray, state: np.ndarray) -> None:
    action[:15], state[:15] = action[15], state[15]


def broken(action: np.ndarray, state: np.ndarray) -> None:
    state[:, 4] = 1e5


PLANTED: dict[int, tuple[Callable[[np.ndarray, np.ndarray], None], str]] = {
    20: (late, "lag: the body follows the action after 503 ms, elsewhere 210 ms"),
    25: (leading, "lag: the state leads the action by"),
    30: (displaced, "offset: action[0] is -40.2 off state[0] of state all along"),
    40: (trembling, "jerky: jerk of state[0] is"),
    45: (noisy, "jerky: jerk of state["),
    50: (clipped, "saturated: action[1] at its maximum 511"),
    80: (waiting, "idle: nothing moves in rows 0 to 14: trim them"),
    110: (broken, "outlier: state[4] is 1e+05 in row 0"),
}


def test_206_human_episodes_have_no_flag_and_eight_planted_faults_are_found_where_they_are(
    pusht: EpisodeSet, tmp_path: Path
) -> None:
    rows = {key: pusht.read(key) for key in VECTORS}
    sound = check(rebuilt(tmp_path / "sound.zarr", pusht, rows))
    assert sound.codes() == [] and sound.grade == "A" and len(sound.cards) == 206
    assert 180 < sound.medians["lag_ms"] < 240
    for episode, (fault, _) in PLANTED.items():
        span = slice(*pusht.span(episode))
        fault(rows["action"][span], rows["state"][span])
    report = check(rebuilt(tmp_path / "planted.zarr", pusht, rows))
    assert report.whole == [] and set(report.episodes) == set(PLANTED), report.episodes
    for episode, (_, text) in PLANTED.items():
        assert len(report.cards[episode].marks) == 1 and report.cards[episode].flags[0].startswith(text), report.episodes


def test_pictures_of_people_at_work_are_neither_black_nor_frozen_and_planted_faults_are_found(
    pusht: EpisodeSet, tmp_path: Path
) -> None:
    stop = int(pusht.episode_ends[_FILMED - 1])
    rows = {key: pusht.read(key, 0, stop) for key in ("state", "action", "img")}
    rows["img"] = rows["img"].astype(np.uint8)
    assert check(rebuilt(tmp_path / "sound.zarr", pusht, rows)).codes() == []
    first = int(pusht.span(3)[0])
    rows["img"][first + 31 : first + 38] = rows["img"][first + 30]
    first = int(pusht.span(7)[0])
    rows["img"][first + 40 : first + 44] //= 80
    report = check(rebuilt(tmp_path / "planted.zarr", pusht, rows))
    assert report.episodes == {
        3: ["frozen: img, rows 30 to 37 are one picture while the body moves"],
        7: ["black: img, 4 frames, first at row 40"],
    }
