"""`robolearn record` in real time: puts body, driver, recorder, keys and screen of a session together."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np
import yaml

from hardware._base import Device, device_names, make_device
from hardware.devices._tty import SESSION_KEYS, Keys
from robolearn.apps import _ghost
from robolearn.apps._live import Lasting, Paced
from robolearn.apps._report import write_json
from robolearn.apps._session import Ears, Rules, Session
from robolearn.apps._session_screen import Screen
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.apps._watch import Scene, Watch, mujoco_scene, second_body_scene
from robolearn.core import Env, Policy, SimEnv
from robolearn.data._codec import Codec
from robolearn.data.journal import Journal, folder_of
from robolearn.data.recorder import EpisodeWriter, Recording
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError, Findings, UnknownName
from sim_envs import _base

SCRIPTED = ("expert", "operator")


@dataclass(frozen=True)
class Driver:
    """Who drives. mind: seed -> policy; words: what its device says between episodes; keys: whether the terminal's are free.

    invitation: where to go with a device that is reached over the network.
    """

    mind: Callable[[int], Policy]
    words: Callable[[], Sequence[str]] = tuple
    keys: bool = True
    invitation: str = ""


def run(cfg: Any) -> int:
    """Records a session and prints what came of it."""
    device = device_of(cfg)
    env = env_of(cfg, device)
    _base.configure(cfg.task, env)
    auto = cfg.start == "auto" or (cfg.start == "" and cfg.driver in SCRIPTED)
    facts = {"task": cfg.task, "env": env, "device": f"scripted {cfg.driver}" if device is None else cfg.driver}
    facts["operator"] = cfg.person or (cfg.driver if device is None else "")
    with ExitStack() as stack:
        sim = stack.enter_context(closing(_base.make(cfg.task, env)))
        max_steps = cfg.max_steps or sim.config.max_steps  # type: ignore[attr-defined]
        rules = Rules(
            cfg.episodes, max_steps, cfg.seed, FIRST_TEST_SEED, auto, "expert" if cfg.driver == "expert" else "operator"
        )
        ghost = _ghost.first_picture(cfg.ghost) if cfg.ghost is not None else None
        driver = driver_of(cfg, sim, device, stack)
        clear(cfg, env)  # only now: where a device is not there, nothing is written and nothing replaced
        recorder = stack.enter_context(EpisodeWriter(cfg.out, facts, Recording(codec=Codec(cfg.codec)), state=sim.state))
        keys = stack.enter_context(Keys()).read if driver.keys and sys.stdin.isatty() else list
        ears = Ears(lambda: [SESSION_KEYS[key] for key in keys() if key in SESSION_KEYS], driver.words)
        paced: Env = Paced(sim if cfg.auto_stop == 1 else Lasting(sim, cfg.auto_stop))
        session = Session(paced, driver.mind, recorder, rules, ears)
        screen = show(cfg, env, session, ghost, stack, sim)
        if driver.invitation:
            screen.announce(driver.invitation)
        session.run()
    return report(cfg, session)


def show(cfg: Any, env: Mapping[str, Any], session: Session, ghost: np.ndarray | None, stack: ExitStack, sim: SimEnv) -> Screen:
    """Opens the page in the browser and the ghost, where they are wanted, and returns the screen."""
    screen = stack.enter_context(Screen(lambda: session.board, f"record {cfg.task}", sim.spec.hz, cfg.plain, cfg.beep))
    session.tell = screen.tell
    if cfg.watch:
        view = Watch(scene_of(cfg.task, env, sim, ghost))
        stack.callback(view.close)
        session.views = (view,)
        screen.announce(f"the scene: {view.address}")
    elif ghost is not None:
        where = cfg.out.with_name(cfg.out.name.removesuffix(".zarr") + ".ghost.png")
        sim.reset(cfg.seed + session.recorder.journal.next_id())
        _ghost.write_png(where, _ghost.blend(sim.render(), ghost))
        screen.announce(f"the next scene under the first picture of {cfg.ghost}: {where}")
    return screen


def scene_of(task: str, env: Mapping[str, Any], sim: SimEnv, ghost: np.ndarray | None = None) -> Scene:
    """Returns how a page in the browser draws a simulated body, under a ghost (height, width, 3) uint8 if there is one."""
    if isinstance(getattr(sim, "model", None), mujoco.MjModel):
        scene = mujoco_scene(sim)
    else:
        scene = second_body_scene(sim, lambda: _base.make(task, _base.with_cameras(env, ())))
    return scene if ghost is None else replace(scene, draw=lambda state: _ghost.blend(scene.draw(state), ghost))


def device_of(cfg: Any) -> Device | None:
    """Returns the device that drives, not connected yet; None where a script does."""
    if cfg.driver in SCRIPTED:
        if cfg.device_set:
            raise BadInput(f"--device-set is for devices, and {cfg.driver} is none; give --driver a device's name")
        return None
    if cfg.driver not in device_names():
        raise UnknownName("driver", cfg.driver, [*SCRIPTED, *device_names()])
    fields = dict(item.partition("=")[::2] for item in cfg.device_set)
    return make_device(cfg.driver, {name: yaml.safe_load(value) for name, value in fields.items()})


def env_of(cfg: Any, device: Device | None) -> dict[str, Any]:
    """Returns what makes the body: joint angles where the driver shows an arm and the task has a choice that was not made."""
    wants_joints = cfg.driver == "operator" if device is None else device.kind != "delta"
    has_choice = "action" in _base.module(cfg.task).Config.__dataclass_fields__
    return dict(cfg.env) | ({"action": "joint_abs"} if wants_joints and has_choice and not cfg.action else {})


def driver_of(cfg: Any, sim: SimEnv, device: Device | None, stack: ExitStack) -> Driver:
    """Returns who drives; a device is connected, and let go when the stack unwinds."""
    if cfg.driver == "expert":
        return Driver(lambda seed: _base.expert(sim, seed))
    if device is None:
        from robolearn.apps._operator import lesson

        lesson(cfg.task)  # a task that the person cannot do, or a demonstration that is not there, is said here
        return Driver(lambda seed: operator(sim, cfg.task, seed))
    from robolearn.apps import _cockpit

    _cockpit.may_drive(device, cfg.driver, sim)
    stack.callback(device.close)
    device.connect()
    pilot = _cockpit.pilot(sim, device, noisy=cfg.driver == "camera")

    def words() -> list[str]:
        return [event for sample in device.read() for event in sample.events]

    return Driver(lambda seed: pilot, words, cfg.driver != "keyboard", getattr(device, "invitation", ""))


def operator(sim: SimEnv, task: str, seed: int) -> Policy:
    """Returns the model of a person at the scene of `seed`, which has to lie there before a pilot can be wired."""
    from robolearn.apps._operator import operator_device, pilot_of

    sim.reset(seed)
    return pilot_of(sim, operator_device(sim, seed, task))


def clear(cfg: Any, env: Mapping[str, Any]) -> None:
    """Makes way for the recording; AlreadyExists without --resume or --overwrite, DatasetError for another body's set."""
    journal = folder_of(cfg.out)
    if cfg.overwrite:
        for old in (cfg.out, journal):
            shutil.rmtree(old, ignore_errors=True)
        return
    if not cfg.resume:
        if cfg.out.exists() or journal.exists():
            raise AlreadyExists(cfg.out if cfg.out.exists() else journal, "recording", resume=True)
        return
    for k in Journal(journal).ids()[-1:] if journal.exists() else ():
        before = Journal(journal).episode(k).attrs
        for name, value in (("task", cfg.task), ("env", dict(env))):
            if before.get(name) != value:
                raise DatasetError(f"{cfg.out}: was recorded with {name} {before.get(name)}, not {value}; give the same flags")


def report(cfg: Any, session: Session) -> int:
    """Prints what came of the session and writes it to --json; Findings where nothing is kept."""
    figures, journal = session.figures(), folder_of(cfg.out)
    if not figures["kept"]:
        raise Findings(f"{cfg.out}: no episode was kept; journal: {journal}")
    done = EpisodeSet.open(cfg.out)
    print(f"{cfg.out}: {done.n_episodes} episodes, {done.n_steps} steps; journal: {journal}")
    known = {"task": cfg.task, "driver": cfg.driver, "episodes": figures["begun"], "successes": figures["successes"]}
    write_json(cfg.json, {**known, "steps": done.n_steps, "session": figures}, cfg.seed)
    return 0
