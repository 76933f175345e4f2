"""What a monitor is made of: which scores, how they are summed over windows and combined, what is promised. One YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from robolearn import config, registry
from robolearn.core import Needs
from robolearn.errors import ConfigError
from robolearn.monitors._base import Layout, Score, ScoreConfig

PACKAGE = "robolearn.monitors"
SHARES = {"learn": 0.4, "shape": 0.2, "calibrate": 0.4}
SMALL: dict[str, dict[str, Any]] = {  # networks that a CPU fits in seconds; those of the papers are the scores' defaults
    "rnd": {"hidden": (128, 256), "extra": (128,), "out": 64, "learning_rate": 1e-3},
    "rnd_actions": {"epochs": 60, "learning_rate": 1e-3},
    "logpzo": {"widths": (64, 128, 256), "time": 64, "epochs": 300, "learning_rate": 1e-3},
    "safe_mlp": {"epochs": 300},
    "safe_lstm": {"hidden": 64, "epochs": 200, "learning_rate": 1e-3},
}
PUBLISHED: dict[str, dict[str, Any]] = {"rnd": {"bits": 8}}  # networks of the papers' sizes, as a plan can be scored live


@dataclass(frozen=True)
class Recipe:
    """A monitor to be fitted. Every field has a default but the scores."""

    scores: tuple[str, ...]
    """Failure scores by name (`ls robolearn/monitors`)."""
    agree: int = 0
    """So many of them must be high at the same plan for an alarm: 1 is OR, 0 is all of them, AND."""
    windows: tuple[int, ...] = (1, 2, 3, 5, 9, 15, 30)
    """Plans over which a score is summed; of several, one is chosen for each score on the shape split."""
    bands: tuple[Literal["constant", "functional"], ...] = ("constant", "functional")
    """Whether high means high at any time, or higher than successes are at that time; of both, one is chosen likewise."""
    alpha: float = 0.1
    """The promised share of good episodes that alarm."""
    draws: int = 32
    """Plans drawn at once where a score needs many; part of the calibration."""
    every: int = 1
    """Score every so-manieth plan only, and draw one plan at the others."""
    patience: int = 0
    """So many more plans must be high, in a row or not, before there is an alarm."""
    joint: bool = True
    """Calibrate the combination as one score, which spends alpha whole; false: every score apart, as published."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of single scores: {ace: {cell: 0.05}}."""

    def __post_init__(self) -> None:
        if not self.scores or len(set(self.scores)) != len(self.scores):
            raise ValueError(f"scores: want at least one and none twice, got {list(self.scores)}")
        if not 0 <= self.agree <= len(self.scores):
            raise ValueError(f"agree: want 0 to {len(self.scores)}, got {self.agree}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha: want a share between 0 and 1, got {self.alpha}")
        if min(self.draws, self.every, *self.windows) < 1 or self.patience < 0 or not self.windows or not self.bands:
            raise ValueError("draws, every, windows: want at least 1; patience: at least 0; bands: at least one")
        if not self.joint and self.needed != len(self.scores):
            raise ValueError("joint: scores calibrated apart keep their promise only where all must agree; want agree 0")
        if strangers := set(self.options) - set(self.scores):
            raise ValueError(f"options: '{min(strangers)}' is none of the scores")

    @property
    def needed(self) -> int:
        """How many scores must be high at once."""
        return self.agree or len(self.scores)

    def make(self, layout: Layout) -> dict[str, Score]:
        """Returns the unfitted scores by name; an error names the score that this policy cannot serve."""
        return {name: make_score(name, layout, self.draws, self.options.get(name, {})) for name in self.scores}


def named(name: str) -> Recipe:
    """Returns the recipe of a name: one that a file of the package offers (fiper), or a single score."""
    module = registry.load(PACKAGE, name, what="monitor")
    return module.RECIPE if hasattr(module, "RECIPE") else Recipe((name,))


def score_names() -> tuple[str, ...]:
    """Returns the names of all failure scores."""
    return tuple(name for name in registry.names(PACKAGE) if not hasattr(registry.load(PACKAGE, name), "RECIPE"))


def make_score(name: str, layout: Layout, draws: int, options: Mapping[str, Any]) -> Score:
    """Returns one unfitted score; `draws` goes to those whose config has such a field."""
    module = registry.load(PACKAGE, name, what="failure score")
    if hasattr(module, "RECIPE"):
        raise ConfigError(
            f"scores: '{name}' is a combination of scores itself; give its scores: {', '.join(module.RECIPE.scores)}"
        )
    fields = {f.name for f in dataclasses.fields(module.Config)}
    given = {"draws": draws, **options} if "draws" in fields else dict(options)
    cfg: ScoreConfig = config.from_mapping(module.Config, given, f"monitor option {name}")
    made: Score = module.Predictor(cfg, layout)
    return made


def needs_of(scores: Mapping[str, Score]) -> Needs:
    """Returns what a policy must give for all of them."""
    all_of = [score.needs for score in scores.values()]
    names = dict.fromkeys(name for need in all_of for name in need.action_names)
    return Needs(max(need.draws for need in all_of), any(need.features for need in all_of), tuple(names))
