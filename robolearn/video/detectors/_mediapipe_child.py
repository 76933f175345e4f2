"""The other end of the detector mediapipe: pictures in on standard input, hands out on standard output, a line of JSON each.

Run by a Python that has MediaPipe and no robolearn. A picture is its height and width (two little-endian uint32) and its RGB
bytes; 0, 0 asks to forget where the hands were.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, BinaryIO


def main(told: dict[str, Any], pictures: BinaryIO, answers: BinaryIO) -> None:
    """Answers every picture until there are no more."""
    import mediapipe
    import numpy as np

    hands = mediapipe.solutions.hands.Hands(**told)
    while header := pictures.read(8):
        height, width = struct.unpack("<II", header)
        found: list[dict[str, Any]] = []
        if height:
            raw = np.frombuffer(pictures.read(height * width * 3), np.uint8)
            found = to_json(hands.process(raw.reshape(height, width, 3)))
        else:
            hands.reset()
        answers.write(json.dumps(found).encode() + b"\n")
        answers.flush()


def to_json(result: Any) -> list[dict[str, Any]]:
    """Returns MediaPipe's hands as plain values; the score is that of the handedness, MediaPipe tells no other."""
    rows = []
    for i, points in enumerate(result.multi_hand_landmarks or []):
        label = result.multi_handedness[i].classification[0]
        world = result.multi_hand_world_landmarks[i].landmark
        row = {"screen": [(p.x, p.y) for p in points.landmark], "world": [(p.x, p.y, p.z) for p in world]}
        rows.append({**row, "label": label.label, "score": label.score})
    return rows


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what MediaPipe's libraries print must not get between the answers
    main(json.loads(sys.argv[1]), sys.stdin.buffer, out)
