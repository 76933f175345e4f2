"""One file = one policy: a Config and a PolicyNet."""
