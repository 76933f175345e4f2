"""Plain torch blocks; they know no robot and no config."""
