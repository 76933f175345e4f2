"""Codecs: one file is one action space, and how it becomes joint setpoints of an arm and back; `Spec.codec` is its name."""
