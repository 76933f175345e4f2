"""The embedding cache: what is read is what was written for this encoder and this state of the set, or it is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robolearn.core import ArraySpec, Spec
from robolearn.data import embeddings
from robolearn.data.embeddings import Facts
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

SPEC = Spec(obs={"o": ArraySpec((3,))}, action=ArraySpec((2,)), hz=10)
FACTS = Facts("e" * 64, "n" * 64, ("o",), 0, 2, 5)


def make_set(folder, change: float = 0.0, episodes: int = 3) -> EpisodeSet:
    made = EpisodeSet.create(folder / "toy.zarr", SPEC, task="", env={})
    rng = np.random.default_rng(0)
    for k in range(episodes):
        rows = {"o": rng.normal(size=(20, 3)).astype(np.float32), "action": rng.normal(size=(20, 2)).astype(np.float32)}
        rows["o"][7, 0] += change * (k == 1)
        made.append(rows)
    return EpisodeSet.open(made.path)


@pytest.fixture
def dataset(tmp_path) -> EpisodeSet:
    return make_set(tmp_path)


def values(dataset: EpisodeSet) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, dataset.n_steps, 5)).astype(np.float32)


def write(dataset: EpisodeSet, facts: Facts = FACTS):
    path = embeddings.path_of(dataset.path, facts.key)
    embeddings.write(path, dataset, facts, np.array_split(values(dataset), 4, axis=1))
    return path


def test_what_is_written_in_blocks_is_read_whole_beside_the_set(dataset):
    path = write(dataset)
    np.testing.assert_array_equal(embeddings.read(path, dataset, FACTS), values(dataset))
    assert path.parent.name == "toy.embeddings" and path.parent.parent == dataset.path.parent


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("encoder_sha256", "f" * 64, "another encoder"),
        ("normalizer_sha256", "m" * 64, "another normalizer"),
        ("crop", 40, "crops of 0 px, not 40"),
        ("variants", 1, "has 2 crops a frame, not 1"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_its_reason(dataset, field, value, why):
    path = write(dataset)
    with pytest.raises(DatasetError, match=f"stale: it .*{why}.*--rebuild-cache"):
        embeddings.read(path, dataset, dataclasses.replace(FACTS, **{field: value}))


def test_a_set_that_has_grown_or_changed_in_one_row_makes_the_cache_stale(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    path = write(make_set(tmp_path / "a"))
    with pytest.raises(DatasetError, match="is of 60 frames, the dataset now has 80"):
        embeddings.read(path, make_set(tmp_path / "b", episodes=4), FACTS)
    with pytest.raises(DatasetError, match="the dataset has changed since"):
        embeddings.read(path, make_set(tmp_path / "c", change=1e-3), FACTS)


def test_an_interrupted_write_leaves_nothing_that_opens(dataset):
    path = embeddings.path_of(dataset.path, FACTS.key)

    def blocks():
        yield values(dataset)[:, :30]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embeddings.write(path, dataset, FACTS, blocks())
    assert not path.exists() and not [p for p in path.parent.iterdir() if p.suffix == ".zarr" and not p.name.startswith(".")]
    with pytest.raises(DatasetError, match="no embedding cache"):
        embeddings.read(path, dataset, FACTS)
    with pytest.raises(DatasetError, match="got embeddings of 30 frames, want all 60"):
        embeddings.write(path, dataset, FACTS, [values(dataset)[:, :30]])


def test_two_encoders_have_their_caches_side_by_side(dataset):
    other = dataclasses.replace(FACTS, encoder_sha256="d" * 64)
    first, second = write(dataset), write(dataset, other)
    assert first != second
    embeddings.read(first, dataset, FACTS)
    embeddings.read(second, dataset, other)


IMAGES = Spec({"img": ArraySpec((8, 8, 3), "uint8"), "o": ArraySpec((3,))}, ArraySpec((2,)), 10)


def image_set(path, steps: int = 2500, changed_row: int = -1, key: str = "img") -> EpisodeSet:
    """Returns one episode of images, read anew; `changed_row` of `key` differs."""
    rng = np.random.default_rng(0)
    rows = {"img": rng.integers(0, 200, (steps, 8, 8, 3), np.uint8)}
    rows |= {name: rng.normal(size=(steps, n)).astype(np.float32) for name, n in (("o", 3), ("action", 2))}
    if changed_row >= 0:
        rows[key][changed_row] += np.ones((), rows[key].dtype)
    made = EpisodeSet.create(path, IMAGES, task="", env={}, durable=False)
    made.append(rows)
    return EpisodeSet.open(path)


def test_one_changed_row_among_those_looked_at_changes_the_fingerprint(tmp_path):
    before = embeddings.fingerprint(image_set(tmp_path / "a.zarr"), ("img", "o"))
    assert embeddings.fingerprint(image_set(tmp_path / "b.zarr"), ("img", "o")) == before
    for key, row in (("img", 0), ("img", 1240), ("img", 2498), ("o", 1241), ("action", 1241)):
        changed = image_set(tmp_path / f"{key}_{row}.zarr", changed_row=row, key=key)
        assert embeddings.fingerprint(changed, ("img", "o")) != before, f"{key} at row {row}"


def test_the_fingerprint_is_the_same_from_held_images_from_chunks_and_from_single_rows(tmp_path, monkeypatch):
    dataset = image_set(tmp_path / "a.zarr")
    chunks = embeddings.fingerprint(dataset, ("o", "img"))
    monkeypatch.setattr(embeddings, "_FAR", 1)
    assert embeddings.fingerprint(EpisodeSet.open(dataset.path), ("img", "o")) == chunks
    dataset.held["img"] = dataset.read("img")
    assert embeddings.fingerprint(dataset, ("img", "o")) == chunks


def test_what_the_encoder_does_not_read_does_not_make_the_cache_stale(tmp_path):
    a, b = image_set(tmp_path / "a.zarr"), image_set(tmp_path / "b.zarr", changed_row=3, key="img")
    assert embeddings.fingerprint(a, ("o",)) == embeddings.fingerprint(b, ("o",))


def test_a_write_that_fails_keeps_the_cache_that_was_there(dataset):
    path = write(dataset)
    for blocks in ([values(dataset)[:, :30]], [np.concatenate([values(dataset)] * 2, axis=1)], [np.full((2, 60, 5), np.nan)]):
        with pytest.raises(DatasetError, match=r"want all 60|NaN or infinity in the embedding of row 0"):
            embeddings.write(path, dataset, FACTS, blocks)
    np.testing.assert_array_equal(embeddings.read(path, dataset, FACTS), values(dataset))


def test_blocks_of_any_length_fill_chunks_of_any_length(dataset, monkeypatch):
    monkeypatch.setattr(embeddings, "_CHUNK_BYTES", 7 * 4 * 5)
    path = embeddings.path_of(dataset.path, FACTS.key)
    embeddings.write(path, dataset, FACTS, np.split(values(dataset), [1, 9, 9, 40], axis=1))
    np.testing.assert_array_equal(embeddings.read(path, dataset, FACTS), values(dataset))


def test_a_cache_without_its_flag_a_lost_file_or_a_flipped_byte_is_not_read(dataset):
    path = write(dataset)
    assert embeddings.exists(path)
    chunk = path / "embedding" / "c" / "1" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(DatasetError, match="truncated or corrupt"):
        embeddings.read(path, dataset, FACTS)
    chunk.unlink()
    with pytest.raises(DatasetError, match="files of the embedding cache are missing"):
        embeddings.read(path, dataset, FACTS)
    chunk.write_bytes(whole)
    embeddings.read(path, dataset, FACTS)
    facts = path / "zarr.json"
    facts.write_text(facts.read_text().replace('"complete": true', '"complete": false'))
    assert not embeddings.exists(path)
    with pytest.raises(DatasetError, match="stale: it was never completed"):
        embeddings.read(path, dataset, FACTS)


@pytest.mark.parametrize(
    ("field", "value", "why"), [("obs", ("action",), "observations o, not action"), ("dim", 6, "5 numbers a frame, not 6")]
)
def test_a_cache_of_other_keys_or_width_is_refused_by_its_reason(dataset, field, value, why):
    with pytest.raises(DatasetError, match=f"stale: it .*{why}"):
        embeddings.read(write(dataset), dataset, dataclasses.replace(FACTS, **{field: value}))


def test_sets_whose_names_differ_behind_a_dot_have_caches_of_their_own():
    assert embeddings.path_of("demos.v1", "a" * 16) != embeddings.path_of("demos.v2", "a" * 16)
    assert embeddings.path_of("x/demos.zarr", "a" * 16).as_posix() == f"x/demos.embeddings/{'a' * 16}.zarr"
