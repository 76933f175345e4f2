"""Evaluate a run (or expert:TASK) on numbered seeds: success and score with intervals, tables, videos of failures first."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm

from robolearn.apps import _html, _video
from robolearn.apps._evaluate import Evaluation, Options, body_maker, evaluate, failures_first, find, row
from robolearn.apps._report import git_state, write_json
from robolearn.core import ArraySpec
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput
from robolearn.policies._verified import Verification

if TYPE_CHECKING:  # imports torch, which an expert does not need
    from robolearn.apps._memory_trace import Diagnosis

COLUMNS = ("seed", "success", "score", "steps", "reason", "alarm_step")


@dataclass(frozen=True)
class Config:
    """What to evaluate and how."""

    run: Annotated[str, tyro.conf.Positional]
    """A run folder, or expert:TASK for the scripted expert of a task."""
    episodes: int = 200
    """How many episodes."""
    seed: int = 100_000
    """Seeds are seed .. seed + episodes - 1."""
    workers: int = 2
    """Processes that simulate."""
    envs_per_worker: int = 0
    """Bodies in each; 0: chosen."""
    max_steps: int = 0
    """Ticks an episode may take; 0: the task's own."""
    device: str = "auto"
    """cpu, cuda; auto: cuda where there is one."""
    checkpoint: str = "last"
    """last, best or step_000500."""
    sampler: str = ""
    """Another sampler than in training."""
    steps: int = 0
    """Another number of sampling steps than in training."""
    execute: int = 0
    """Another number of executed actions a plan than in training."""
    verify: int = 1
    """Draw so many plans and execute the one whose predicted past agrees best with what was executed; 1: no verification."""
    verify_agree: float = 0.0
    """With --verify: draw only three where those agree to this root mean square (normalised action units); 0: always all."""
    verify_least: int = 0
    """With --verify: so many positions of the past must have been executed before plans are compared; 0: all of them."""
    monitor: str = ""
    """Let RUN/monitors/NAME watch: which failures it would have halted, which successes it would have disturbed."""
    disturb: str = ""
    """Disturb the episodes: KIND=STRENGTH:SHARE,... such as none:0.5,delay=2:0.25,push=0.3:0.25 (`sim_envs/perturb.py`)."""
    videos: int = 4
    """How many episodes to film, failures first."""
    memory: int = 0
    """Trace the memory over so many extra episodes and show it in the report."""
    save_states: Path | None = None
    """Write whole simulator states and actions to this .zarr, from which every score can be recomputed."""
    json: Path | None = None
    """Write the figures to this file."""
    overwrite: bool = False
    """Replace the result of an equal evaluation."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn; ValueError names the field."""
        given = (self.verify, self.verify_agree, self.verify_least)
        if given[0] < 1 or min(given) < 0:
            raise ValueError("want verify >= 1, verify_agree >= 0 and verify_least >= 0, got {}, {} and {}".format(*given))
        if self.verify == 1 and any(given[1:]):
            raise ValueError("verify_agree and verify_least are about --verify, and that is 1: nothing is verified")

    @property
    def options(self) -> Options:
        """The evaluation's options."""
        given = {"sampler": self.sampler, "steps": self.steps, "execute": self.execute}
        return Options(
            self.episodes,
            self.seed,
            self.workers,
            self.envs_per_worker,
            self.max_steps,
            self.device,
            self.checkpoint,
            {key: value for key, value in given.items() if value},
            self.save_states is not None,
            Verification(self.verify, agree=self.verify_agree, least=self.verify_least),
            self.monitor,
            self.disturb,
        )


