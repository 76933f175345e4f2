"""One file = one failure predictor."""
