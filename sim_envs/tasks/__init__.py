"""One file = one task: a Config, an Env, a scripted expert."""
