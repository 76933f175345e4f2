"""One file = one robot driver."""
