"""List robots, grippers and cameras: which libraries are here, which ports were found, and the line that adds what is missing."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path

from hardware._base import CAMERAS, GRIPPERS, ROBOTS
from robolearn import registry
from robolearn.apps._report import write_json

SDKS = {
    "robots.koch": ("dynamixel_sdk", "dynamixel"),
    "robots.viperx": ("dynamixel_sdk", "dynamixel"),
    "robots.so101": ("serial", "feetech"),
    "robots.ur5e": ("rtde_control", "ur"),
    "robots.xarm7": ("xarm", "xarm"),
    "robots.fr3": ("franky", "franka"),
    "grippers.robotiq_2f": ("pymodbus", "robotiq"),
    "cameras.realsense": ("pyrealsense2", "realsense"),
}
"""The library that a driver speaks through, and the extra of robolearn that brings it; the others need none."""
PORTS = {"serial": ("/dev/serial/by-id", "/dev"), "cameras": ("/dev/v4l/by-id", "/dev/v4l/by-path")}


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
    """Returns the drivers of a package, read from their files without importing any of them."""
    rows = []
    for name in registry.names(package):
        spec = importlib.util.find_spec(f"{package}.{name}")
        assert spec is not None and spec.origin is not None
        said = (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").split("\n")[0]
        kind = package.rsplit(".", 1)[1]
        library, extra = SDKS.get(f"{kind}.{name}", ("", ""))
        ready = not library or importlib.util.find_spec(library) is not None
        mend = "" if ready else f"pip install 'robolearn[{extra}]'"
        rows.append(Row(kind.rstrip("s"), name, said, library, ready, mend))
    return rows


def ports(kind: str) -> list[str]:
    """Returns the serial ports or cameras that the system names."""
    named = [str(path) for folder in PORTS[kind] if folder != "/dev" for path in sorted(Path(folder).glob("*"))]
    plain = [str(path) for pattern in ("ttyUSB*", "ttyACM*") for path in sorted(Path("/dev").glob(pattern))]
    return named or (plain if kind == "serial" else [])
