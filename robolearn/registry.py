"""The file system is the list: a plug-in is a module of its package, its name is the file's name.

A module is imported only when it is asked for, so that one missing SDK breaks one plug-in and not the program.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from robolearn.errors import MissingDependency, UnknownName


def names(package: str) -> tuple[str, ...]:
    """Returns the plug-ins of `package` ("robolearn.policies"): its modules and sub-packages without an underscore in front."""
    root = importlib.import_module(package)
    return tuple(sorted(m.name for m in pkgutil.iter_modules(root.__path__) if not m.name.startswith("_")))


def load(package: str, name: str, what: str = "") -> ModuleType:
    """Imports plug-in `name` of `package`; UnknownName with the nearest one, MissingDependency where its import fails."""
    known = names(package)
    if name not in known:
        raise UnknownName(what or package.rsplit(".", 1)[-1].rstrip("s"), name, known)
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] in ("robolearn", "sim_envs", "hardware"):
            raise
        raise MissingDependency(str(error.name), f"{package}.{name}", f"pip install {error.name}") from error
