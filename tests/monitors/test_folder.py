"""A monitor on disk alarms as it did before, to the bit; whatever was edited, lost or made for another policy is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.errors import AlreadyExists, BadInput, CheckpointError
from robolearn.monitors._detector import Detector
from robolearn.monitors._fit import fit
from robolearn.monitors._folder import FILES, SCHEMA, digest, load, save
from robolearn.monitors._recipe import Recipe

sys.path.insert(0, str(Path(__file__).parent))
from test_fit import LAYOUT, rollout, rollouts, told

SHA = "ab" * 32
FACTS = {"weights_sha256": SHA, "task": "täsk", "seeds": [0, 59], "env": {"max_steps": 20}, "share": 0.1}
OPTIONS: dict[str, dict[str, Any]] = {
    "rnd": {"hidden": (8,), "extra": (8,), "out": 4, "epochs": 2, "learning_rate": 1e-5},
    "knn": {"k": 3, "metric": "cosine"},
}
EVERY = Recipe(("knn", "ace", "past_disagreement", "rnd"), 2, draws=4, windows=(1, 3), alpha=0.2, options=OPTIONS)
PLAIN = Recipe(("variance",), draws=4, windows=(1, 3), alpha=0.2)
KINDS = {
    "every": EVERY,
    "apart": dataclasses.replace(EVERY, scores=("knn", "rnd"), agree=0, joint=False, every=2, alpha=0.5),
    "plain": PLAIN,
}


@cache
def fitted(kind: str, alpha: float = 0.2) -> Detector:
    episodes = rollouts(40, 20, group="near") + rollouts(20, 10, begin=100, group="far")
    return fit(dataclasses.replace(KINDS[kind], alpha=alpha), LAYOUT, episodes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "monitors" / "plain", fitted("plain"), FACTS)
    return tmp_path / "monitors" / "plain"


@pytest.mark.parametrize("kind", KINDS)
def test_a_monitor_comes_back_and_scores_and_alarms_as_before_to_the_bit(tmp_path: Path, kind: str) -> None:
    one = fitted(kind)
    save(tmp_path / "m", one, FACTS)
    other, facts = load(tmp_path / "m", SHA)
    assert told(one) == told(other) and one.notes == other.notes and one.layout == other.layout
    assert one.promised == other.promised == facts["promised_false_alarm_rate"]
    assert {key: facts[key] for key in FACTS} == FACTS
    alarms = []
    for seed in range(200, 230):
        episode = rollout(seed, seed % 2 == 0, ("near", "far", "elsewhere")[seed % 3])
        raw, again = one.raw(episode), other.raw(episode)
        assert all(np.array_equal(raw[name], again[name]) for name in one.recipe.scores)
        assert np.array_equal(one.combine(raw), other.combine(again))
        assert one.alarm(episode) == other.alarm(episode)
        alarms.append(one.alarm(episode))
    assert -1 in alarms and max(alarms) >= 0


def test_a_monitor_saved_twice_and_one_saved_from_what_was_loaded_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "again", load(folder)[0], FACTS)
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in FILES)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert [p.name for p in folder.parent.iterdir()] == ["plain"], "nothing half-written is left"


def test_a_threshold_of_infinity_comes_back(tmp_path: Path) -> None:
    one = fitted("plain", 0.01)
    assert one.thresholds[""] == math.inf and one.notes
    save(tmp_path / "m", one, FACTS)
    other, facts = load(tmp_path / "m")
    assert other.thresholds == one.thresholds and other.notes == one.notes and facts["notes"] == list(one.notes)


@pytest.mark.parametrize("name", FILES)
def test_any_edit_of_a_single_byte_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    header = range(len(content)) if name != FILES[1] else {*range(120), *range(120, len(content), 17)}
    for at in header:
        for changed in {content[at] ^ 1, ord("7")} - {content[at]}:
            (folder / name).write_bytes(content[:at] + bytes([changed]) + content[at + 1 :])
            with pytest.raises(CheckpointError) as caught:
                load(folder)
            assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    (folder / name).write_bytes(content)
    load(folder)


def test_an_edit_that_json_does_not_see_changes_nothing_that_is_read(folder: Path) -> None:
    content, (one, facts) = (folder / FILES[2]).read_bytes(), load(folder)
    edits = {i: b"\n" for i, byte in enumerate(content) if byte == ord(" ")}
    edits |= {content.index(b"u00e4") + 3: b"E"}  # the a in the task's name, spelt otherwise
    for at, byte in edits.items():
        (folder / FILES[2]).write_bytes(content[:at] + byte + content[at + 1 :])
        try:
            other, again = load(folder)
        except CheckpointError:
            continue
        assert again == facts and told(other) == told(one)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_short_long_or_of_another_monitor_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    save(tmp_path / "other", fitted("every"), FACTS)
    other = (tmp_path / "other" / name).read_bytes()
    for changed in (b"", content[:-1], content[: len(content) // 2], content + b"x", other):
        (folder / name).write_bytes(changed)
        with pytest.raises(CheckpointError):
            load(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"plain: '{name}' is missing; want {', '.join(FILES)}$"):
        load(folder)


def test_a_monitor_of_another_policy_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"plain: was calibrated on a policy with other weights; fit a monitor for this one$"
    ):
        load(folder, "cd" * 32)
    save(tmp_path / "unsaid", fitted("plain"), {})
    with pytest.raises(CheckpointError, match="other weights"):
        load(tmp_path / "unsaid", SHA)


def test_a_monitor_that_is_not_there_names_the_nearest(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"plane: no such monitor; did you mean 'plain'\? .*; make one with: monitor fit$"):
        load(folder.with_name("plane"))
    with pytest.raises(CheckpointError, match="no such monitor; make one with"):
        load(folder / "nowhere" / "at all")


def retold(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edits calibration.json as somebody would who knows the digest."""
    values = json.loads((folder / FILES[2]).read_text())
    change(values)
    values["digest"] = digest((folder / FILES[0]).read_bytes(), (folder / FILES[1]).read_bytes(), values)
    (folder / FILES[2]).write_text(json.dumps(values))


