"""One file = one input device."""
