"""One file = one camera driver."""
