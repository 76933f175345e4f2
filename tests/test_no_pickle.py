"""Nothing that is read can run: no pickle and its relatives, no eval, no loader that unpickles; and the lint itself is tested."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for package in ("robolearn", "hardware", "sim_envs") for path in (ROOT / package).rglob("*.py"))
ONE_EXCEPTION = "robolearn/data/convert/_restricted_unpickle.py"  # an unpickler that lets nothing run, for other programs' files
UNPICKLERS = (
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
    "pickletools",
    "msgpack_numpy",
)
BUILTINS = ("eval", "exec", "__import__")
SAFE_YAML = ("SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader")


WORDS = (
    *UNPICKLERS,
    *(f"{name}(" for name in BUILTINS),
    "yaml",
    "torch",
    "np.load",
    "numpy.load",
    "fromfile",
    "pyobj",
)  # pickle is in allow_pickle too


def findings(source: str) -> list[str]:
    """Returns what in a file could run what it reads, one line each."""
    if not any(word in source for word in WORDS):  # parsing all files takes seconds
        return []
    nodes = list(ast.walk(ast.parse(source)))
    kinds = [node for node in nodes if isinstance(node, ast.ClassDef)]
    safe = {*SAFE_YAML, *(kind.name for kind in kinds if any(dotted(base).split(".")[-1] in SAFE_YAML for base in kind.bases))}
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [f"{node.lineno} imports {alias.name}" for alias in node.names if alias.name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.append(f"{node.lineno} imports {node.module}")
        elif isinstance(node, ast.Call) and (why := called(node, safe)):
            found.append(f"{node.lineno} {why}: {ast.unparse(node)[:80]}")
    return found


def dotted(node: ast.expr) -> str:
    """Returns a.b.c of an attribute of a name; what is no name is "?"."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def called(node: ast.Call, safe_loaders: set[str]) -> str:
    """Returns what is wrong with a call, "" where nothing is."""
    package, _, last = dotted(node.func).rpartition(".")
    words = {word.arg: word.value for word in node.keywords}
    if not package and last in BUILTINS:
        return "runs text"
    if last == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
        return "imports an unpickler" if str(node.args[0].value).split(".")[0] in UNPICKLERS else ""
    if "allow_pickle" in words and ast.unparse(words["allow_pickle"]) != "False":
        return "allows pickle"
    if package in ("np", "numpy") and last == "load" and len(node.args) > 2:  # allow_pickle by position
        return "allows pickle"
    if package == "torch" and last in ("load", "save"):
        safe = last == "load" and "weights_only" in words and ast.unparse(words["weights_only"]) == "True"
        return "" if safe else "is a pickle"
    if package == "torch.hub" and last.startswith("load"):
        return "runs downloaded code"
    if last in ("read_pickle", "to_pickle", "recv_pyobj", "send_pyobj"):
        return "is a pickle"
    if package == "yaml" and last.split("_")[0] in ("unsafe", "full"):
        return "builds any object"
    if package == "yaml" and last in ("load", "load_all"):
        loader = words.get("Loader") or (node.args[1] if len(node.args) > 1 else ast.Name("none"))
        return "" if dotted(loader).split(".")[-1] in safe_loaders else "builds any object"
    return ""


def test_nothing_that_is_read_can_run() -> None:
    assert len(FILES) > 100
    names = {path: str(path.relative_to(ROOT)) for path in FILES}
    wrong = [f"{name}:{found}" for path, name in names.items() if name != ONE_EXCEPTION for found in findings(path.read_text())]
    assert not wrong, "\n".join(wrong)


def test_the_one_exception_is_there_and_lets_nothing_run() -> None:
    source = (ROOT / ONE_EXCEPTION).read_text()
    assert "find_class" in source
    assert {line.split(" ", 1)[1] for line in findings(source)} == {"imports pickle", "imports pickletools"}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, _pickle",
        "import pickle as p",
        "from dill import loads",
        "from cloudpickle.cloudpickle import dumps",
        "import marshal",
        "import shelve",
        "import msgpack_numpy",
        "importlib.import_module('pickle')",
        "eval('1')",
        "exec(text)",
        "__import__('os')",
        "np.load(path, allow_pickle=True)",
        "np.load(path, None, True)",
        "numpy.load(path, allow_pickle=flag)",
        "zarr.save(path, array, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.save(net, path)",
        "torch.hub.load('a', 'b')",
        "pandas.read_pickle(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "yaml.full_load(text)",
        "yaml.full_load_all(text)",
        "class Mine(yaml.Loader): ...\nyaml.load(text, Loader=Mine)",
        "socket.recv_pyobj()",
    ],
)
def test_the_lint_finds_it(line: str) -> None:
    assert findings(line)


@pytest.mark.parametrize(
    "line",
    [
        "import json",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.CSafeLoader)",
        "class Mine(yaml.SafeLoader): ...\nyaml.load(text, Loader=Mine)",
        "net.eval()",
        "json.load(file)",
        "ast.literal_eval(text)",
    ],
)
def test_the_lint_lets_it_pass(line: str) -> None:
    assert not findings(line)
