"""What a codec is: between the action space of a policy and the joints of a body, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robolearn import registry
from robolearn.core import ArraySpec
from robolearn.runtime.kinematics import Hand

CODECS = "robolearn.runtime.codecs"


@dataclass(frozen=True)
class Target:
    """What the joints should reach. q: (n,) [rad]; aperture: 0 closed .. 1 open, None leaves the gripper.

    position [m], angle [rad]: by how much the hand would miss the asked pose; 0 where none was asked.
    """

    q: np.ndarray
    aperture: float | None
    position: float = 0.0
    angle: float = 0.0


@runtime_checkable
class Codec(Protocol):
    """One action space of one arm. action: what a policy gives."""

    action: ArraySpec

    def target(self, action: np.ndarray, q: np.ndarray) -> Target:
        """Returns the joint target of an action (action,), with the arm at q (n,) [rad]."""

    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray:
        """Returns the action (action,) that asks for q (n,) [rad] and this aperture, with the arm at `before` (n,)."""


def codec_names() -> tuple[str, ...]:
    """Returns the names of all codecs."""
    return registry.names(CODECS)


def make_codec(name: str, hand: Hand) -> Codec:
    """Returns the codec of an arm; UnknownName with the nearest one."""
    codec: Codec = registry.load(CODECS, name, what="codec").make(hand)
    return codec


def aperture(command: float) -> float | None:
    """Returns the aperture of a gripper command: negative opens, positive closes, 0 leaves it (robosuite's convention)."""
    return None if command == 0 else (1.0 if command < 0 else 0.0)


def gripper_command(aperture: float) -> float:
    """Returns the command -1 (open) .. 1 (closed) of an aperture; 0 where there is none (NaN)."""
    return 0.0 if np.isnan(aperture) else 1.0 - 2.0 * aperture
