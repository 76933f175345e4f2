"""The main job end to end: one human demonstration of Lift, expanded, a flow policy trained and evaluated, a report.

Every stage keeps what it made, so an interrupted demo goes on where it stopped. Its training data come from one human
demonstration and nothing else; its evaluation seeds are used nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robolearn import config
from robolearn.apps import _html, _video, data_check, data_fetch, expand, train
from robolearn.apps._evaluate import Evaluation, Options, body_maker, evaluate, failures_first, find
from robolearn.apps._report import plain, write_json
from robolearn.apps.eval import learning_curve
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput

SEED = 900_000
STAGES = ("fetch", "expand", "check", "train", "evaluate")
MINUTES = "about 8 minutes on 2 cores, 15 at most"


@dataclass(frozen=True)
class Config:
    """Where to put things, and how large to make them."""

    out: Path = Path("data/runs/demo")
    """The run folder; holds report.html, report.json and a video at the end."""
    demos: Path = Path("data/demos")
    """Where demonstrations are kept."""
    source: str = ""
    """A local copy of the robosuite 1.0.1 wheel or its demonstrations; empty: through pip."""
    expanded: int = 200
    """Episodes to make out of the one demonstration."""
    steps: int = 2000
    """Optimiser steps."""
    episodes: int = 100
    """Episodes to evaluate on."""
    workers: int = 2
    """Processes for simulation."""
    seed: int = 0
    """Of expansion and training."""
    json: Path | None = None
    """Also write the figures of report.json to this file."""
    overwrite: bool = False
    """Begin anew."""


def run(cfg: Config) -> int:
    """Runs the stages that are not done yet and prints the result."""
    if (cfg.out / "report.json").exists() and not cfg.overwrite:
        conclude(cfg, json.loads((cfg.out / "report.json").read_text()))
        say("(made before; --overwrite begins anew)")
        return 0
    say(f"robolearn demo: one human demonstration to an evaluated policy; {MINUTES}. Interrupt it whenever you like.")
    human, made = cfg.demos / "robosuite-human", cfg.demos / "demo_lift.zarr"
    if cfg.overwrite:
        ledger(cfg).unlink(missing_ok=True)
    if not human.exists():
        stage("fetch", "the human demonstration of Lift, out of the robosuite 1.0.1 wheel (MIT)")
        data_fetch.run(data_fetch.Config("robosuite-human", out=human, source=Path(cfg.source) if cfg.source else None))
    stage("expand", f"1 human episode into {cfg.expanded}")
    with timed(cfg, "expand"):
        expand.run(
            expand.Config(
                source=str(lift_source(human)),
                task="lift",
                out=made,
                episodes=cfg.expanded,
                seed=cfg.seed,
                workers=cfg.workers,
                resume=made.exists() and not cfg.overwrite,
                overwrite=cfg.overwrite,
            )
        )
    stage("check", str(made))
    if data_check.run(data_check.Config(made)):
        raise BadInput(f"{made}: data check found errors; begin anew with --overwrite")
    stage("train", f"flow matching, {cfg.steps} steps")
    preset = train.load(config.find("train", "lift_flow"))
    mine: dict[str, Any] = dict(
        dataset=dataclasses.replace(preset.dataset, path=str(made)),
        out=str(cfg.out),
        steps=cfg.steps,
        seed=cfg.seed,
        precision="fp32",  # the same demo on every machine: bf16 is faster on some, and learns less in so few steps
    )
    again: dict[str, Any] = dict(resume=cfg.out.exists() and not cfg.overwrite, overwrite=cfg.overwrite and cfg.out.exists())
    with timed(cfg, "train"):
        train.run(dataclasses.replace(preset, **mine, **again))
    stage("evaluate", f"{cfg.episodes} episodes the policy has never seen, seeds {SEED}..{SEED + cfg.episodes - 1}")
    with timed(cfg, "evaluate"), tqdm(total=cfg.episodes, unit="episode", disable=None) as bar:
        options = Options(cfg.episodes, SEED, cfg.workers)
        done = evaluate(find(str(cfg.out)), options, on_record=lambda record: bar.update())
    figures = report(cfg, EpisodeSet.open(made), done)
    conclude(cfg, figures)
    return 0


def conclude(cfg: Config, figures: dict[str, Any]) -> None:
    """Prints the result and where to look at it."""
    low, high = figures["wilson95"]
    solved = f"{figures['successes']} of {figures['n']} unseen episodes solved"
    say(f"\n{solved}: {figures['success_rate']:.2f} (95 % {low:.2f} .. {high:.2f})")
    say(f"report: {cfg.out / 'report.html'}\nvideo:  {cfg.out / 'video.mp4'}")


def lift_source(folder: Path) -> Path:
    """Returns the human Lift recording among the fetched ones."""
    found = sorted(folder.glob("*ift*/**/demo.hdf5"))
    if not found:
        raise BadInput(f"{folder}: no Lift demonstration there; delete the folder and run the demo again")
    return found[0]


def ledger(cfg: Config) -> Path:
    """Returns the file that keeps how long each stage took, over all interruptions."""
    return cfg.demos / "demo_lift.seconds.json"


def seconds(cfg: Config) -> dict[str, float]:
    """Returns the seconds spent on each stage so far."""
    return json.loads(ledger(cfg).read_text()) if ledger(cfg).exists() else {}


@contextmanager
def timed(cfg: Config, name: str) -> Iterator[None]:
    """Adds the time of this block to the ledger, also when it is interrupted."""
    began = time.monotonic()
    try:
        yield
    finally:
        spent = seconds(cfg)
        spent[name] = round(spent.get(name, 0.0) + time.monotonic() - began, 1)
        ledger(cfg).write_text(json.dumps(spent))


def stage(name: str, what: str) -> None:
    """Prints which stage begins."""
    say(f"\n[{STAGES.index(name) + 1}/{len(STAGES)}] {name}: {what}")


def say(text: str) -> None:
    """Prints at once."""
    print(text, flush=True)


def report(cfg: Config, made: EpisodeSet, done: Evaluation) -> dict[str, Any]:
    """Writes video.mp4, report.html and, last, report.json; returns the figures."""
    found = done.figures()
    sources = made.episode_field("source")
    assert sources is not None
    figures = {
        "task": "lift",
        "source_demonstrations": len(set(sources.tolist())),
        "expanded": made.n_episodes,
        **{key: found[key] for key in ("n", "successes", "success_rate", "wilson95", "seeds", "episodes", "physics")},
        "wall_s": round(sum(seconds(cfg).values()), 1),
        "stage_s": seconds(cfg),
        "cores": os.cpu_count(),
    }
    record = next(failures_first(done.records))
    solved = [r for r in done.records if r.outcome.success]
    records = {r.outcome.seed: r for r in [record, *solved[:3]]}
    films = _video.film(body_maker("lift", done.subject.env, ""), records.values(), cfg.out / "videos")
    best = solved[0].outcome.seed if solved else record.outcome.seed
    assert best is not None
    (cfg.out / "video.mp4").write_bytes(films[best].read_bytes())
    (cfg.out / "report.html").write_text(page(cfg, figures, films, done))
    write_json(cfg.out / "report.json", figures, cfg.seed)
    write_json(cfg.json, figures, cfg.seed)
    return figures


def page(cfg: Config, figures: dict[str, Any], films: dict[int, Path], done: Evaluation) -> str:
    """Returns the report page."""
    low, high = figures["wilson95"]
    rows = {row["seed"]: row for row in done.rows}
    cards = [
        _html.card(
            "Success on unseen episodes",
            _html.figure(f"{100 * figures['success_rate']:.0f} %", f"{figures['successes']} of {figures['n']} episodes")
            + _html.intervals([("95 % Wilson", figures["success_rate"], low, high)]),
        ),
        _html.card(
            "Where the data come from",
            _html.figure(
                str(figures["source_demonstrations"]), f"human demonstration, expanded to {figures['expanded']} episodes"
            ),
            "robosuite 1.0.1, Lift, Panda, recorded by a person; each episode is that path moved to a new place of the cube",
        ),
        _html.card("Training", learning_curve(cfg.out), "per optimiser step, logarithmic"),
    ]
    players = [
        _html.video(path, f"seed {seed} · {rows[seed]['steps']} steps", rows[seed]["success"]) for seed, path in films.items()
    ]
    again = f"robolearn eval {cfg.out} --seed {SEED} --episodes {figures['n']}"
    facts = {
        "measure it again": again,
        "wall time of this demo": f"{figures['wall_s']:.0f} s on {figures['cores']} cores ({figures['stage_s']})",
        "physics": json.dumps(plain(figures["physics"])),
        "argv": " ".join(sys.argv[1:]),
    }
    table = _html.table(("seed", "success", "steps"), [[r["seed"], r["success"], r["steps"]] for r in done.rows])
    parts = [_html.grid(cards), "<h2>Episodes, failures first</h2>", _html.grid(players, 240)]
    parts += [_html.card("All episodes", table), _html.card("How it was measured", _html.facts(facts))]
    return _html.page("Lift from one human demonstration", "robolearn demo", parts)
