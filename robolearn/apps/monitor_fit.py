"""Fit a failure monitor to a policy: roll it out, learn what good episodes look like, and set a threshold whose promise holds."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from robolearn.apps._evaluate import Subject, find
from robolearn.apps._failure import SUPERVISED, usable
from robolearn.apps._report import write_json
from robolearn.apps._rollouts import Wanted, collect
from robolearn.apps._watched import layout_of
from robolearn.errors import BadInput
from robolearn.monitors import _conformal, _folder
from robolearn.monitors._base import Episode, Layout
from robolearn.monitors._detector import Detector
from robolearn.monitors._fit import fit, prepare
from robolearn.monitors._recipe import PUBLISHED, SMALL, Recipe, named
from sim_envs import perturb

BEST = "best"


@dataclass(frozen=True)
class Config:
    """Which policy, which scores, how many rollouts; rollouts that are there are kept."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder of the policy."""
    name: str = "fiper"
    """fiper, a single score (`ls robolearn/monitors`), or best: the pair of scores that tells these rollouts apart best."""
    scores: tuple[str, ...] = ()
    """Scores to combine instead; the monitor is then called --name."""
    agree: int = 0
    """So many scores must be high at the same plan: 1 is OR, 0 is all of them."""
    alpha: float = 0.1
    """The promised share of good episodes that alarm."""
    draws: int = 32
    """Plans drawn at once where a score needs many."""
    every: int = 1
    """Score every so-manieth plan only."""
    episodes: int = 200
    """Rollouts to fit, choose and calibrate on; 40 % of the successes set the threshold."""
    seed: int = 300_000
    """Of the first rollout; use others to test."""
    disturb: str = ""
    """Disturbances of some rollouts, such as none:0.5,delay=2:0.25,push=0.3:0.25; calibrate on what the policy will meet."""
    published: bool = False
    """Networks of the papers' sizes, rnd with weights of 8 bits: minutes on a CPU."""
    workers: int = 0
    """Processes that simulate; 0: this one."""
    device: str = "cpu"
    overwrite: bool = False
    """Replace a monitor of that name."""
    json: Path | None = None
    """Write what came of it to this file."""

    def recipe(self, layout: Layout) -> Recipe:
        """Returns the recipe of what is asked for."""
        made = Recipe(usable(layout)) if self.name == BEST and not self.scores else None
        made = made or (Recipe(self.scores, self.agree) if self.scores else named(self.name))
        sizes = {name: size for name, size in (PUBLISHED if self.published else SMALL).items() if name in made.scores}
        return dataclasses.replace(made, alpha=self.alpha, draws=self.draws, every=self.every, options=sizes)


def run(cfg: Config) -> int:
    """Rolls out, fits, writes RUN/monitors/NAME and says what is promised."""
    subject = find(str(cfg.run))
    folder = folder_of(subject, cfg.name)
    _folder.refuse_existing(folder, cfg.overwrite)
    refuse_early(cfg, subject)
    wanted = Wanted(cfg.episodes, cfg.seed, cfg.draws, cfg.disturb, cfg.workers, cfg.device)
    with tqdm(total=cfg.episodes, unit="rollout", disable=None) as bar:
        evidence = collect(subject, wanted, rollouts_of(subject, wanted), bar.update)
    episodes = [e for e in evidence.read() if 0 <= e.seed - cfg.seed < cfg.episodes]
    detector = make(cfg, evidence.layout, episodes)
    facts = wanted.facts(subject) | {"seeds": [cfg.seed, cfg.seed + cfg.episodes - 1], "chosen": list(detector.recipe.scores)}
    _folder.save(folder, detector, facts, cfg.overwrite)
    print(text(detector, episodes))
    print(f"monitor: {folder}")
    solved = sum(e.success for e in episodes)
    told = {"promised_fpr": detector.promised, "n_calibrate": detector.n_calibrate[""], "threshold": detector.threshold()}
    write_json(cfg.json, facts | told | {"episodes": len(episodes), "successes": solved, "notes": detector.notes}, seed=cfg.seed)
    return 0


def refuse_early(cfg: Config, subject: Subject) -> None:
    """Raises what is wrong with the names, or what this policy cannot serve, before minutes go into rollouts."""
    from robolearn.training.checkpoint import load_policy

    assert subject.checkpoint is not None
    layout = layout_of(load_policy(subject.checkpoint))
    cfg.recipe(layout).make(layout)
    if cfg.disturb:
        perturb.parse(cfg.disturb)


def make(cfg: Config, layout: Layout, episodes: list[Episode]) -> Detector:
    """Returns the detector that the config asks for, fitted to these rollouts."""
    recipe = cfg.recipe(layout)
    if cfg.name != BEST or cfg.scores:
        return fit(recipe, layout, episodes, cfg.seed)
    fitted = prepare(recipe, layout, episodes, cfg.seed)
    candidates = [name for name in recipe.scores if name not in (*SUPERVISED, "clock")]
    return fitted.detector(*fitted.best(candidates))


def text(detector: Detector, episodes: list[Episode]) -> str:
    """Returns what the terminal shows."""
    solved, n = sum(e.success for e in episodes), detector.n_calibrate[""]
    names, needed = detector.recipe.scores, detector.recipe.needed
    how = f"{needed} of {len(names)} at once" if len(names) > 1 else "alone"
    low, high = _conformal.rate_interval(n, detector.recipe.alpha)
    lines = [f"{len(episodes)} rollouts, {solved} solved; threshold from {n} of those, which nothing was fitted to"]
    for name in names:
        made = detector.references[name]
        lines.append(f"  {name}: summed over {made.window} plans, {made.band} reference")
    lines.append(f"  alarm where {', '.join(names)} are high, {how}")
    lines.append(
        f"  promised false-alarm rate {detector.promised:.3f}; that of this very calibration is in {low:.3f} .. {high:.3f}"
    )
    return "\n".join(lines + [f"  note: {note}" for note in detector.notes])


def folder_of(subject: Subject, name: str) -> Path:
    """Returns where a policy's monitor of that name is; BadInput where the subject is no run folder."""
    if subject.run is None or not name or "/" in name or name.startswith("."):
        raise BadInput(f"monitor: want a run folder and a plain name, got '{subject.label}' and '{name}'")
    return subject.run / "monitors" / name


def rollouts_of(subject: Subject, wanted: Wanted) -> Path:
    """Returns where rollouts of a policy are kept: one set for each first seed, number of draws and disturbance."""
    assert subject.run is not None
    tail = f"_{hashlib.sha256(wanted.mixture.encode()).hexdigest()[:8]}" if wanted.mixture else ""
    return subject.run / "rollouts" / f"{wanted.seed}_{wanted.draws}{tail}.zarr"
