"""The embeddings of all frames of a set, made once by a frozen encoder and kept beside the set.

    NAME.embeddings/<key>.zarr/
      embedding     (variants, steps, dim) float32; variant: the centre crop, or one random crop of each frame
      attributes    version, complete, encoder_sha256, normalizer_sha256, obs, crop, variants, dim, dataset_sha256, steps

Long histories are trained on these instead of images (Torne et al., arXiv 2505.09561, multistage training). An embedding
that does not belong to the encoder, the normalizer or the frames trains a policy that fails without a word: `read` takes none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from robolearn.data import _remote
from robolearn.data._files import built_aside, locked
from robolearn.data._memory import as_size, fits, free_memory
from robolearn.data.images import frame_blocks, is_image
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import load_key
from robolearn.errors import DatasetError

VERSION = 1
_ARRAY = "embedding"
_SAMPLE = 2000  # images of a key that its fingerprint looks at
_FAR = 64  # frames between two of them from which on each is read alone: a frame costs a few ms, a whole chunk file tens
_CHUNK_BYTES = 4 * 1024 * 1024
_PATIENCE_S = 86400.0  # for another process that is encoding the same set
_REBUILD = "`robolearn train CONFIG --rebuild-cache` makes it anew"


@dataclass(frozen=True)
class Facts:
    """What embeddings follow from, beside the frames.

    encoder_sha256, normalizer_sha256: of their numbers; obs: the keys the encoder reads; crop: side [px], 0: whole image;
    variants: random crops of each frame, 1: the centre crop or one random one; dim: numbers an embedding.
    """

    encoder_sha256: str
    normalizer_sha256: str
    obs: tuple[str, ...]
    crop: int
    variants: int
    dim: int

    @property
    def key(self) -> str:
        """A name of 16 hex digits: another encoder, crop or number of variants lies beside, not in the way."""
        said = json.dumps([self.encoder_sha256, self.obs, self.crop, self.variants])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def path_of(dataset_path: str | Path, key: str) -> Path:
    """Returns where the embeddings with this `Facts.key` lie: NAME.embeddings/KEY.zarr (of a remote set: in the local cache)."""
    place = _remote.locate(dataset_path)
    folder = _remote.beside(place, ".embeddings")
    if not isinstance(place, _remote.Address):  # a name may hold other dots: demos.v2 is not demos.v1
        folder = place.with_name(place.name.removesuffix(".zarr") + ".embeddings")
    return folder / f"{key[:16]}.zarr"


def exists(path: Path) -> bool:
    """Tells whether complete embeddings lie at `path`, whatever they were made of."""
    try:
        return bool(_open(path).attrs.get("complete", False))
    except DatasetError:
        return False


def fingerprint(dataset: EpisodeSet, keys: Sequence[str]) -> str:
    """Returns 64 hex digits that change with the episodes, the actions or what `keys` hold.

    Vectors are looked at whole. Of images at most 2,000 are, evenly spread: of 25,000 frames every 13th, so that a changed
    episode is noticed and a retouched single frame may not be.
    """
    digest = hashlib.sha256()
    named = (*sorted(set(keys) - {"action"}), "action")
    arrays = {key: [list(dataset.keys[key].shape), dataset.keys[key].dtype] for key in named}
    said = [dataset.attrs.get("schema"), arrays, dataset.episode_ends.tolist()]
    digest.update(json.dumps(said, sort_keys=True).encode())
    for key in named:
        digest.update(_looked_at(dataset, key).tobytes())
    return digest.hexdigest()


def _looked_at(dataset: EpisodeSet, key: str) -> np.ndarray:
    """Returns the rows of one key that the fingerprint is made of, in the form in which they are trained on."""
    if not is_image(dataset.keys[key]):
        return load_key(dataset, key)
    stride = max(1, -(-dataset.n_steps // _SAMPLE))
    held = dataset.held.get(key)
    if held is not None and len(held) == dataset.n_steps:
        return np.ascontiguousarray(held[::stride])
    if stride >= _FAR and dataset.array(key).dtype == np.uint8:
        return np.concatenate([dataset.read(key, row, row + 1) for row in range(0, dataset.n_steps, stride)])
    return np.concatenate([block[-start % stride :: stride] for start, block in frame_blocks(dataset, key)])


def write(path: Path, dataset: EpisodeSet, facts: Facts, blocks: Iterable[np.ndarray]) -> None:
    """Puts embeddings at `path`, in place of what stood there; blocks: (variants, rows, dim) of the set's frames in order.

    They are built aside, flushed and renamed: a crash at any instant leaves what was there before. DatasetError where the
    blocks are not all frames of the set, or not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, "embedding cache", wait_s=_PATIENCE_S), built_aside(path, overwrite=True, what="embedding cache") as part:
        group = zarr.create_group(part, zarr_format=3)
        array = group.create_array(
            _ARRAY,
            shape=(facts.variants, dataset.n_steps, facts.dim),
            chunks=(1, _chunk_rows(dataset.n_steps, facts.dim), facts.dim),
            dtype="float32",
            compressors=(Crc32cCodec(),),
        )
        _fill(array, blocks, path)
        group.attrs.update(
            {
                "version": VERSION,
                **asdict(facts),
                "dataset_sha256": fingerprint(dataset, facts.obs),  # after the blocks: of the frames they were made of
                "steps": dataset.n_steps,
                "complete": True,
            }
        )


