"""List robots, grippers and cameras: which libraries are here, which ports were found, and the line that adds what is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path

from hardware._base import CAMERAS, GRIPPERS, ROBOTS
from robolearn import registry
from robolearn.apps._report import write_json

PORTS = {
    "serial": ("/dev/serial/by-id/*", "/dev/ttyUSB*", "/dev/ttyACM*"),
    "cameras": ("/dev/v4l/by-id/*", "/dev/v4l/by-path/*"),
}
"""Where the system names ports; the first pattern that finds any counts, since the others name the same ones again."""


@dataclass(frozen=True)
class Config:
    """Flags of `robolearn robots`."""

    json: Path | None = None
    """Write the list to this file."""


@dataclass(frozen=True)
class Row:
    """One driver: what it is, the library it needs ("" none), whether that is here, the line that adds it."""

    kind: str
    name: str
    what: str
    library: str
    ready: bool
    mend: str


def run(cfg: Config) -> int:
    """Prints a line a driver and a line a port; nothing is opened and nothing moves."""
    rows = [row for package in (ROBOTS, GRIPPERS, CAMERAS) for row in drivers(package)]
    for row in rows:
        print(f"{'ready' if row.ready else '-':>5}  {row.kind:<8} {row.name:<12} {row.what}")
        if not row.ready:
            print(f"{'':>5}  {'':<8} {'':<12} missing {row.library}: {row.mend}")
    found = {kind: ports(kind) for kind in PORTS}
    for kind, names in found.items():
        print(f"\n{kind}: " + (", ".join(names) if names else f"none found in {' or '.join(PORTS[kind])}"))
    write_json(cfg.json, {"rows": [asdict(row) for row in rows], "ports": found})
    return 0


def drivers(package: str) -> list[Row]:
    """Returns the drivers of a package; their files import no vendor's library."""
    kind = package.rsplit(".", 1)[1].rstrip("s")
    rows = []
    for name in registry.names(package):
        module = registry.load(package, name)
        library, extra = module.NEEDS or ("", "")
        ready = not library or importlib.util.find_spec(library) is not None
        said = (module.__doc__ or "").split("\n")[0]
        rows.append(Row(kind, name, said, library, ready, "" if ready else f"pip install 'robolearn[{extra}]'"))
    return rows


def ports(kind: str) -> list[str]:
    """Returns the serial ports or cameras that the system names."""
    found = ([str(path) for path in sorted(Path("/").glob(pattern[1:]))] for pattern in PORTS[kind])
    return next((names for names in found if names), [])
