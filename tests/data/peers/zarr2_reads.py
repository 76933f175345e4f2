"""Reads a ReplayBuffer with zarr 2, as diffusion_policy does, checks what its ReplayBuffer asserts, and writes an .npz."""

from __future__ import annotations

import sys

import numpy as np
import zarr


def main(path: str, out: str) -> None:
    assert zarr.__version__.startswith("2."), zarr.__version__
    root = zarr.group(zarr.ZipStore(path, mode="r")) if path.endswith(".zip") else zarr.open(path, mode="r")
    ends = root["meta"]["episode_ends"][:]
    assert "data" in root and "meta" in root
    assert ends.dtype == np.int64 and (np.diff(ends, prepend=0) > 0).all()
    for key, value in root["data"].items():
        assert value.shape[0] == ends[-1], key
    for value in root["meta"].values():  # a buffer copied to memory reads all of it
        value[:]
    np.savez(out, ends=ends, img_chunks=root["data"]["img"].chunks, **{key: value[:] for key, value in root["data"].items()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
