"""FIPER: alarm where the observation is new and the policy does not know what to do, both at the same plan.

Roemer, Kobras, Worbis, Schoellig (arXiv 2510.09459, NeurIPS 2025): RND on the policy's embedding AND the entropy of its action
chunks. Here the combination is calibrated as one score; the published way, each apart with the same level, is `joint: false`,
and the released code's choices are `compat="official"` of `_official.py`.
"""

from __future__ import annotations

from robolearn.monitors._recipe import Recipe

RECIPE = Recipe(("rnd", "ace"))
