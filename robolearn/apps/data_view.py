"""Opens a dataset in the browser: cameras, plots, the arm in 3-D, flags of the check, labels one can change."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, MissingDependency


@dataclass(frozen=True)
class Config:
    """Which set to show, and where."""

    path: tyro.conf.Positional[Path]
    """A dataset: NAME.zarr, or a ReplayBuffer of another program (folder or .zarr.zip)."""
    port: int = 8765
    """Of the page; 0: any free one."""
    host: str = "127.0.0.1"
    """Who may open it: by default this computer only."""
    open: bool = True
    """Open the page in the browser."""
    check: Path | None = None
    """A report of `robolearn data check SET --json FILE`, instead of checking now."""
    episode: int = 0
    """The one to show first."""
    read_only: bool = False
    """Labels cannot be changed."""


def run(cfg: Config) -> int:
    """Serves the page until Ctrl-C."""
    dataset = EpisodeSet.open(cfg.path)
    if not dataset.n_episodes:
        raise BadInput(f"{cfg.path}: the set has no episode to show")
    dataset.span(cfg.episode)
    try:
        from robolearn.apps import _view_api, _view_page
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("nicegui", "starlette", "fastapi", "uvicorn"):
            raise
        raise MissingDependency("nicegui", "robolearn data view", "pip install 'robolearn[view]'") from error
    from robolearn.apps._view_flags import flags_of
    from robolearn.apps._view_labels import Labels

    place = _view_page.listen(cfg.host, cfg.port)
    api = _view_api.Api(dataset, Labels(dataset, cfg.read_only), flags_of(dataset, cfg.check))

    def ready(address: str) -> None:
        address += f"#episode={cfg.episode}" if cfg.episode else ""
        print(f"{cfg.path}: {address}  (Ctrl-C ends it)", flush=True)
        if cfg.open:
            webbrowser.open(address)

    _view_page.serve(api, place, ready)
    return 0
