"""One file = one command of `robolearn`; the only place where bodies, minds and files are wired together."""
