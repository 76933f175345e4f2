"""`robolearn deploy` on a virtual arm in a process of its own: check list, run log, people, and what happens when parts end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps._deploy_rig import fitted
from robolearn.cli import main
from robolearn.core import ArraySpec, Flag, Spec
from robolearn.data.stats import Stats
from robolearn.data.store import EpisodeSet
from robolearn.runtime.runs import episodes
from tests.apps.deploys import FILMED, PANDA, Outing, patient  # noqa: F401
from tests.apps.runs import untrained_for
from tests.apps.wavers import HOME, SPEC


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for the virtual arm, whose actions lie near its home."""
    here = lambda middle, width: Stats(min=middle - width, max=middle + width, mean=middle, std=width, count=10)  # noqa: E731
    stats = {"joint_pos": here(HOME, np.full(7, 0.3)), "gripper": here(np.full(1, 0.04), np.full(1, 0.04))}
    stats["action"] = here(np.append(HOME, 0.0), np.append(np.full(7, 0.02), 1.0))
    return untrained_for(tmp_path_factory.mktemp("runs") / "waver", SPEC, stats)


@pytest.mark.usefixtures("patient")
def test_the_command_checks_moves_keeps_and_converts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, said = tmp_path / "kept", tmp_path / "said.json"
    flags = ["--plain", "--seconds", "0.8", "--episodes", "2", "--consumer", "sync", "--out", str(out), "--json", str(said)]
    assert main(["deploy", str(run), "--robot", "virtual_panda", *flags]) == 0
    printed = capsys.readouterr().out
    assert "limits off     workspace, collision, effort, temperature" in printed and "(EMULATED)" in printed
    figures = json.loads(said.read_text())
    assert [episode["steps"] for episode in figures["episodes"]] == [16, 16]
    assert all(check["ok"] is not False for check in figures["checks"])
    assert main(["data", "convert", str(out), str(tmp_path / "kept.zarr")]) == 2  # no metal moved
    assert "emulated" in capsys.readouterr().err
    assert main(["data", "convert", str(out), str(tmp_path / "kept.zarr"), "--emulated"]) == 0
    kept = EpisodeSet.open(tmp_path / "kept.zarr")
    assert kept.n_episodes == 2 and kept.spec.codec == "joint_abs" and kept.n_steps >= 30


def test_a_dry_run_reads_everything_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware._host.Hosted.command", lambda *args: pytest.fail("a setpoint was sent"))
    monkeypatch.setattr("hardware._host.Hosted.activate", lambda *args: pytest.fail("the motors were switched on"))
    outing = Outing(tmp_path / "a", wishes={"dry": True, "seconds": 0.5})
    assert outing.run().outcomes[0].steps == 10 and outing.log.about["dry_run"]
    (episode,) = episodes(outing.log, emulated=True)
    assert np.ptp(episode.arrays["obs/joint_pos"], axis=0).max() < 1e-6


