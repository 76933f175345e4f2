"""Compare two runs on the same seeds: who solves what the other does not (exact McNemar test), and by how much scores differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from robolearn.apps import _html
from robolearn.apps import eval as eval_app
from robolearn.apps._evaluate import Options, Subject, evaluate, find, summary
from robolearn.apps._report import write_json
from robolearn.errors import AlreadyExists, BadInput
from robolearn.intervals import mcnemar_exact, paired95

Rows = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Config:
    """What to compare."""

    run_a: Annotated[str, tyro.conf.Positional]
    """A run folder, an evaluation folder (RUN/eval/...), or expert:TASK."""
    run_b: Annotated[str, tyro.conf.Positional]
    """The other one."""
    episodes: int = 200
    """How many episodes each."""
    seed: int = 100_000
    """Seeds are seed .. seed + episodes - 1."""
    workers: int = 2
    """Processes that simulate, where something is left to run."""
    max_steps: int = 0
    """Ticks an episode may take; 0: the task's own."""
    device: str = "auto"
    """cpu, cuda; auto: cuda where there is one."""
    out: Path | None = None
    """The folder of the report; data/compare/<a>__<b> where nothing is said."""
    json: Path | None = None
    """Write the figures to this file."""
    overwrite: bool = False
    """Replace an older comparison, and evaluations of older weights."""


@dataclass(frozen=True)
class Result:
    """The episodes of one side, by seed."""

    label: str
    task: str
    max_steps: int
    rows: Rows


def run(cfg: Config) -> int:
    """Compares, prints the table and writes the report; what is evaluated already is not run again."""
    out = cfg.out or Path("data/compare") / f"{_word(cfg.run_a)}__{_word(cfg.run_b)}"
    if out.exists() and not cfg.overwrite:
        raise AlreadyExists(out, "comparison")
    options = Options(cfg.episodes, cfg.seed, cfg.workers, max_steps=cfg.max_steps, device=cfg.device)
    sources = [_source(name) for name in (cfg.run_a, cfg.run_b)]
    a, b = (_result(source, options, cfg.overwrite) for source in sources)
    figures = paired(a, b, options.seeds)
    print(text(figures))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "report.html").write_text(report(figures))
    write_json(out / "result.json", figures, seed=cfg.seed)
    write_json(cfg.json, figures, seed=cfg.seed)
    print(f"report: {out / 'report.html'}")
    return 0


