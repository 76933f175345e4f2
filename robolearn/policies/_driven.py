"""Which body a network drives: where its actions are tracks or points of a hand, that of the wrapper that makes poses of them.

No torch here: a robot's check list asks what a policy reads before the policy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robolearn.core import Spec
from robolearn.policies import _pointed, _tracked

if TYPE_CHECKING:  # imports torch, which specs do not need
    from robolearn.policies._learned import Learned

CODECS = (_tracked.CODEC, _pointed.CODEC)  # of specs whose actions become poses on the way to a body


def body_spec(spec: Spec, policy: Mapping[str, Any]) -> Spec:
    """Returns what drives a body, of a network's spec and its policy's config (fields by name)."""
    if spec.codec == _tracked.CODEC:
        return _tracked.body_spec(spec, _tracked.Views.of(policy))
    return _pointed.body_spec(spec) if spec.codec == _pointed.CODEC else spec


def streams_each(policy: Mapping[str, Any]) -> int:
    """Returns how many streams of the network one episode takes."""
    return _tracked.Views.of(policy).streams if "views" in policy else 1


def driver(inner: Learned, policy: Mapping[str, Any], streams: int) -> Learned | _tracked.Tracked | _pointed.Pointed:
    """Returns a network's policy with its way to poses around it, where it has one; `streams` episodes at once."""
    if inner.spec.codec == _tracked.CODEC:
        return _tracked.Tracked(inner, _tracked.Views.of(policy), streams)
    return _pointed.Pointed(inner) if inner.spec.codec == _pointed.CODEC else inner