@pytest.mark.parametrize("robot", ["so101", "ur5e"])
def test_without_hardware_there_is_a_line_for_each_missing_thing(
    run: Path, robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / f"configs/robot/{robot}.yaml").read_text().replace("192.168.0.10", "127.0.0.9")
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["deploy", str(run), "--robot", str(tmp_path / "mine.yaml"), "--dry-run"]) == 1
    printed = capsys.readouterr()
    missing = [line for line in printed.out.splitlines() if line.startswith("MISSING")]
    assert len(missing) >= 2 and any(" arm " in line for line in missing)
    assert "nothing was moved" in printed.err and "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("driver: ur5\n", "unknown robot 'ur5'"),
        ("driver: virtual\nset: {arms: panda}\n", "unknown field 'arms'"),
        ("driver: virtual\nshare: 1.5\n", "share: want a share"),
        ("driver: virtual\nstart: [.nan, 0, 0, 0, 0, 0, 0]\n", "start: want finite joint angles"),
        ("driver: virtual\nlimits: {max_aligns: 2}\n", "unknown field 'max_aligns'; did you mean 'max_align'?"),
        ("driver: virtual\nlimits: {acceleration: 2}\n", "limits: acceleration: want a list"),
        ("driver: virtual\nlimits: {max_align: .nan}\n", "max_align: want a finite number"),
        ("driver: virtual\nkinematics: {model: panda, tip: right_hand, base_m: [.nan, 0, 0]}\n", "base_m: want 3 finite"),
        ("driver: virtual\ntakeover: {driver: gamepad, set: {buttons: 2}}\n", "unknown field 'buttons'"),
        ("driver: virtual\ncameras: {img: {driver: synthetic, wants: strech}}\n", "want crop or stretch"),
        ("driver: virtual\ndeadman: {driver: keyboard}\n", "keyboard sends presses"),
        ("driver: virtual\ncameras: {img: {driver: v4l}}\n", "unknown camera 'v4l'"),
        (
            "driver: virtual\nwithout: [collision, effort, temperature]\nlimits: {planes: [{normal: [0, 0, 1], offset: 0}]}\n",
            "kinematics",
        ),
    ],
)
def test_a_robot_file_that_is_none_is_one_line(
    run: Path, tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert main(["deploy", str(run), "--robot", str(tmp_path / "r.yaml"), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_what_the_policy_reads_and_nothing_shows_is_said_before_anything_moves(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Spec({"object": ArraySpec((9,)), **SPEC.obs}, SPEC.action, 20.0, codec="joint_abs")
    wants = tmp_path / "served.json"
    wants.write_text(json.dumps({"policy": "lift", "spec": spec.to_json()}))
    flags = ["--policy", "ws://127.0.0.1:9", "--robot", "virtual_panda", "--dry-run"]
    assert main(["deploy", str(wants), *flags]) == 1
    assert "nothing shows observation 'object'" in capsys.readouterr().out


def back_at_work(cause: str) -> Callable[[Outing], bool]:
    """Returns whether a cause was there, is gone, and the policy drives again."""
    seen: list[str] = []

    def back(outing: Outing) -> bool:
        machine = outing.machine
        seen.extend(machine.causes)
        return cause in seen and machine.mode == "run"

    return back


def test_the_words_of_a_person_are_kept(tmp_path: Path) -> None:
    said = list[int]()

    def solved(outing: Outing) -> str:
        """The person calls it a success after the pause, once the arm has turned."""
        ticks = outing.deployment.mind.statistics().ticks
        if ticks > 20 and not said and abs(outing.deployment._newest["joint_pos"][0]) > 0.06:
            said.append(ticks)
            return "success"
        return ""

    at = {8: lambda outing: "hold", 16: lambda outing: "resume"}
    outing = Outing(tmp_path / "a", at=at, until=solved, wishes={"seconds": 60.0})
    (outcome,) = outing.run().outcomes
    assert outcome.success and outcome.steps == said[0] + 1
    held_by = [kind for mode, kind in outing.modes() if mode == "hold"]
    assert "" in held_by and outing.modes()[-2:] == [("stopping", ""), ("idle", "")]
    (episode,) = episodes(outing.log, emulated=True)
    assert (episode.arrays["flags"] & Flag.HELD)[10:15].all()
    assert np.ptp(episode.arrays["obs/joint_pos"][:, 0]) > 0.05


def test_a_driver_that_is_killed_ends_the_episode_and_leaves_a_log(tmp_path: Path) -> None:
    def kill(outing: Outing) -> None:
        os.kill(outing.rig.arm.pid, signal.SIGKILL)  # type: ignore[union-attr]

    outing = Outing(tmp_path / "a", at={5: kill})
    (outcome,) = outing.run().outcomes
    assert outcome.reason == "stopped:fault: driver_crash" and outing.whole
    assert outing.modes()[-1] == ("fault", "driver_crash")
    assert list((tmp_path / "a" / "black_box").iterdir())


def test_a_log_that_dies_is_said_and_the_body_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kill(outing: Outing) -> None:
        outing.deployment._log.feed.process.kill()  # type: ignore[union-attr]

    outing = Outing(tmp_path / "a", at={4: kill}, wishes={"seconds": 1.0})
    (outcome,) = outing.run().outcomes
    assert outcome.reason == "horizon" and not outing.whole
    assert capsys.readouterr().out.count("log_dead") == 1


def test_a_planner_that_dies_is_started_once_more(tmp_path: Path) -> None:
    outing = Outing(tmp_path / "a", fields={"ill": 4}, until=back_at_work("policy_crash"), wishes={"seconds": 60.0})
    (outcome,) = outing.run().outcomes
    assert outcome.reason == "stopped:stop" and ("hold", "policy_crash") in outing.modes()


def test_plans_that_are_not_finite_reach_no_motor(tmp_path: Path) -> None:
    nameless = replace(SPEC, action=ArraySpec((8,)))  # no observation says which action stays: the body does
    outing = Outing(tmp_path / "a", spec=nameless, fields={"bad": 4}, wishes={"seconds": 1.5})
    outing.run()
    (episode,) = episodes(outing.log, emulated=True)
    assert np.isfinite(episode.arrays["sent"]).all() and np.isfinite(episode.arrays["asked"]).all()
    assert any(line.get("trigger") == "bad_chunk" for line in outing.log.events)


def test_a_camera_that_is_silent_holds_and_its_next_frame_goes_on(tmp_path: Path) -> None:
    spec = replace(SPEC, obs={**SPEC.obs, "img": ArraySpec((24, 24, 3), "uint8")})

    def stop(outing: Outing) -> None:
        os.kill(outing.rig.cameras["img"].pid, signal.SIGSTOP)

    back = back_at_work("camera_gone")

    def until(outing: Outing) -> bool:
        """Lets the camera go on once it is missed; true once the policy drives again."""
        if "camera_gone" in outing.machine.causes:
            os.kill(outing.rig.cameras["img"].pid, signal.SIGCONT)
        return back(outing)

    robot, wishes = replace(PANDA, cameras=FILMED), {"seconds": 60.0}
    outing = Outing(tmp_path / "a", robot, spec, at={5: stop}, until=until, wishes=wishes)
    (outcome,) = outing.run().outcomes
    assert outcome.reason == "stopped:stop" and any(line.get("kind") == "camera_gone" for line in outing.log.events)


def test_pictures_keep_their_middle_and_their_aspect() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 80:560] = 200
    assert (fitted(image, (96, 96, 3)) == 200).all()
    assert (fitted(image, (96, 96, 3), stretch=True)[:, 0] == 0).all()
    assert fitted(image, (480, 640, 3)) is image or (fitted(image, (480, 640, 3)) == image).all()
