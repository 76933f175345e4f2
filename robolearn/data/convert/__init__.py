"""One file = one foreign format."""
