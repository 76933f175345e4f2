"""Several sets as one: what does not fit is refused by name, facts and filters are united, ids stay unique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data import _remote
from robolearn.data._compare import FIELDS, differences
from robolearn.data._compose import Piece, build, travelling, united_facts
from robolearn.data._files import built_aside
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError, SpecMismatch, UnknownName


@dataclass(frozen=True)
class MergeOptions:
    """How sets become one.

    keys: only these (and action), none: all; allow: fields of the spec in which the sets may differ, the first one's
    counts; skip_duplicates: of episodes with the same uuid only the first is taken; overwrite: replace what is there.
    """

    keys: Sequence[str] = ()
    allow: Sequence[str] = ()
    skip_duplicates: bool = False
    overwrite: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Merged:
    """What a merge does (or would do); skipped: duplicates left out, by the name of their set."""

    episodes: int
    steps: int
    keys: list[str]
    sources: list[dict[str, Any]]
    renumbered: bool
    skipped: dict[str, list[int]] = field(default_factory=dict)


def merge(sources: Sequence[Path], out: Path, options: MergeOptions = MergeOptions()) -> Merged:
    """Writes one set of the episodes of several, in their order, and returns what was written.

    SpecMismatch names the key and the field in which a set differs from the first. Facts and filters are united. `id`: kept
    where all have one and no two are the same, otherwise new ones from 0; `origin` and `origin_id` say where each came from.
    """
    if len(sources) < 2:
        raise BadInput(f"merge: want two sets or more, got {len(sources)}")
    _remote.refuse_writing(_remote.locate(out))
    places = [str(path if isinstance(path, _remote.Address) else path.resolve()) for path in map(_remote.locate, sources)]
    if twice := next((path for path, place in zip(sources, places, strict=True) if places.count(place) > 1), None):
        raise BadInput(f"merge: {twice} is given twice")
    if out.exists() and not options.overwrite:
        raise AlreadyExists(out, "dataset")
    datasets = [EpisodeSet.open(path) for path in sources]
    names = _names(sources)
    keys = _common_keys(datasets, options)
    _require_alike(datasets, keys, options.allow)
    pieces, skipped = _without_duplicates(datasets, names, options.skip_duplicates)
    facts, renumbered = _merged_facts(pieces, names)
    attributes = _merged_attributes(datasets, names, keys)
    rows = [
        {"name": name, "path": str(d.path), "episodes": len(p.episodes), "steps": int(p.lengths.sum())}
        for d, name, p in zip(datasets, names, pieces, strict=True)
    ]
    if not options.dry_run:
        with built_aside(out, options.overwrite) as part:
            build(part, pieces, facts, attributes, keys=keys)
    episodes, steps = sum(len(p.episodes) for p in pieces), sum(int(p.lengths.sum()) for p in pieces)
    return Merged(episodes, steps, list(keys), rows, renumbered, skipped)


def _names(sources: Sequence[Path]) -> list[str]:
    """Returns a short name of each source, all different."""
    stems = [path.name.removesuffix(".zip").removesuffix(".zarr") for path in sources]
    return [stem if stems.count(stem) == 1 else f"{path.parent.name}/{stem}" for stem, path in zip(stems, sources, strict=True)]


def _common_keys(datasets: Sequence[EpisodeSet], options: MergeOptions) -> tuple[str, ...]:
    first = datasets[0]
    if not options.keys:
        more = [(d.path, key) for d in datasets[1:] for key in d.keys if key not in first.keys]
        if more:
            common = [key for key in first.keys if all(key in d.keys for d in datasets) and key != "action"]
            raise SpecMismatch(
                f"{more[0][0]}: holds '{more[0][1]}', which {first.path} does not; --keys {','.join(common)} merges what all hold"
            )
        return tuple(first.keys)
    for key in options.keys:
        if key not in first.keys:
            raise UnknownName("key", key, first.keys, str(first.path))
    return tuple(key for key in first.keys if key in options.keys or key == "action")


def _require_alike(datasets: Sequence[EpisodeSet], keys: Sequence[str], allow: Sequence[str]) -> None:
    for name in allow:
        if name not in FIELDS:
            raise UnknownName("field to allow", name, FIELDS)
    first = datasets[0]
    for other in datasets[1:]:
        found = [d for d in differences(first, other, keys) if d.field not in allow]
        if found:
            fields = sorted({d.field for d in found} & set(FIELDS))
            hard = [d for d in found if d.field not in FIELDS]
            way = f"--keys leaves '{hard[0].key}' out" if hard else f"--allow {','.join(fields)} takes the first set's"
            shown = "; ".join(map(str, found[:3])) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
            raise SpecMismatch(f"{first.path} and {other.path} do not fit: {shown}. {way}")


def _without_duplicates(
    datasets: Sequence[EpisodeSet], names: Sequence[str], skip: bool
) -> tuple[list[Piece], dict[str, list[int]]]:
    """Returns all episodes, or those whose uuid did not come before; DatasetError where one did and `skip` is False."""
    seen: dict[str, tuple[str, int]] = {}
    pieces, skipped = [], {}
    for dataset, name in zip(datasets, names, strict=True):
        uuids = dataset.episode_field("uuid")
        twice: list[int] = []
        for index, uuid in enumerate([] if uuids is None else uuids.tolist()):
            if uuid and uuid in seen:
                if not skip:
                    where, before = seen[uuid]
                    raise DatasetError(
                        f"{dataset.path}: episode {index} is episode {before} of {where} once more (uuid {uuid}); "
                        f"--skip-duplicates takes the first of each"
                    )
                twice.append(index)
            elif uuid:
                seen[uuid] = (name, index)
        pieces.append(Piece(dataset, np.setdiff1d(np.arange(dataset.n_episodes), twice)))
        if twice:
            skipped[name] = twice
    return pieces, skipped


def _merged_facts(pieces: Sequence[Piece], names: Sequence[str]) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the united facts with `origin`, `origin_id` and unique `id`s, and whether the ids are new."""
    facts = united_facts(pieces)
    counts = [len(piece.episodes) for piece in pieces]
    old = facts.get("id", np.full(sum(counts), -1, np.int64)).astype(np.int64)
    renumbered = bool((old < 0).any() or len(np.unique(old)) < len(old))
    facts["origin"] = np.repeat(np.array(names), counts)
    facts["origin_id"] = old if (old >= 0).any() else np.concatenate([piece.episodes for piece in pieces]).astype(np.int64)
    facts["id"] = np.arange(len(old), dtype=np.int64) if renumbered else old
    return facts, renumbered


def _merged_attributes(datasets: Sequence[EpisodeSet], names: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Returns the first set's attributes for these keys; what the others say differently stands under `merged`."""
    attributes = reduced(travelling(datasets[0].attrs), keys)
    told = ("schema", "keys", "spec", "hz", "task", "env", "merged", "generation", "trash", "next_id")
    attributes["merged"] = [
        {
            "name": name,
            "episodes": d.n_episodes,
            **{k: v for k, v in d.attrs.items() if k not in told and datasets[0].attrs.get(k) != v},
        }
        for d, name in zip(datasets, names, strict=True)
    ]
    return attributes


def reduced(attributes: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Returns the attributes of a set that holds these keys only."""
    if "keys" in attributes:
        attributes["keys"] = {key: value for key, value in attributes["keys"].items() if key in keys}
    if "spec" in attributes:
        spec = dict(attributes["spec"])
        for part in ("obs", "cameras", "goal"):
            spec[part] = {key: value for key, value in spec.get(part, {}).items() if key in keys}
        attributes["spec"] = spec
    return attributes
