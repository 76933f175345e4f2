"""Measure a failure monitor on fresh rollouts: its promise beside what happened, score traces, films of failures first."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from robolearn.apps import _html, _monitor_page, _video
from robolearn.apps._evaluate import Subject, body_maker, find
from robolearn.apps._failure import COLUMNS, Trial, episode_rows, row
from robolearn.apps._report import git_state, write_json
from robolearn.apps._rollouts import Wanted, collect
from robolearn.apps.monitor_fit import folder_of, rollouts_of
from robolearn.errors import BadInput
from robolearn.monitors import _folder
from robolearn.monitors._base import Episode
from robolearn.monitors._detector import Detector, peak


@dataclass(frozen=True)
class Config:
    """Which monitor, on which rollouts."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder of the policy."""
    name: str = "fiper"
    """Which of its monitors."""
    episodes: int = 200
    """Rollouts to measure on."""
    seed: int = 400_000
    """Of the first; none may be among those that the monitor was fitted to."""
    disturb: str = ""
    """Disturbances, as monitor fit takes them; those of the calibration keep the promise, others may break it."""
    workers: int = 0
    """Processes that simulate; 0: this one."""
    device: str = "cpu"
    videos: int = 6
    """How many episodes to film: missed failures first, then other failures, false alarms, the rest."""
    halt: bool = False
    """Films end at the alarm, as an episode under a live monitor does."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Rolls out, measures, writes RUN/monitors/NAME.report and prints the figures."""
    subject = find(str(cfg.run))
    folder = folder_of(subject, cfg.name)
    detector, told = _folder.load(folder, subject.weights_sha256)
    first, last = told["seeds"]
    if cfg.seed <= last and cfg.seed + cfg.episodes > first:
        raise BadInput(f"--seed {cfg.seed}: the monitor was fitted to seeds {first}..{last}; measure it on others")
    wanted = Wanted(cfg.episodes, cfg.seed, detector.recipe.draws, cfg.disturb, cfg.workers, cfg.device)
    with tqdm(total=cfg.episodes, unit="rollout", disable=None) as bar:
        evidence = collect(subject, wanted, rollouts_of(subject, wanted), bar.update)
    test = [e for e in evidence.read() if 0 <= e.seed - cfg.seed < cfg.episodes]
    trial = measured(detector, cfg.name, subject.task, test)
    figures = row(trial, [], test)
    print(text(figures))
    report = folder.with_name(f"{folder.name}.report")
    write(report, cfg, subject, trial, test, figures)
    write_json(cfg.json, figures | {"mixture": cfg.disturb, "calibrated_on": told["mixture"]}, seed=cfg.seed)
    print(f"report: {report / 'report.html'}")
    return 0


def measured(detector: Detector, name: str, task: str, test: Sequence[Episode]) -> Trial:
    """Returns a monitor on test episodes."""
    traces = [detector.combine(detector.raw(episode)) for episode in test]
    return Trial(task, name, detector, traces, np.array([detector.alarm(episode) for episode in test]))