def paired(a: Result, b: Result, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns the figures of the comparison on `seeds`; BadInput where the two do not fit each other."""
    if (a.task, a.max_steps) != (b.task, b.max_steps):
        raise BadInput(
            f"want two evaluations of one kind, got {a.label} on {a.task} with {a.max_steps} steps "
            f"and {b.label} on {b.task} with {b.max_steps}"
        )
    for side in (a, b):
        if missing := [seed for seed in seeds if seed not in side.rows]:
            raise BadInput(f"{side.label}: seed {missing[0]} was not evaluated; give --seed and --episodes that both have")
    pairs = [(a.rows[seed], b.rows[seed]) for seed in seeds]
    both = sum(x["success"] and y["success"] for x, y in pairs)
    only_a = sum(x["success"] and not y["success"] for x, y in pairs)
    only_b = sum(y["success"] and not x["success"] for x, y in pairs)
    mean, low, high = paired95([x["score"] for x, _ in pairs], [y["score"] for _, y in pairs])
    return {
        "task": a.task,
        "n": len(pairs),
        "seeds": list(seeds),
        "a": {"run": a.label, **summary([x for x, _ in pairs])},
        "b": {"run": b.label, **summary([y for _, y in pairs])},
        "both": both,
        "only_a": only_a,
        "only_b": only_b,
        "neither": len(pairs) - both - only_a - only_b,
        "success_difference": (only_b - only_a) / len(pairs),
        "mcnemar_p": mcnemar_exact(only_a, only_b),
        "score_difference": mean,
        "score_difference95": [low, high],
        "rows": [
            {
                "seed": x["seed"],
                "success_a": x["success"],
                "success_b": y["success"],
                "score_a": x["score"],
                "score_b": y["score"],
            }
            for x, y in pairs
        ],
    }


def verdict(figures: Mapping[str, Any]) -> str:
    """Returns the comparison in one sentence."""
    p, difference = figures["mcnemar_p"], figures["success_difference"]
    better = figures["b"]["run"] if difference > 0 else figures["a"]["run"]
    if p < 0.05:
        return f"{better} solves more: {100 * abs(difference):.1f} points, p = {p:.3g} (exact McNemar)"
    return f"no difference in success shown: {100 * difference:+.1f} points for b, p = {p:.3g} (exact McNemar)"


def text(figures: Mapping[str, Any]) -> str:
    """Returns what the terminal shows."""
    lines = [f"{figures['task']}, {figures['n']} seeds, paired"]
    for side in "ab":
        s = figures[side]
        (low, high), (score_low, score_high) = s["wilson95"], s["score_interval95"]
        lines.append(
            f"  {side}  {s['run']:<32} success {s['success_rate']:.3f} [{low:.3f}, {high:.3f}]"
            f"   score {s['score_mean']:.3f} [{score_low:.3f}, {score_high:.3f}]"
        )
    low, high = figures["score_difference95"]
    lines += [
        f"  both {figures['both']}, only a {figures['only_a']}, only b {figures['only_b']}, neither {figures['neither']}",
        f"  score of b minus a: {figures['score_difference']:+.3f}, 95 % {low:+.3f} .. {high:+.3f} (paired bootstrap)",
        f"  {verdict(figures)}",
    ]
    return "\n".join(lines)


def report(figures: Mapping[str, Any]) -> str:
    """Returns the report page."""
    sides = [figures["a"], figures["b"]]
    low, high = figures["score_difference95"]
    success = _html.intervals([(s["run"], s["success_rate"], *s["wilson95"]) for s in sides])
    score = _html.intervals([(s["run"], s["score_mean"], *s["score_interval95"]) for s in sides])
    cross = _html.table(
        ("", "b solves", "b does not"),
        [("a solves", figures["both"], figures["only_a"]), ("a does not", figures["only_b"], figures["neither"])],
    )
    differ = [r for r in figures["rows"] if r["success_a"] != r["success_b"]]
    columns = ("seed", "success_a", "success_b", "score_a", "score_b")
    parts = [
        _html.grid(
            [
                _html.card("Success", success, "95 % Wilson interval"),
                _html.card("Score", score, "95 % interval, bootstrap over episodes"),
                _html.card("Who solves what", cross, f"exact McNemar test: p = {figures['mcnemar_p']:.3g}"),
                _html.card(
                    "Score of b minus a",
                    _html.figure(f"{figures['score_difference']:+.3f}", f"95 % {low:+.3f} to {high:+.3f}, bootstrap over pairs"),
                ),
            ],
            least=420,
        ),
        _html.card(
            f"Seeds that only one solves ({len(differ)})", _html.table(columns, [[r[c] for c in columns] for r in differ])
        ),
        _html.card("All seeds", _html.table(columns, [[r[c] for c in columns] for r in figures["rows"]])),
    ]
    title = f"{figures['a']['run']} against {figures['b']['run']}"
    return _html.page(title, f"{figures['task']}, {figures['n']} shared seeds. {verdict(figures)}.", parts)


def _source(name: str) -> Subject | Result:
    """Returns the result in an evaluation folder, or the run or expert to evaluate."""
    return read_result(Path(name)) if (Path(name) / "result.json").is_file() else find(name)


def _result(source: Subject | Result, options: Options, overwrite: bool) -> Result:
    """Returns the result of one side, evaluated now where no evaluation of the same weights holds all seeds."""
    if isinstance(source, Result):
        return source
    for path in sorted(source.folder.glob("*/result.json")):
        figures = json.loads(path.read_text())
        fits = figures["weights_sha256"] == source.weights_sha256 and not figures["sampling"] and source.run is not None
        fits = fits and options.max_steps in (0, figures["max_steps"])
        if fits and set(options.seeds) <= set(figures["seeds"]):
            return read_result(path.parent)
    folder = source.folder / options.name
    if folder.exists() and not overwrite:
        raise AlreadyExists(folder, "evaluation of other weights")
    with tqdm(total=options.episodes, unit="episode", desc=source.label, disable=None) as bar:
        done = evaluate(source, options, on_record=lambda record: bar.update())
    eval_app.write(done, folder, videos=0)
    return read_result(folder)


def read_result(folder: Path) -> Result:
    """Returns the episodes in an evaluation folder."""
    try:
        figures = json.loads((folder / "result.json").read_text())
        rows = {int(r["seed"]): r for r in figures["episodes"]}
        return Result(figures["run"], figures["task"], int(figures["max_steps"]), rows)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{folder}: want an evaluation (result.json written by robolearn eval), got {error!r}") from error


def _word(name: str) -> str:
    """Returns a run's name as part of a folder's name."""
    path = Path(name.replace(":", "_"))
    return "_".join(path.parts[-3:]) if path.parent.name == "eval" else path.name