@pytest.mark.parametrize("schema", [SCHEMA + 1, 99])
def test_a_newer_schema_is_refused_before_anything_else_is_read(folder: Path, schema: int) -> None:
    retold(folder, lambda values: values.update(schema=schema))
    with pytest.raises(CheckpointError, match=f"plain: schema {schema}, this robolearn reads up to {SCHEMA}; upgrade it$"):
        load(folder)


@pytest.mark.parametrize("schema", ["2", None, [1]])
def test_a_schema_that_is_no_number_is_refused_in_one_line(folder: Path, schema: Any) -> None:
    retold(folder, lambda values: values.update(schema=schema))
    with pytest.raises(CheckpointError):
        load(folder)


@pytest.mark.parametrize("text", ["[]", "3", '"digest"', "null", "{}", '{"digest": 1}', "\xff", "{" * 9])
def test_a_calibration_that_is_no_calibration_is_refused(folder: Path, text: str) -> None:
    (folder / FILES[2]).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="plain: "):
        load(folder)


@pytest.mark.parametrize("key", ["layout", "windows", "apart", "thresholds", "n_calibrate", "notes"])
def test_a_calibration_that_lacks_something_is_refused(folder: Path, key: str) -> None:
    retold(folder, lambda values: values.pop(key))
    with pytest.raises(CheckpointError, match=f"plain: cannot be read as a monitor: '{key}'$"):
        load(folder)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_a_folder_is_ever_unpickled_or_run(folder: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    assert pickle.loads(pickle.dumps(Trap(mark))) is None and mark.exists()
    mark.unlink()
    trap = pickle.dumps(Trap(mark))
    if name == FILES[0]:
        trap = f"scores: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]\n".encode()
    (folder / name).write_bytes(trap)
    if name != FILES[2]:
        retold(folder, lambda values: None)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert not mark.exists() and "\n" not in str(caught.value)


def test_weights_that_hold_nothing_a_score_knows_are_refused(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "knn", fit(dataclasses.replace(PLAIN, scores=("knn",)), LAYOUT, rollouts(30, 10)), FACTS)
    (tmp_path / "knn" / FILES[1]).write_bytes((folder / FILES[1]).read_bytes())
    retold(tmp_path / "knn", lambda values: None)
    with pytest.raises(CheckpointError, match="knn: cannot be read as a monitor: "):
        load(tmp_path / "knn")


def test_a_folder_that_is_there_is_not_overwritten_unless_asked(folder: Path) -> None:
    before = (folder / FILES[2]).read_bytes()
    with pytest.raises(
        AlreadyExists, match=r"plain: this monitor exists already; give --overwrite to replace it, or another path$"
    ):
        save(folder, fitted("every"), FACTS)
    assert (folder / FILES[2]).read_bytes() == before
    save(folder, fitted("every"), FACTS, overwrite=True)
    assert load(folder)[0].recipe.scores == EVERY.scores


def test_a_save_that_fails_leaves_the_monitor_that_was_there(folder: Path) -> None:
    with pytest.raises((TypeError, BadInput)):
        save(folder, fitted("every"), {"seeds": np.arange(3)}, overwrite=True)  # numpy is no JSON
    assert load(folder)[0].recipe.scores == PLAIN.scores


def test_what_is_left_of_a_save_that_was_killed_is_in_nobodys_way(folder: Path, tmp_path: Path) -> None:
    part = folder.with_name(".new.part")
    part.mkdir()
    (part / FILES[0]).write_text("half")
    save(folder.with_name("new"), fitted("plain"), FACTS)
    assert load(folder.with_name("new"))[0].recipe == PLAIN and not part.exists()


@pytest.mark.parametrize("facts", [{"by seed": {2: "a", 10: "b"}}, {"share": math.nan}, {"pair": (1, 2)}])
def test_whatever_facts_are_saved_the_folder_can_be_loaded(tmp_path: Path, facts: dict[str, Any]) -> None:
    save(tmp_path / "m", fitted("plain"), facts)
    told = load(tmp_path / "m")[1]
    (name,) = facts
    plain = json.loads(json.dumps(facts))  # as JSON spells it
    assert json.dumps(told[name], sort_keys=True) == json.dumps(plain[name], sort_keys=True)
