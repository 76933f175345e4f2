"""The program `robolearn`: one verb a file of robolearn/apps, the same exit codes everywhere.

A verb of two words (`data info`) is the file data_info.py. A verb's file holds `Config`, a frozen dataclass that
becomes its flags, and `run(cfg)`. A verb whose file has `CONFIGS = "train"` takes a shipped config's name or a YAML path
as its first argument and has `load(path) -> Config`.
Exit codes: 0 fine, 1 findings or a bar missed, 2 bad input, 3 halted by an alarm, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from robolearn import __version__, config, registry
from robolearn.errors import ConfigError, RobolearnError, UnknownName

APPS = "robolearn.apps"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; errors are one line on standard error (`--traceback` for more)."""
    args = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in args
    args = [a for a in args if a != "--traceback"]
    try:
        return dispatch(args)
    except KeyboardInterrupt:
        print("robolearn: interrupted", file=sys.stderr)
        return 130
    except RobolearnError as error:
        if traceback:
            raise
        message = " ".join(str(error).split())
        print(message if message.startswith("robolearn ") else f"robolearn: {message}", file=sys.stderr)
        return error.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)
    except BrokenPipeError:
        return 0
    except OSError as error:
        if traceback:
            raise
        print(f"robolearn: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 2


def dispatch(args: list[str]) -> int:
    """Finds the verb, reads its flags and runs it."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(__version__)
        return 0
    verb, rest = find_verb(args)
    module = registry.load(APPS, verb, what="verb")
    prog = f"robolearn {verb.replace('_', ' ')}"
    if hasattr(module, "CONFIGS") and rest and not rest[0].startswith("-"):
        cfg = config.from_flags(module.Config, rest[1:], prog, default=module.load(config.find(module.CONFIGS, rest[0])))
    elif hasattr(module, "CONFIGS") and not rest:
        shipped = ", ".join(config.shipped(module.CONFIGS))
        raise ConfigError(f"{prog}: want a config first, a YAML file or one of the shipped: {shipped}")
    else:
        cfg = config.from_flags(module.Config, rest, prog, description=module.__doc__)
    return int(module.run(cfg) or 0)


def find_verb(args: list[str]) -> tuple[str, list[str]]:
    """Returns the module name of the verb that `args` begins with, and the arguments after it."""
    known = registry.names(APPS)
    word = args[0].replace("-", "_")
    if len(args) > 1 and f"{word}_{args[1].replace('-', '_')}" in known:
        return f"{word}_{args[1].replace('-', '_')}", args[2:]
    if word in known and "_" not in args[0]:
        return word, args[1:]
    family = sorted(name.split("_", 1)[1] for name in known if name.startswith(f"{word}_"))
    if family and (len(args) == 1 or args[1] in ("-h", "--help")):
        print("\n".join(f"robolearn {args[0]} {name.replace('_', ' '):<12} {summary(f'{word}_{name}')}" for name in family))
        raise SystemExit(0 if len(args) > 1 else 2)
    if family:
        raise UnknownName("verb", args[1], family, where=f"robolearn {args[0]}")
    verbs = sorted({name.split("_")[0] for name in known})
    raise UnknownName("verb", args[0], verbs)


def summary(verb: str) -> str:
    """Returns the first line of a verb's docstring, read from its source without importing it."""
    import ast
    import importlib.util

    spec = importlib.util.find_spec(f"{APPS}.{verb}")
    assert spec is not None and spec.origin is not None
    with open(spec.origin) as file:
        return (ast.get_docstring(ast.parse(file.read())) or "").split("\n")[0]


def overview() -> str:
    """Returns the list of verbs with one line each."""
    rows = "\n".join(f"  {name.replace('_', ' '):<16} {summary(name)}" for name in registry.names(APPS))
    return f"robolearn {__version__}\n\n{rows}\n\nrobolearn VERB --help says more about one."
