"""The trainer: one flat function, EMA, checkpoints, the loader."""
