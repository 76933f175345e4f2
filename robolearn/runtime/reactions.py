"""What a body does after an alarm: policies that need no network. numpy only.

They watch the episode from its start, as every policy does, so that they know what was applied when the alarm comes; from then on
the loop takes its plans from here. A person with a device is a reaction too, and a policy already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.errors import BadInput

_OWN = ("agent", "hand", "eef", "joint")  # how bodies begin the names of where they are themselves


class Hold:
    """Stays: the last target of absolute actions again, 0 for displacements (names that begin with d); grips keep theirs."""

    def __init__(self, spec: Spec, here: Callable[[], np.ndarray] | None = None) -> None:
        """spec: of the body, or of the policy that it takes over from.

        here: the action (action,) that stays, asked for while nothing was applied yet; None: it is read from observations.
        """
        self.spec, self._still, self._here = replace(spec, execute=1), _Still(spec), here
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        del seed  # Unused: nothing is drawn.
        self._tick, self._obs = -1, Obs()
        self._last: np.ndarray | None = None

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Takes note of what was applied last (action,)."""
        self._tick, self._obs = self._tick + 1, obs
        if applied is not None:
            self._last = np.array(applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, action) that stays. BadInput where nothing was applied yet and no observation says where to."""
        del ask  # Unused: there is one way to stay.
        last = self._here() if self._last is None and self._here is not None else self._last
        return Chunk(self._still.action(last, self._obs)[None], self._tick)


class Retreat:
    """Goes back the way it came to where the body was `ticks` ago, and stays there; grips keep what they had.

    Absolute targets are taken again in reverse, displacements are undone in reverse by their negatives. One plan holds the whole
    way and a longer stay, and `spec.execute` asks to run all of it: the plan after it finds only the stay to undo, and stays.
    """

    def __init__(self, spec: Spec, ticks: int) -> None:
        """spec: of the body, or of the policy that it takes over from; ticks: how far back."""
        if ticks < 1:
            raise BadInput(f"retreat: want at least 1 tick, got {ticks}")
        self.ticks, self.spec, self._still = ticks, replace(spec, execute=2 * ticks + 1), _Still(spec)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        del seed  # Unused: nothing is drawn.
        self._tick, self._obs = -1, Obs()
        self._applied: deque[np.ndarray] = deque(maxlen=self.ticks + 1)  # the newest first

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Takes note of what was applied last (action,)."""
        self._tick, self._obs = self._tick + 1, obs
        if applied is not None:
            self._applied.appendleft(np.array(applied))

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the way back and the stay (2 ticks + 1, action). BadInput as `Hold.plan`, where there is no way back yet."""
        del ask  # Unused: there is one way back.
        still = self._still.action(self._applied[0] if self._applied else None, self._obs)
        past = np.stack(self._applied or [still]).astype(still.dtype)  # (n, action)
        ticks, oldest = np.arange(2 * self.ticks + 1), len(past) - 1
        targets = past[np.minimum(ticks + 1, min(self.ticks, oldest))]
        undoing = (ticks < min(self.ticks, len(self._applied)))[:, None]
        undone = np.where(undoing, 0 - past[np.minimum(ticks, oldest)], 0)  # 0 - x: no negative zero
        actions = np.where(self._still.moving, undone, np.where(self._still.grips, still, targets))
        return Chunk(actions.astype(still.dtype), self._tick)


class _Still:
    """The action that leaves a body where it is, and which of its numbers are displacements or grips."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self._shown = spec.action, _shown(spec)
        names = [name.rpartition(".")[2] for name in spec.action.names] or [""]
        self.moving = np.array([name.startswith("d") for name in names])
        self.grips = np.array([name.startswith("gripper") for name in names])

    def action(self, last: np.ndarray | None, obs: Obs) -> np.ndarray:
        """Returns the action (action,); before anything was applied, from where the body shows that it is."""
        return np.where(self.moving, 0, self._here(obs) if last is None else last).astype(self.spec.dtype)

    def _here(self, obs: Obs) -> np.ndarray:
        here = np.zeros(self.spec.shape)  # a grip that was told nothing is told 0, which neither opens nor closes
        for i, name in enumerate(self.spec.names or ("action",)):
            if not (self.moving[i] or self.grips[i]):
                if name not in self._shown:
                    raise BadInput(f"hold: nothing was applied yet, and no observation shows where '{name}' is now")
                key, place = self._shown[name]
                here[..., i] = obs[key][place]
        return here


def _shown(spec: Spec) -> dict[str, tuple[str, int]]:
    """Returns which observed number (key, place) an action's number is, by name: x is agent_x, or x of eef_pos; x_1 of eef_pos_1.

    Only what a body shows of itself counts (keys or names that begin so): an object has an x too.
    """
    found: dict[str, tuple[str, int]] = {}
    for key, array in spec.obs.items():
        for place, name in enumerate(array.names if len(array.shape) == 1 else ()):
            of, _, rest = name.partition("_")
            tail = key.rpartition("_")[2]
            aliases = (name, f"{name}_{tail}") if key.partition("_")[0] in _OWN else (rest,) if of in _OWN else ()
            for alias in aliases:
                found.setdefault(alias, (key, place))
    return found