def text(figures: dict[str, Any]) -> str:
    """Returns what the terminal shows."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    low, high = figures["predictive95"] or (None, None)
    return "\n".join(
        (
            f"{figures['made_of']} on {figures['task']}: {figures['n_success']} successes, {figures['n_failure']} failures",
            f"  false alarms  {cell(figures['measured_fpr'])}   promised to lie in {cell(low)} .. {cell(high)}",
            f"  failures seen {cell(figures['tpr'])}   after {cell(figures['detection_time'])} of the longest episode",
            f"  TWA {cell(figures['twa'])}   AUROC at common length {cell(figures['auroc_common_length'])}",
        )
    )


def write(folder: Path, cfg: Config, subject: Subject, trial: Trial, test: Sequence[Episode], figures: dict[str, Any]) -> None:
    """Writes report.html, result.json, episodes.csv and the films, replacing what is there when all is written."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    commit, _ = git_state()
    with (part / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(episode_rows(trial, test, {"weights_sha256": subject.weights_sha256, "commit": commit}))
    write_json(part / "result.json", figures, seed=cfg.seed)
    chosen = [i for i, _ in zip(worth_seeing(trial, test), range(cfg.videos), strict=False)]
    films = film(subject, cfg, trial, test, chosen, part / "videos")
    (part / "report.html").write_text(page(cfg, trial, test, figures, films))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def worth_seeing(trial: Trial, test: Sequence[Episode]) -> Iterator[int]:
    """Yields episodes: missed failures, failures with an alarm, false alarms, the rest; each from the highest peak down."""
    order = sorted(range(len(test)), key=lambda i: -peak(trial.traces[i]))
    ranks = {(False, False): 0, (False, True): 1, (True, True): 2, (True, False): 3}
    yield from sorted(order, key=lambda i: ranks[test[i].success, bool(trial.alarms[i] >= 0)])


def film(
    subject: Subject, cfg: Config, trial: Trial, test: Sequence[Episode], chosen: Sequence[int], folder: Path
) -> dict[int, Path]:
    """Writes one film an episode, its score below the picture; equal seeds and actions give equal episodes."""
    layout, files = trial.detector.layout, {}
    with closing(body_maker(subject.task, subject.env, cfg.disturb)()) as body:
        for i in chosen:
            episode = test[i]
            body.reset(episode.seed)
            actions = executed(episode, layout.execute).reshape(-1, *body.spec.action.shape)
            if cfg.halt and trial.alarms[i] >= 0:
                actions = actions[: episode.plans.ticks[trial.alarms[i]]]
            ticks = episode.plans.ticks[:: trial.detector.recipe.every]
            alarm = int(trial.alarms[i]) // trial.detector.recipe.every if trial.alarms[i] >= 0 else -1
            threshold = trial.detector.threshold(episode.group)
            pictures = _monitor_page.with_strip(iter(_video.frames(body, actions)), ticks, trial.traces[i], threshold, alarm)
            name = f"{'success' if episode.success else 'failure'}_{episode.seed}.mp4"
            files[i] = _video.write_mp4(folder / name, pictures, body.spec.hz)
    return files


def executed(episode: Episode, execute: int) -> np.ndarray:
    """Returns the actions (steps, action) that an episode's plans were executed for."""
    parts = [chunk[:execute] for chunk in episode.plans.samples[:, 0]]
    return np.concatenate(parts)[: episode.steps]


def page(cfg: Config, trial: Trial, test: Sequence[Episode], figures: dict[str, Any], films: dict[int, Path]) -> str:
    """Returns the report page."""
    detector = trial.detector
    low, high = figures["predictive95"] or (0.0, 0.0)
    shown = [(name.replace("_", " "), _number(figures[name])) for name in SHOWN]
    cards = [
        _html.card("Failures seen", _html.figure(_percent(figures["tpr"]), f"of {figures['n_failure']} failures")),
        _html.card(
            "False alarms",
            _html.figure(_percent(figures["measured_fpr"]), f"of {figures['n_success']} successes"),
            f"promised {100 * detector.promised:.1f} %; over so many successes, {100 * low:.1f} to {100 * high:.1f} %",
        ),
        _html.card("Figures", _html.facts(dict(shown))),
    ]
    good = np.array([peak(t) for t, e in zip(trial.traces, test, strict=True) if e.success])
    if len(detector.peaks) and len(good):
        note = "dots: measured; bars: where they may lie by chance at 95 %, calibration and test sizes both counted"
        cards.append(_html.card("Is the promise kept?", _monitor_page.reliability_chart(detector.peaks, good), note))
    players = []
    for i, path in films.items():
        episode, alarm = test[i], int(trial.alarms[i])
        seconds = episode.plans.ticks[:: detector.recipe.every] / detector.layout.hz
        at = alarm // detector.recipe.every if alarm >= 0 else -1
        chart = _monitor_page.trace_chart(seconds, trial.traces[i], detector.threshold(episode.group), at)
        words = f"seed {episode.seed} · {episode.kind or 'undisturbed'} · " + ("alarm" if alarm >= 0 else "no alarm")
        players.append(f"<div>{_html.video(path, words, episode.success)}{chart}</div>")
    parts = [_html.grid(cards, least=200)]
    if players:
        parts += ["<h2>Episodes: missed failures first, then failures seen, false alarms</h2>", _html.grid(players, least=260)]
    rows = [[e.seed, e.kind or "none", e.success, len(e), int(a)] for e, a in zip(test, trial.alarms, strict=True)]
    parts.append(_html.card("All episodes", _html.table(("seed", "disturbed", "success", "plans", "alarm at plan"), rows)))
    facts = {"scores": trial.made_of, "disturbances": cfg.disturb or "none", "notes": "; ".join(detector.notes) or "none"}
    parts.append(_html.card("How it was measured", _html.facts(facts)))
    last = cfg.seed + cfg.episodes - 1
    return _html.page(f"Monitor {cfg.name} of {cfg.run}", f"{len(test)} rollouts, seeds {cfg.seed} to {last}", parts)


SHOWN = ("balanced_accuracy", "twa", "detection_time", "auroc_common_length", "auroc", "n_calibrate")


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
