"""One file = one way to live on chunks that come late."""
