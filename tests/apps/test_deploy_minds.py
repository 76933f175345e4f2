"""What `deploy` is driven and watched by besides a run folder of this process: a server's policy, and a calibrated monitor."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _deploy_mind as minds
from robolearn.apps import _evaluate
from robolearn.cli import main
from robolearn.core import Spec
from robolearn.data.stats import Stats
from robolearn.errors import BadInput, CheckpointError
from robolearn.monitors import _folder
from robolearn.monitors._base import Episode, Layout, Plans
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import Recipe
from robolearn.runtime.runs import open_run
from robolearn.runtime.serve.server import Server
from tests.apps.deploys import patient  # noqa: F401
from tests.apps.runs import untrained_for
from tests.apps.wavers import HOME, SPEC

PLANS = 4  # of an episode of calibration; a later one is later than all of them


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for the virtual arm, with a clock calibrated on it that alarms at its sixth plan or so."""
    here = lambda middle, width: Stats(min=middle - width, max=middle + width, mean=middle, std=width, count=10)  # noqa: E731
    stats = {"joint_pos": here(HOME, np.full(7, 0.3)), "gripper": here(np.full(1, 0.04), np.full(1, 0.04))}
    stats["action"] = here(np.append(HOME, 0.0), np.append(np.full(7, 0.02), 1.0))
    run = untrained_for(tmp_path_factory.mktemp("runs") / "waver", SPEC, stats)
    subject = _evaluate.find(str(run), "last")
    assert subject.checkpoint is not None
    spec = Spec.from_json(json.loads((subject.checkpoint / "spec.json").read_text()))
    layout = Layout.of(spec, horizon=15, n_past=1)
    width = spec.action.shape[0]

    def rollout(seed: int) -> Episode:
        past = np.zeros((PLANS, 2, 1, width), np.float32)
        plans = Plans(np.arange(PLANS) * spec.execute, np.zeros((PLANS, 3)), np.zeros((PLANS, 2, 15, width)), past, past[:, 0])
        return Episode(plans, True, PLANS * spec.execute, seed)

    recipe = Recipe(("clock",), draws=2, windows=(1,), bands=("constant",), alpha=0.2)
    detector = fit(recipe, layout, [rollout(k) for k in range(30)])
    _folder.save(run / "monitors" / "clock", detector, {"weights_sha256": subject.weights_sha256, "task": ""})
    return run


@pytest.mark.usefixtures("patient")
def test_an_alarm_of_the_policys_monitor_halts_the_arm_and_is_in_the_run_log(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--plain", "--seconds", "6", "--consumer", "sync", "--monitor", "clock", "--out", str(out)]
    assert main(["deploy", str(run), "--robot", "virtual_panda", *flags]) == 3
    assert "alarm:clock" in capsys.readouterr().err
    assert any(
        "clock" in json.dumps(line) for line in open_run(out).events if line["event"] == "mode" and line["target"] == "hold"
    )


def test_a_monitor_of_other_weights_and_of_other_sampling_is_refused(run: Path) -> None:
    detector, _ = _folder.load(run / "monitors" / "clock")
    _folder.save(run / "monitors" / "other", detector, {"weights_sha256": "0" * 64, "task": ""})
    with pytest.raises(CheckpointError, match="was calibrated on a policy with other weights"):
        minds.watch_of(minds.local(run, "last", "cpu", {}), "other")
    with pytest.raises(BadInput, match="--steps changes the plans that monitor 'clock' was calibrated on"):
        minds.watch_of(minds.local(run, "last", "cpu", {"steps": 3}), "clock")


@pytest.mark.usefixtures("patient")
def test_a_policy_of_a_server_drives_the_arm_as_one_of_this_process_does(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("websockets")
    told, over, up = tmp_path / "served.json", threading.Event(), threading.Event()

    def wait(server: Server) -> None:
        up.set()
        over.wait(60)

    monkeypatch.setattr(Server, "wait", wait)
    serving = threading.Thread(
        target=main, args=(["serve", str(run), "--port", "0", "--device", "cpu", "--json", str(told)],), daemon=True
    )
    serving.start()
    try:
        assert up.wait(60)
        address, out = json.loads(told.read_text())["address"], tmp_path / "out"
        flags = ["--policy", address, "--robot", "virtual_panda", "--plain", "--seconds", "1", "--consumer", "sync"]
        assert main(["deploy", str(told), *flags, "--out", str(out), "--json", str(tmp_path / "said.json")]) == 0
    finally:
        over.set()
        serving.join(30)
    said = json.loads((tmp_path / "said.json").read_text())
    assert [episode["steps"] for episode in said["episodes"]] == [20]
    assert open_run(out).about["policy"]["address"] == address
