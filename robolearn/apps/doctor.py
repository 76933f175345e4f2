"""Says what works on this machine, and beside everything that does not the line that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from robolearn import __version__
from robolearn.apps._report import write_json
from robolearn.errors import Findings

GL_INSTALL = "sudo apt-get install -y libegl1 libgl1 libgl1-mesa-dri libosmesa6 libglib2.0-0"
REQUIRED = (
    "numpy",
    "scipy",
    "torch",
    "diffusers",
    "einops",
    "zarr",
    "h5py",
    "opencv-python",
    "av",
    "mujoco",
    "robosuite",
    "pymunk",
    "gymnasium",
    "safetensors",
    "tyro",
)
# module, the package that brings it, what it opens up, the line that installs it
OPTIONAL = (
    ("wandb", "wandb", "logging to Weights & Biases", "pip install wandb"),
    ("dynamixel_sdk", "dynamixel-sdk", "Dynamixel arms", "make sdk"),
    ("serial", "pyserial", "Feetech arms (SO-101)", "make sdk"),
    ("rtde_control", "ur-rtde", "Universal Robots", "make sdk"),
    ("xarm", "xarm-python-sdk", "UFACTORY xArm", "make sdk"),
    ("franky", "franky-control", "Franka FR3", "make sdk"),
    ("pymodbus", "pymodbus", "Robotiq grippers", "make sdk"),
    ("pyrealsense2", "pyrealsense2", "RealSense cameras", "make sdk"),
    ("ruckig", "ruckig", "the limits of a real arm", "make sdk"),
    ("msgpack", "msgpack", "the policy server", "make sdk"),
    ("ai_edge_litert", "ai-edge-litert", "hands in human video", "make video"),
)
_DRAW = """
import os, sys
os.environ["MUJOCO_GL"] = sys.argv[1]
import cv2  # wants libGL and glib of its own
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 2'/><geom size='.1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
picture = renderer.render()
from OpenGL import GL
print("DREW" if picture.max() > 0 else "BLACK", GL.glGetString(GL.GL_RENDERER).decode())
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Config:
    """Flags of `robolearn doctor`."""

    data: Path = Path("data")
    """The folder that datasets and runs are written to."""
    gl: bool = False
    """Only print the name of the GL back end that draws (egl or osmesa)."""
    json: Path | None = None
    """Write the findings to this file."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it works, what was found, the line that mends it; not all things are required."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    required: bool = True


def run(cfg: Config) -> int:
    """Prints the findings; Findings (exit code 1) when something required is missing."""
    if cfg.gl:
        name = working_gl()
        if name is None:
            raise Findings(f"no off-screen renderer works here; run: {GL_INSTALL}")
        print(name)
        return 0
    findings = [*_python(), _torch(), *_renderers(), *_machine(cfg.data), *_optional(), *_hands()]
    for finding in findings:
        sign = "ok" if finding.ok else ("MISSING" if finding.required else "-")
        print(f"{sign:>7}  {finding.name:<18} {finding.found}")
        if not finding.ok and finding.mend:
            print(f"{'':>7}  {'':<18} mend it with: {finding.mend}")
    missing = [finding.name for finding in findings if finding.required and not finding.ok]
    write_json(cfg.json, {"ok": not missing, "rows": [vars(finding) for finding in findings]})
    if missing:
        raise Findings(f"missing: {', '.join(missing)}")
    print("\nEverything required is here.")
    return 0


def working_gl() -> str | None:
    """Returns the first GL back end that really draws, the user's own choice first, or None."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    names = dict.fromkeys(name for name in (chosen, "egl", "osmesa") if name in ("egl", "osmesa", "glfw"))
    return next((name for name in names if _draw(name)[0]), None)


def _draw(gl: str) -> tuple[bool, str]:
    """Draws one picture in a process of its own, since a bad driver takes its process along."""
    environment = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    environment["MUJOCO_GL"] = gl
    command = [sys.executable, "-c", _DRAW, gl]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return False, "did not answer within two minutes"
    for line in done.stdout.splitlines():
        if line.startswith("DREW "):
            return True, f"draws ({line[5:]})"
    return False, (done.stderr.strip().splitlines() or ["no picture"])[-1][:90]


def _renderers() -> list[Finding]:
    drawn = {name: _draw(name) for name in ("egl", "osmesa")}
    found = {name: text if ok else "does not draw (one renderer is enough)" for name, (ok, text) in drawn.items()}
    any_works = any(ok for ok, _ in drawn.values())
    return [Finding(f"renderer {name}", ok, found[name], GL_INSTALL, not any_works) for name, (ok, _) in drawn.items()]


def _python() -> list[Finding]:
    fits = (3, 11) <= sys.version_info < (3, 13)
    rows = [
        Finding("robolearn", True, __version__),
        Finding("python", fits, platform.python_version(), "install Python 3.11 or 3.12, then: make clean && make test"),
    ]
    for name in REQUIRED:
        try:
            rows.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append(Finding(name, False, "not installed", f"pip install -c constraints.txt {name}"))
    return rows


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch device", False, str(error)[:90], "pip install -c constraints.txt torch")
    if torch.cuda.is_available():
        return Finding("torch device", True, f"cuda ({torch.cuda.get_device_name()}), {torch.get_num_threads()} CPU threads")
    return Finding("torch device", True, f"cpu, {torch.get_num_threads()} threads (CUDA: not available)")


def _machine(data: Path) -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    nearest = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(nearest).free / 2**30
    try:
        with tempfile.TemporaryFile(dir=nearest):
            writable, found = True, f"writable, {free:.0f} GiB free"
    except OSError as error:
        writable, found = False, f"not writable ({error.strerror})"
    return [
        Finding("cores", True, str(cores)),
        Finding(
            "memory", memory >= 4, f"{memory:.0f} GiB", "the demo wants 4 GiB; close something or take another machine", False
        ),
        Finding("disk", free >= 2, f"{free:.0f} GiB free", "the demo wants 2 GiB; free some space", False),
        Finding(f"{data}/", writable, found, f"sudo chown -R $USER {nearest}"),
    ]


def _optional() -> list[Finding]:
    rows = []
    for module, package, opens, install in OPTIONAL:
        if importlib.util.find_spec(module) is None:
            rows.append(Finding(package, False, f"not installed: {opens}", install, required=False))
        else:
            rows.append(Finding(package, True, f"{importlib.metadata.version(package)}: {opens}", required=False))
    return rows


def _hands() -> list[Finding]:
    """Returns whether the networks that find hands are here, and MediaPipe, which is only a reference."""
    from robolearn.video.detectors import _models, mediapipe

    lost = [name for name in _models.FILES if not (_models.folder() / f"{name}.tflite").is_file()]
    found = f"not all at {_models.folder()}: hands in human video" if lost else str(_models.folder())
    python = mediapipe.python()
    reference = str(python) if python.is_file() else f"not at {python}: the reference for hands in human video"
    return [
        Finding("hand networks", not lost, found, "make video", required=False),
        Finding("mediapipe", python.is_file(), reference, "make video HANDS=mediapipe", required=False),
    ]