def run(cfg: Config) -> int:
    """Evaluates, prints the table and writes the folder RUN/eval/<seed>_<episodes>."""
    subject = find(cfg.run, cfg.checkpoint)
    folder = subject.folder / cfg.options.name
    if folder.exists() and not cfg.overwrite:
        raise AlreadyExists(folder, "evaluation")
    if cfg.save_states is not None and cfg.save_states.exists() and not cfg.overwrite:
        raise AlreadyExists(cfg.save_states, "dataset")
    if cfg.memory < 0 or (cfg.memory and subject.run is None):
        raise BadInput(f"--memory {cfg.memory}: want 0 or more episodes of a run folder, got {cfg.run}")
    memory = None
    with tqdm(total=cfg.episodes + cfg.memory, unit="episode", disable=None) as bar:
        done = evaluate(subject, cfg.options, on_record=lambda record: bar.update())
        if cfg.memory:
            from robolearn.apps._memory_trace import diagnose

            memory = diagnose(done, cfg.memory, on_episode=bar.update)
    print(text(done))
    if memory is not None:
        print(memory.text())
    write(done, folder, cfg.videos, memory)
    if cfg.save_states is not None:
        save_states(done, cfg.save_states, cfg.overwrite)
    write_json(cfg.json, figures_of(done, memory), seed=cfg.seed)
    print(f"report: {folder / 'report.html'}")
    return 0


def text(done: Evaluation) -> str:
    """Returns what the terminal shows: the two figures with their intervals and the seeds that failed."""
    figures = done.figures()
    low, high = figures["wilson95"]
    score_low, score_high = figures["score_interval95"]
    first, last = done.options.seeds[0], done.options.seeds[-1]
    solved = f"{figures['successes']:4d} of {figures['n']} = {figures['success_rate']:.3f}"
    mean = f"mean {figures['score_mean']:.3f}"
    failed = [r for r in done.rows if not r["success"]]
    lines = [
        f"{done.subject.label} on {done.subject.task}, seeds {first}..{last}, {done.max_steps} steps, {done.wall_s:.0f} s",
        f"  success  {solved}   95 % {low:.3f} .. {high:.3f}  (Wilson)",
        f"  score    {mean:<{len(solved)}}   95 % {score_low:.3f} .. {score_high:.3f}  (bootstrap)",
    ]
    if done.options.monitor:
        n = figures["n"] - figures["successes"]
        halted, disturbed = f"{figures['failures_halted']} of {n}", f"{figures['successes_disturbed']} of {figures['successes']}"
        lines.append(f"  monitor {done.options.monitor}: would have halted {halted} failures and disturbed {disturbed} successes")
    if tally := done.tally:
        lines.append("  " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in tally.items()))
    if failed:
        worst = sorted(failed, key=lambda r: r["score"])[:8]
        lines += [f"  {len(failed)} failed; the worst:", "      seed  score  steps  reason"]
        lines += [f"    {r['seed']:6d}  {r['score']:.3f}  {r['steps']:5d}  {r['reason']}" for r in worst]
    if figures["crashed"]:
        whys = {record.why for record in done.records if record.why}
        lines += [f"  {figures['crashed']} crashed and count as failed: {'; '.join(sorted(whys))}"]
    return "\n".join(lines)


def figures_of(done: Evaluation, memory: Diagnosis | None) -> dict[str, Any]:
    """Returns what `--json` and result.json keep."""
    return done.figures() | ({"memory": memory.figures()} if memory is not None else {})


