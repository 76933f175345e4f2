"""A monitor on disk, beside the checkpoint it watches: RUN/monitors/NAME.

    monitor.yaml          the recipe
    weights.safetensors   what the scores learned, what successes do
    calibration.json      thresholds, and what they were calibrated on

The three belong together: a digest over all of them is kept, and a folder that was edited is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from robolearn import config
from robolearn.errors import AlreadyExists, BadInput, CheckpointError, nearest
from robolearn.monitors._base import Layout
from robolearn.monitors._detector import Detector, Reference
from robolearn.monitors._recipe import Recipe

FILES = ("monitor.yaml", "weights.safetensors", "calibration.json")
SCHEMA = 1


def save(folder: Path, detector: Detector, facts: Mapping[str, Any], overwrite: bool = False) -> None:
    """Writes a monitor's folder, whole or not at all; facts: what it was calibrated on (weights_sha256, task, seeds, ...)."""
    refuse_existing(folder, overwrite)
    tensors: dict[str, np.ndarray] = {"peaks": detector.peaks}
    for name, score in detector.scores.items():
        tensors |= {f"{name}/{key}": np.ascontiguousarray(array) for key, array in score.arrays().items()}
        tensors[f"{name}.mean"], tensors[f"{name}.spread"] = detector.references[name].mean, detector.references[name].spread
    told = {
        "schema": SCHEMA,
        "layout": vars(detector.layout),
        "windows": {name: made.window for name, made in detector.references.items()},
        "apart": _strings(detector.apart),
        "thresholds": _strings(detector.thresholds),
        "n_calibrate": dict(detector.n_calibrate),
        "promised_false_alarm_rate": detector.promised,
        "notes": list(detector.notes),
        **facts,
    }
    told = json.loads(json.dumps(told))  # as it will be read
    recipe, weights = config.to_yaml(detector.recipe).encode(), save_tensors(tensors)
    told["digest"] = digest(recipe, weights, told)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, content in zip(FILES, (recipe, weights, json.dumps(told, indent=1, sort_keys=True).encode()), strict=True):
        with (part / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Raises AlreadyExists where a monitor is there and may not be replaced; to be asked before rollouts are made for it."""
    if folder.exists() and not overwrite:
        raise AlreadyExists(folder, "monitor")


def digest(recipe: bytes, weights: bytes, told: Mapping[str, Any]) -> str:
    """Returns the fingerprint of a monitor's three files; the digest itself does not count."""
    plain = json.dumps({key: value for key, value in told.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(b"\0".join([recipe, hashlib.sha256(weights).digest(), plain.encode()])).hexdigest()


def load(folder: Path, weights_sha256: str | None = None) -> tuple[Detector, dict[str, Any]]:
    """Returns the detector of a folder and what it was calibrated on.

    weights_sha256: of the policy that it shall watch. CheckpointError where the folder is missing, incomplete, edited, or was
    calibrated on another policy.
    """
    if not folder.is_dir():
        there = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        raise CheckpointError(f"{folder}: no such monitor{nearest(folder.name, there)}; make one with: monitor fit")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: '{missing[0]}' is missing; want {', '.join(FILES)}")
    recipe_bytes, weights, told_bytes = ((folder / name).read_bytes() for name in FILES)
    try:
        told: dict[str, Any] = json.loads(told_bytes)
        kept = told["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: calibration.json is broken: {error}") from error
    schema = told.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise CheckpointError(f"{folder}: schema {schema}, this robolearn reads up to {SCHEMA}; upgrade it")
    if digest(recipe_bytes, weights, told) != kept:
        raise CheckpointError(f"{folder}: its files do not belong together (edited or damaged); fit the monitor again")
    if weights_sha256 is not None and told.get("weights_sha256") != weights_sha256:
        raise CheckpointError(f"{folder}: was calibrated on a policy with other weights; fit a monitor for this one")
    return _build(folder, recipe_bytes, weights, told), told


def _build(folder: Path, recipe_bytes: bytes, weights: bytes, told: Mapping[str, Any]) -> Detector:
    try:
        recipe = config.from_mapping(Recipe, yaml.safe_load(recipe_bytes), str(folder / FILES[0]))
        tensors = load_tensors(weights)
        layout = Layout.from_json(told["layout"])
        scores = recipe.make(layout)
        for name, score in scores.items():
            score.restore({key.removeprefix(f"{name}/"): array for key, array in tensors.items() if key.startswith(f"{name}/")})
        windows = told["windows"]
        references = {n: Reference(int(windows[n]), tensors[f"{n}.mean"], tensors[f"{n}.spread"]) for n in recipe.scores}
        return Detector(
            recipe,
            layout,
            scores,
            references,
            _floats(told["apart"]),
            _floats(told["thresholds"]),
            told["n_calibrate"],
            tuple(told["notes"]),
            tensors["peaks"],
        )
    except (KeyError, TypeError, ValueError, yaml.YAMLError, SafetensorError, BadInput) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: cannot be read as a monitor: {why}") from error


def _strings(values: Mapping[str, float]) -> dict[str, str]:
    """Returns floats as text that reads back exactly; JSON has no infinity."""
    return {key: float(value).hex() for key, value in values.items()}


def _floats(values: Mapping[str, str]) -> dict[str, float]:
    return {key: float.fromhex(value) for key, value in values.items()}
