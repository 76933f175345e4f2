"""Embeddings by class, and what was fitted to them: what the scores without a network share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, checked


def classes(episodes: Sequence[Episode], supervised: bool, who: str) -> dict[str, np.ndarray]:
    """Returns all embeddings (n, feature) of successes as `good`, and of failures as `bad` where supervised, in float64.

    BadInput where one of them is empty, the policy gives no embeddings, or they are not finite or of two widths.
    """
    found: dict[str, np.ndarray] = {}
    for name, success in (("good", True), ("bad", False))[: 1 + supervised]:
        some = [e.plans for e in episodes if e.success == success and len(e)]
        if not some:
            kind = "successful" if success else "failed"
            raise BadInput(f"{who}: wants a {kind} episode to fit to, got none among {len(episodes)}")
        width = found["good"].shape[1] if found else some[0].features.shape[1]
        if not width:
            raise BadInput(f"{who}: wants embeddings of at least one number, got none from this policy")
        found[name] = np.concatenate([checked(plans, who, features=width).features for plans in some]).astype(np.float64)
    return found


def fitted(arrays: Mapping[str, np.ndarray], who: str) -> Mapping[str, np.ndarray]:
    """Returns `arrays`; BadInput where nothing was fitted yet."""
    if not arrays:
        raise BadInput(f"{who}: is not fitted yet; fit it, or restore what was fitted")
    return arrays


def restored(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[str, ...]], who: str) -> dict[str, np.ndarray]:
    """Returns copies of `arrays` in float64 if they have these names and shapes; equal words are equal lengths.

    shapes: {"mean": ("feature",), "factor": ("feature", "feature")}. BadInput names what is missing, amiss or not finite.
    """
    if set(arrays) != set(shapes):
        raise BadInput(f"{who}: want the arrays {', '.join(shapes)}, got {', '.join(sorted(arrays)) or 'none'}")
    lengths: dict[str, int] = {}
    taken = {}
    for name, axes in shapes.items():
        array = np.array(arrays[name], np.float64, order="C")
        fits = array.ndim == len(axes) and array.size > 0
        if not fits or any(lengths.setdefault(axis, n) != n for axis, n in zip(axes, array.shape, strict=True)):
            known = ", ".join(f"{axis} {n}" for axis, n in lengths.items()) or "at least 1 each"
            raise BadInput(f"{who}: array '{name}': want ({', '.join(axes)}) with {known}, got {array.shape}")
        if not np.isfinite(array).all():
            raise BadInput(f"{who}: array '{name}' holds NaN or infinity")
        taken[name] = array
    return taken
