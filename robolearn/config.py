"""A config is a frozen dataclass, filled by one flat YAML file and overridden by flags: default < file < flag.

No file includes another. Unknown keys and wrong types name file, field and the nearest right name. `to_yaml` writes the
complete resolved config, which is what a run folder keeps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from robolearn.errors import ConfigError, UnknownName, nearest

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 1e-4 is a number, a duplicate key an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _no_duplicates(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=deep) for key, _ in node.value]
    for number, (key, (mark, _)) in enumerate(zip(keys, node.value, strict=True)):
        if key in keys[:number]:
            raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", mark.start_mark)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def config_folder() -> Path:
    """Returns the folder of the shipped configs: configs/ of a checkout, or the copy inside the installed wheel."""
    checkout = Path(__file__).resolve().parent.parent / "configs"
    return checkout if checkout.is_dir() else Path(str(resources.files("robolearn") / "_configs"))


def find(command: str, name: str) -> Path:
    """Returns the file of a config given by path or by the name of a shipped one; UnknownName with the nearest one."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; shipped configs: {', '.join(shipped(command))}")
        return path
    if name not in shipped(command):
        raise UnknownName(f"{command} config", name, shipped(command))
    return config_folder() / command / f"{name}.yaml"


def shipped(command: str) -> list[str]:
    """Returns the names of the shipped configs of one command."""
    return sorted(p.stem for p in (config_folder() / command).glob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file; ConfigError with line and column where it is not YAML."""
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: want 'key: value' lines, got {type(values).__name__}")
    return values


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str, choose: Mapping[str, type] | None = None) -> T:
    """Returns the frozen dataclass `cls` filled from nested `values`; ConfigError names `where`, the field, and the nearest one.

    choose: the type to use for a field, by name, instead of its annotation (the policy's own Config).
    """
    hints = typing.get_type_hints(cls)
    declared = dataclasses.fields(cls)  # type: ignore[arg-type]
    fields = {f.name: (choose or {}).get(f.name, hints[f.name]) for f in declared}
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: unknown field '{key}'{nearest(str(key), fields)}")
    filled = {key: _value(fields[key], value, f"{where}: {key}") for key, value in values.items()}
    missing = [
        f.name
        for f in declared
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in filled
    ]
    if missing:
        raise ConfigError(f"{where}: field '{missing[0]}' is required")
    try:
        return cls(**filled)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        errors = []
        for arm in (a for a in args if a is not type(None)):
            try:
                return _value(arm, value, where)
            except ConfigError as error:
                errors.append(error)
        raise errors[0]
    if origin is typing.Annotated:
        return _value(args[0], value, where)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{where}: unknown value '{value}'{nearest(str(value), map(str, args))}")
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: want a mapping, got {value!r}")
        return from_mapping(kind, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: want a list, got {value!r}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value(args[0], v, where) for v in value)
        if len(args) != len(value):
            raise ConfigError(f"{where}: want {len(args)} values, got {len(value)}")
        return tuple(_value(a, v, where) for a, v in zip(args, value, strict=True))
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: want a mapping, got {value!r}")
        held = args[1] if len(args) == 2 else Any
        return {key: _value(held, one, f"{where}: {key}") for key, one in value.items()}
    if kind is Any:
        return value
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise ConfigError(f"{where}: want {getattr(kind, '__name__', kind)}, got {value!r}")


def to_mapping(config: Any) -> dict[str, Any]:
    """Returns the nested plain values of a config dataclass, complete, in field order."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(config)


def to_yaml(config: Any) -> str:
    """Returns the complete config as YAML; `from_mapping(read_yaml(...))` gives an equal config back."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False, default_flow_style=None, width=120)


def from_flags(kind: Any, flags: Sequence[str], prog: str, default: Any = None, description: str | None = None) -> Any:
    """Returns the config of type `kind` with command line `flags` applied; ConfigError in one line where they do not fit.

    --help prints and exits, as everywhere.
    """
    error_text = io.StringIO()
    arguments: dict[str, Any] = {"prog": prog, "args": list(flags), "description": description}
    if default is not None:
        arguments["default"] = default
    try:
        with contextlib.redirect_stderr(error_text):
            return tyro.cli(kind, config=(tyro.conf.HelptextFromCommentsOff,), **arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        message = _one_line(error_text.getvalue())
        raise ConfigError(f"{prog}: {message}") from None
    except ValueError as error:
        raise ConfigError(f"{prog}: {error}") from error


def _one_line(panel: str) -> str:
    """Returns what tyro's error panel says, as one line in our own words."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│╭╰╮╯─ \n") for line in panel.splitlines()]
    text = re.sub(r"\s+", " ", " ".join(line for line in lines if line)).split(" For full helptext")[0]
    if found := re.search(r"Unrecognized options: (.+?)(?=,|$| Perhaps| Arguments)", text):
        near = re.search(r"(?:Perhaps you meant|Arguments similar to \S+): (--[\w.-]+)", text)
        hint = f"; did you mean {near[1]}?" if near else ""
        return f"unknown flag {found[1]}{hint}" if found[1].startswith("-") else f"unexpected argument '{found[1]}'"
    text = re.sub(r"[-─]{5,}", "", text).strip()
    if found := re.search(r"Error parsing (\S+): (.+?) Argument helptext: (?:-\S+ )*(.+?)(?= \(|$)", text):
        got = re.findall(r"'[^']*'", found[2])
        return f"{found[1]}: want {found[3]}, got {got[-1]}" if got else f"{found[1]}: {found[2]}"
    if found := re.search(r"invalid choice ('.*?') for argument '(\S+)'\. Expected one of \((.+?),?\)", text):
        return f"{found[2]}: want one of {found[3]}, got {found[1]}"
    if found := re.search(r"Missing value for argument '(\S+)'\. Expected (\d+)", text):
        return f"{found[1]}: want {found[2]} value{'s' * (found[2] != '1')}, got fewer"
    if found := re.search(r"Missing from .*?: (.+)", text):
        return f"missing: {found[1]}"
    return re.sub(r"^Value error Error parsing (?:Config: )?(?=\w)", "", text).strip() or "the flags do not fit"


def warn(message: str) -> None:
    """Prints one line to standard error."""
    print(message, file=sys.stderr, flush=True)
