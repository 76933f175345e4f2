"""The house rules: which package may import which, what a plug-in file promises, and what no file may contain."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from robolearn import cli, config, registry
from robolearn.apps import _robot_file
from sim_envs import _base as tasks

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("robolearn", "sim_envs", "hardware")
FOUNDATION = ("core", "errors", "registry", "config", "geometry", "clock", "intervals")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# What a package may import of ours, besides itself and the foundation. The longest prefix that fits a module decides.
MAY_IMPORT = {
    **{f"robolearn.{name}": () for name in FOUNDATION},
    "robolearn": (),
    "robolearn.rollout": (),
    "robolearn.rollout_vector": ("robolearn.rollout",),
    "robolearn.data": (),
    "robolearn.data.convert.run_log": ("robolearn.data", "robolearn.runtime"),
    "robolearn.data.convert._run_rows": ("robolearn.data", "robolearn.runtime"),
    "robolearn.teleop": (),
    "robolearn.video": ("robolearn.data",),
    "robolearn.runtime": ("robolearn.rollout",),
    "robolearn.runtime.serve.server": (
        "robolearn.runtime",
        "robolearn.policies",
        "robolearn.monitors",
        "robolearn.data",
        "robolearn.training",
    ),
    "robolearn.nets": (),
    "robolearn.policies": ("robolearn.nets", "robolearn.data", "robolearn.video"),
    "robolearn.monitors": ("robolearn.nets", "robolearn.data"),
    "robolearn.training": ("robolearn.policies", "robolearn.monitors", "robolearn.nets", "robolearn.data"),
    "sim_envs": (),
    "hardware": (),
}
ONLY_APPS_ARE_FREE = ("robolearn.apps", "robolearn.cli", "robolearn.__main__")
NO_TORCH = (
    "robolearn.rollout",
    "robolearn.data",
    "robolearn.teleop",
    "robolearn.video",
    "robolearn.runtime",
    "sim_envs",
    "hardware",
)
NO_TORCH += tuple(f"robolearn.{name}" for name in FOUNDATION)
TORCH_IS_FINE = ("robolearn.runtime.serve.server",)
FOUNDATION_LIBRARIES = {"numpy", "scipy", "yaml", "tyro"}
NETS_LIBRARIES = {"torch", "torchvision", "einops", "diffusers", "numpy"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """Returns (module, line) of every import in a file; `from a import b` counts as a.b where that is a module."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: say the whole name of a package, not a relative one"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole if is_module(whole) else node.module, node.lineno))
    return tuple(found)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def inside(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def allowed(module: str) -> tuple[str, ...]:
    prefix = max((p for p in MAY_IMPORT if inside(module, (p,))), key=len)
    return (prefix, *MAY_IMPORT[prefix], *(f"robolearn.{name}" for name in FOUNDATION))


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        module = module_name(path)
        if inside(module, ONLY_APPS_ARE_FREE):
            continue
        for name, line in imports(path):
            ours = name.split(".")[0] in PACKAGES and name != "robolearn"
            own_package = name == module.rsplit(".", 1)[0]
            if ours and not own_package and not inside(name, tuple(p for p in allowed(module) if p != "robolearn")):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_import_rules_know_wrong_from_right() -> None:
    assert not inside("robolearn.policies", allowed("sim_envs.tasks.pusht"))
    assert not inside("sim_envs._base", allowed("robolearn.policies.flow"))
    assert not inside("robolearn.training", allowed("robolearn.policies.flow"))
    assert inside("robolearn.nets.mlp", allowed("robolearn.policies.flow"))
    assert not inside("robolearn.data.store", allowed("robolearn.nets.mlp"))


def test_nothing_below_the_apps_names_torch_where_the_robot_pc_has_none() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        for name, line in imports(path)
        if inside(module_name(path), NO_TORCH)
        and not inside(module_name(path), TORCH_IS_FINE)
        and name.split(".")[0] in ("torch", "torchvision", "diffusers", "accelerate")
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_those_modules_loads_no_torch() -> None:
    modules = [module_name(path) for path in FILES]
    modules = [m for m in modules if inside(m, NO_TORCH) and not inside(m, TORCH_IS_FINE)]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"torch came along with {done.stderr.strip()}"


def test_the_foundation_needs_four_libraries_only() -> None:
    standard = sys.stdlib_module_names
    for path in FILES:
        module = module_name(path)
        libraries = {name.split(".")[0] for name, _ in imports(path)} - set(PACKAGES) - set(standard)
        if module in {f"robolearn.{name}" for name in (*FOUNDATION, "rollout", "rollout_vector", "cli")}:
            assert libraries <= FOUNDATION_LIBRARIES, f"{module} imports {libraries - FOUNDATION_LIBRARIES}"
        if inside(module, ("robolearn.nets",)):
            assert libraries <= NETS_LIBRARIES, f"{module} imports {libraries - NETS_LIBRARIES}"


@pytest.mark.parametrize("verb", registry.names(cli.APPS))
def test_a_command_has_a_config_a_run_and_a_first_line(verb: str) -> None:
    module = registry.load(cli.APPS, verb)
    assert dataclasses.is_dataclass(module.Config), f"{verb}: Config is not a dataclass"
    assert module.Config.__dataclass_params__.frozen, f"{verb}: Config is not frozen"
    assert list(inspect.signature(module.run).parameters), f"{verb}: run takes a config"
    line = cli.summary(verb)
    assert line.endswith((".", ":")) or len(line) <= 130, f"{verb}: the docstring's first line is the help"
    assert 10 < len(line) <= 140, f"{verb}: want one line of help, got {line!r}"
    if hasattr(module, "CONFIGS"):
        assert callable(module.load)


@pytest.mark.parametrize("name", registry.names("robolearn.policies"))
def test_a_policy_has_a_config(name: str) -> None:
    module = registry.load("robolearn.policies", name)
    assert dataclasses.is_dataclass(module.Config) and module.Config.__dataclass_params__.frozen
    assert module.__doc__, f"{name}: say in a docstring what it is and where it comes from"


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_has_a_config_a_body_and_an_expert(name: str) -> None:
    module = tasks.module(name)
    assert dataclasses.is_dataclass(module.Config) and module.Config.__dataclass_params__.frozen
    assert "max_steps" in {field.name for field in dataclasses.fields(module.Config)}
    assert callable(module.make) and callable(module.expert)
    assert module.__doc__, f"{name}: say in a docstring what is to be done"


@pytest.mark.parametrize("package", ["robolearn.apps", "robolearn.policies", "robolearn.data.convert", "sim_envs.tasks"])
def test_the_folder_is_the_catalogue(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    bare = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert set(registry.names(package)) == bare


def test_no_plug_in_is_listed_by_name() -> None:
    """A registry that must be edited is not a registry: no file below the apps names three policies or more."""
    known = registry.names("robolearn.policies")
    for path in FILES:
        if inside(module_name(path), ONLY_APPS_ARE_FREE):
            continue
        strings = {n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert len(strings & set(known)) < 3, f"{path.relative_to(ROOT)} lists policies: {strings & set(known)}"


RUNS_WHAT_IT_READS = ("eval", "exec", "torch.save", "pickle.load", "pickle.loads", "pickle.Unpickler", "pickle.dumps")


def test_nothing_is_pickled() -> None:
    wrong = []
    for path in FILES:
        wrong += [
            f"{path.relative_to(ROOT)}:{line} imports {name}"
            for name, line in imports(path)
            if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib")
            and not (name == "pickle" and path.name == "_restricted_unpickle.py")  # the one that lets nothing run
        ]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                flags = {word.arg: ast.unparse(word.value) for word in node.keywords}
                safe = flags.get("weights_only") == "True" or "numpy" in ast.unparse(node.func) or "np." in ast.unparse(node.func)
                if not safe or flags.get("allow_pickle") == "True":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNS_WHAT_IT_READS:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


def test_only_commands_print() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        if not inside(module_name(path), (*ONLY_APPS_ARE_FREE, "robolearn.config"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "pprint", "breakpoint", "pdb.set_trace")
    ]
    assert not wrong, f"print belongs into robolearn/apps: {', '.join(wrong)}"


def test_no_file_knows_the_developers_machine() -> None:
    home = re.compile(r"/(?:home|Users|root|work|tmp|opt)/[A-Za-z0-9_.-]+")
    kinds = (".py", ".md", ".yaml", ".toml", ".txt", ".html", ".json", ".cfg")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    paths = [ROOT / name for name in files] or FILES
    wrong = []
    for path in paths:
        if path.suffix not in kinds or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if home.search(line) and path != Path(__file__):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 400, f"{path.name}: {len(lines)} lines; move a block out"
    assert ast.get_docstring(tree(path)) or not lines, f"{path.name}: begin with a docstring"
    assert path.stem not in ("utils", "helpers", "common", "misc"), "a name that says nothing"


def test_no_debris_is_left() -> None:
    wrong = []
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(r"\b(TODO|FIXME|XXX)\b(?!.*#\d)", line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
        wrong += [
            f"{path.relative_to(ROOT)}:{node.lineno}: class {node.name}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ClassDef) and node.name.endswith("Manager")
        ]
    assert not wrong, "\n".join(wrong)


def test_every_function_says_its_types() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                bare = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
                if bare or (node.returns is None and node.name != "__init__"):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}({', '.join(bare)})")
    assert not wrong, "\n".join(wrong)


SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_config_loads(path: Path) -> None:
    loads = {
        module.CONFIGS: module.load
        for module in (registry.load(cli.APPS, verb) for verb in registry.names(cli.APPS))
        if hasattr(module, "CONFIGS")
    }
    loads["robot"] = lambda found: _robot_file.read(str(found))  # `deploy --robot`, `calibrate --robot`
    assert path.parent.name in loads, f"configs/{path.parent.name} belongs to no command"
    load = loads[path.parent.name]
    assert load(path) == load(path)
    assert not {"include", "defaults", "_target_"} & set(config.read_yaml(path)), "no file includes another"


def test_the_names_that_others_rely_on_are_shipped() -> None:
    names = config.shipped("train")
    for wanted in (f"{task}_{policy}" for task in ("lift", "pusht") for policy in ("bc", "diffusion", "flow")):
        assert wanted in names, f"configs/train/{wanted}.yaml is missing"


def test_a_package_loads_none_of_its_parts_so_that_a_missing_library_breaks_one_part_only() -> None:
    code = f"import sys; before = set(sys.modules); import {', '.join(PACKAGES)}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == set(PACKAGES)
