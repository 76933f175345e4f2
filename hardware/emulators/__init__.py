"""Emulators of wire protocols, with a plant behind them: for rehearsals and tests, never a silent substitute for a robot."""
