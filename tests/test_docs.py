"""The docs cannot rot: their commands are run or say why not, every flag they name exists, every link leads somewhere."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tyro

from robolearn import cli, config, registry
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.rollout import rollout
from sim_envs import _base as tasks

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = ("needs hours", "needs hardware", "needs a download", "minutes", "set-up")
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: its language, its text and the comment just before it."""

    page: Path
    line: int
    kind: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Returns the words of every command; lines ending in a backslash go on, comments and other programs are left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        lines = [line.removeprefix("$ ") for line in lines]
        words = [shlex.split(line, comments=True) for line in lines if line.strip()]
        return [w[1:] for w in words if w and w[0] in ("robolearn", ".venv/bin/robolearn")]


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start("kind")].count("\n") + 1
            found.append(Block(page, line, match["kind"], match["text"], match["mark"] or ""))
    return found


BLOCKS = blocks()
SHELL = [block for block in BLOCKS if block.kind in ("bash", "sh", "console", "shell")]
FILES = [block for block in BLOCKS if block.mark.startswith("file: ")]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with data/demos/example.zarr, three short episodes of a made-up 2-D task."""
    folder = tmp_path_factory.mktemp("docs")
    point = ArraySpec((2,), names=("x", "y"), unit="m")
    spec = Spec(obs={"point": point, "goal": point}, action=point, hz=10.0)
    made = EpisodeSet.create(folder / "data" / "demos" / "example.zarr", spec, task="", env={})
    rng = np.random.default_rng(0)
    for seed in range(3):
        made.append({key: rng.uniform(size=(30, 2)).astype(np.float32) for key in ("point", "goal", "action")}, seed=seed)
    return folder


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_block_runs_or_says_why_not(block: Block, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.mark.startswith("not run: "):
        reason = block.mark.removeprefix("not run: ")
        assert reason.startswith(REASONS), f"{block}: want one of {REASONS}, got {reason!r}"
        return
    lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    assert len(block.commands) == len(lines), (
        f"{block}: only robolearn commands are run here; mark the block <!-- not run: ... -->"
    )
    monkeypatch.chdir(example)
    for command in block.commands:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            code = cli.main(command)
        assert code == 0, f"{block}: robolearn {' '.join(command)} ended with {code}"
        assert shown.getvalue()


def spoken() -> Iterator[tuple[Block, list[str]]]:
    """Yields every robolearn command in a shell block."""
    for block in SHELL:
        for command in block.commands:
            yield block, command


SPOKEN = list(spoken())


@pytest.mark.parametrize(("block", "command"), SPOKEN, ids=[f"{block} {' '.join(words[:2])}" for block, words in SPOKEN])
def test_every_verb_and_flag_in_the_docs_exists(block: Block, command: list[str]) -> None:
    if not command or command[0].startswith("-"):
        return
    if command[0].isupper():  # VERB stands for all of them
        return
    verb, rest = cli.find_verb(command)
    module = registry.load(cli.APPS, verb)
    named = bool(hasattr(module, "CONFIGS") and rest and rest[0] in config.shipped(module.CONFIGS))
    default = module.load(config.find(module.CONFIGS, rest[0])) if named else None
    known = flags(module.Config, default)
    for word in rest:
        if word.startswith("--"):
            flag = word.split("=")[0].replace("_", "-")
            assert flag in known, f"{block}: robolearn {verb.replace('_', ' ')} has no {flag}"
    if hasattr(module, "CONFIGS") and rest and rest[0].islower() and not rest[0].startswith("-") and "." not in rest[0]:
        assert rest[0] in config.shipped(module.CONFIGS), f"{block}: no shipped config {rest[0]}"


def flags(kind: type, default: object) -> set[str]:
    """Returns every flag of a verb, hyphens for underscores."""
    given = {} if default is None else {"default": default}
    parser = tyro.extras.get_parser(kind, **given)
    return {"--help", "--traceback"} | {name.replace("_", "-") for name in parser._option_string_actions}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target} leads nowhere"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        assert name in index or name == "README.md", f"docs/README.md does not mention {name}"


@pytest.mark.parametrize("verb", sorted({name.split("_")[0] for name in registry.names(cli.APPS)}))
def test_every_verb_has_a_page(verb: str) -> None:
    assert (ROOT / "docs" / f"{verb}.md").is_file(), f"docs/{verb}.md is missing"
    assert f"`robolearn {verb}" in (ROOT / "README.md").read_text(), f"README.md does not mention robolearn {verb}"


@pytest.mark.parametrize("task", tasks.names())
def test_every_task_has_a_page(task: str) -> None:
    assert (ROOT / "docs" / "tasks" / f"{task}.md").is_file()


@pytest.mark.parametrize("policy", registry.names("robolearn.policies"))
def test_every_method_has_a_page_with_its_source(policy: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{policy}.md").read_text()
    assert re.search(r"arXiv|doi|19\d\d|20\d\d", text), f"docs/methods/{policy}.md: say where the method comes from"


def test_the_config_fields_in_yaml_blocks_are_yaml() -> None:
    for block in BLOCKS:
        if block.kind == "yaml":
            path = Path(str(block))
            assert config.yaml.safe_load(block.text), f"{path}: not YAML"


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts the example files of the docs where plug-ins are found, for one test."""
    for block in FILES:
        target = Path(block.mark.removeprefix("file: "))
        package = ".".join(target.parent.parts)
        folder = tmp_path / target.parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / target.name).write_text(block.text)
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
    importlib.invalidate_caches()
    yield
    for block in FILES:
        sys.modules.pop(".".join(Path(block.mark.removeprefix("file: ")).with_suffix("").parts), None)


def test_the_example_task_of_the_docs_works(plugged: None) -> None:
    assert "reach" in tasks.names()
    env = tasks.make("reach", {"max_steps": 80})
    outcome = rollout(env, tasks.expert(env), max_steps=80, seed=3)
    assert outcome.success and outcome.reason == "success"
    first = env.reset(5)["goal"]
    kept = env.state()
    env.step(np.zeros(2))
    assert np.array_equal(env.restore(kept)["goal"], first)
    assert env.render().shape == (64, 64, 3)


def test_the_example_policy_of_the_docs_trains(plugged: None, example: Path, tmp_path: Path) -> None:
    text = (
        f"dataset: {{path: {example}/data/demos/example.zarr, val_ratio: 0.3}}\nout: {tmp_path}/run\n"
        "policy: {name: noisy_bc, width: 16, depth: 1}\n"
        "steps: 3\nbatch_size: 8\nwarmup: 1\nval_every: 3\nsave_every: 3\nlog_every: 1\nprecision: fp32\ntensorboard: false\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    assert cli.main(["train", str(tmp_path / "mine.yaml"), "--policy.blur", "0.1"]) == 0
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_the_code_of_the_docs_keeps_the_house_rules() -> None:
    assert len(FILES) >= 2
    for block in FILES:
        compile(block.text, str(block), "exec")
        assert max(len(line) for line in block.text.splitlines()) <= 130