def write(done: Evaluation, folder: Path, videos: int, memory: Diagnosis | None = None) -> None:
    """Writes episodes.csv, result.json, videos and report.html to `folder`, replacing what is there when all is written.

    Where a memory was traced, memory.json too.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    commit, _ = git_state()
    same = {"weights_sha256": done.subject.weights_sha256 or "", "commit": commit or ""}
    with (part / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *same))
        writer.writeheader()
        writer.writerows({**row, **same} for row in done.rows)
    write_json(part / "result.json", figures_of(done, memory), seed=done.options.seed)
    if memory is not None:
        write_json(part / "memory.json", memory.figures(), seed=done.options.seed)
    env = dict(done.subject.env) | {"max_steps": done.max_steps}
    chosen = [record for record, _ in zip(failures_first(done.records), range(videos), strict=False)]
    body = body_maker(done.subject.task, env, done.options.disturb)
    films = _video.film(body, chosen, part / "videos") if chosen else {}
    (part / "report.html").write_text(report(done, films, memory))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def report(done: Evaluation, films: Mapping[int, Path], memory: Diagnosis | None = None) -> str:
    """Returns the report page."""
    figures, rows = done.figures(), {r["seed"]: r for r in done.rows}
    low, high = figures["wilson95"]
    score_low, score_high = figures["score_interval95"]
    scores = [r["score"] for r in done.rows]
    cards = [
        _html.card(
            "Success",
            _html.figure(f"{100 * figures['success_rate']:.1f} %", f"{figures['successes']} of {figures['n']} episodes")
            + _html.intervals(
                [
                    ("success, 95 % Wilson", figures["success_rate"], low, high),
                    ("mean score, 95 % bootstrap", figures["score_mean"], score_low, score_high),
                ]
            ),
        ),
        _html.card(
            "Score",
            _html.figure(f"{figures['score_mean']:.3f}", "mean over episodes of the best score in each")
            + _html.histogram(scores),
        ),
    ]
    if done.subject.run is not None:
        cards.append(_html.card("Training", learning_curve(done.subject.run), "per optimiser step, logarithmic"))
    players = [
        _html.video(path, f"seed {seed} · score {rows[seed]['score']:.3f} · {rows[seed]['steps']} steps", rows[seed]["success"])
        for seed, path in films.items()
    ]
    parts = [_html.grid(cards, least=900 // len(cards))]
    if players:
        parts += ["<h2>Episodes, failures first</h2>", _html.grid(players, least=225)]
    if memory is not None:
        parts += [f"<h2>Memory, in {len(memory.traces)} more episodes</h2>", _html.grid(memory.cards(), least=400)]
    parts.append(_html.card("All episodes", _html.table(COLUMNS, [[r[c] for c in COLUMNS] for r in done.rows])))
    parts.append(_html.card("How it was measured", _html.facts(_facts(done))))
    first, last = done.options.seeds[0], done.options.seeds[-1]
    return _html.page(f"{done.subject.label} on {done.subject.task}", f"{figures['n']} episodes, seeds {first} to {last}", parts)


def learning_curve(run: Path) -> str:
    """Returns the chart of RUN/metrics.jsonl."""
    from robolearn.training.logs import read_metrics

    rows = read_metrics(run)
    names = {"loss": "training loss", "val_loss": "validation loss", "val_action_mse": "validation action error"}
    lines: dict[str, Any] = {}
    for key, name in names.items():
        lines[name] = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return _html.curves(lines)


def _facts(done: Evaluation) -> dict[str, Any]:
    commit, dirty = git_state()
    options = done.options
    facts: dict[str, Any] = {
        "task": done.subject.task,
        "body": dict(done.subject.env) or "as shipped",
        "steps an episode": done.max_steps,
    }
    if done.subject.checkpoint is not None:
        facts["checkpoint"] = done.subject.checkpoint.name
        facts["sampling"] = dict(options.sampling) or "as trained"
    facts |= {"workers": options.workers, "seconds": round(done.wall_s, 1), "physics": dict(done.versions)}
    return facts | {"commit": f"{commit}{' with changes' if dirty else ''}" if commit else "not a checkout"}


def save_states(done: Evaluation, path: Path, overwrite: bool) -> None:
    """Writes a set with `sim_state` and `action` of every tick; the state after the last action is the fact `final_state`."""
    kept = [record for record in done.records if record.states is not None and len(record.actions)]
    size = kept[0].states.shape[1] if kept and kept[0].states is not None else 0
    spec = replace(done.spec, obs={}, cameras={})
    extra = {"sim_state": ArraySpec((size,), "float64")}
    env = dict(done.subject.env) | {"max_steps": done.max_steps}
    meta = {"physics": dict(done.versions), "run": done.subject.label}
    target = EpisodeSet.create(path, spec, task=done.subject.task, env=env, meta=meta, extra=extra, overwrite=overwrite)
    for record in kept:
        assert record.states is not None
        rows = {"sim_state": record.states[:-1], "action": record.actions}
        target.append(rows, final_state=record.states[-1], **row(record.outcome))