def _chunk_rows(steps: int, dim: int) -> int:
    return max(1, min(steps, _CHUNK_BYTES // (4 * max(1, dim))))


def _fill(array: zarr.Array, blocks: Iterable[np.ndarray], path: Path) -> None:
    """Writes the blocks one behind the other, whole chunks at a time."""
    variants, steps, dim = array.shape
    step, row, waiting = array.chunks[1], 0, np.empty((variants, 0, dim), np.float32)
    for block in blocks:
        if block.ndim != 3 or (block.shape[0], block.shape[2]) != (variants, dim):
            raise DatasetError(f"{path}: want embeddings ({variants}, rows, {dim}), got {block.shape}")
        if not np.isfinite(block).all():
            bad = row + waiting.shape[1] + int(np.argwhere(~np.isfinite(block))[0][1])
            raise DatasetError(f"{path}: NaN or infinity in the embedding of row {bad}; the encoder is broken, train it again")
        waiting = np.concatenate([waiting, block.astype(np.float32, copy=False)], axis=1)
        if row + waiting.shape[1] > steps:
            raise DatasetError(f"{path}: got embeddings of more than {steps} frames, want all {steps} and no more")
        whole = waiting.shape[1] // step * step
        if whole:
            array[:, row : row + whole] = waiting[:, :whole]
            row, waiting = row + whole, waiting[:, whole:]
    if row + waiting.shape[1] < steps:
        raise DatasetError(f"{path}: got embeddings of {row + waiting.shape[1]} frames, want all {steps}")
    if waiting.shape[1]:
        array[:, row:] = waiting


def read(path: Path, dataset: EpisodeSet, facts: Facts) -> np.ndarray:
    """Returns the embeddings (variants, steps, dim) float32; DatasetError says what is missing, stale or broken."""
    group = _open(path)
    if reason := _stale(dict(group.attrs), dataset, facts):
        raise DatasetError(f"{path}: stale: it {reason}; {_REBUILD}")
    array = group[_ARRAY]
    if array.shape != (facts.variants, dataset.n_steps, facts.dim) or array.nchunks_initialized != array.nchunks:
        raise DatasetError(f"{path}: files of the embedding cache are missing; {_REBUILD}")
    need, free = 4 * int(np.prod(array.shape, dtype=np.int64)), free_memory()
    if not fits(need, free):
        raise DatasetError(
            f"{path}: want {as_size(need)} of memory for the embeddings, {as_size(free)} are free; cache fewer crops"
        )
    try:
        return np.asarray(array[:], np.float32)
    except Exception as error:
        raise DatasetError(f"{path}: the embedding cache is truncated or corrupt ({error}); {_REBUILD}") from error


def _open(path: Path) -> zarr.Group:
    """Returns the group at `path`; DatasetError where there is none."""
    try:
        group = zarr.open_group(zarr.storage.LocalStore(path, read_only=True), mode="r")
    except Exception as error:
        what = "no embedding cache" if not path.exists() else "want an embedding cache, got something else"
        raise DatasetError(f"{path}: {what}; {_REBUILD}") from error
    if _ARRAY not in group:
        raise DatasetError(f"{path}: want an embedding cache, got a zarr group without '{_ARRAY}'; {_REBUILD}")
    return group


def _stale(found: dict[str, Any], dataset: EpisodeSet, facts: Facts) -> str:
    """Returns what an embedding cache with the attributes `found` is, where it is not that of `facts` and `dataset`; else ""."""
    if not found.get("complete", False):
        return "was never completed"
    if found.get("version") != VERSION:
        return f"has format {found.get('version')}, this robolearn reads {VERSION}"
    if found.get("encoder_sha256") != facts.encoder_sha256:
        return "is of another encoder"
    if found.get("normalizer_sha256") != facts.normalizer_sha256:
        return "was made with another normalizer"
    if found.get("obs") != list(facts.obs):
        return f"is of the observations {', '.join(found.get('obs', ()))}, not {', '.join(facts.obs)}"
    if found.get("crop") != facts.crop:
        return f"shows crops of {found.get('crop')} px, not {facts.crop}"
    if found.get("variants") != facts.variants:
        return f"has {found.get('variants')} crops a frame, not {facts.variants}"
    if found.get("dim") != facts.dim:
        return f"has {found.get('dim')} numbers a frame, not {facts.dim}"
    if found.get("steps") != dataset.n_steps:
        return f"is of {found.get('steps')} frames, the dataset now has {dataset.n_steps}"
    if found.get("dataset_sha256") != fingerprint(dataset, facts.obs):
        return f"does not fit, the dataset has changed since ({dataset.n_steps} frames then and now, other contents)"
    return ""
