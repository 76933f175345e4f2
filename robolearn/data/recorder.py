"""`EpisodeWriter`: a sink that loses nothing. The control loop hands over and goes on; another process encodes and saves.

    with EpisodeWriter(Path("data/demos/cups.zarr"), {"task": "cups"}) as recorder:
        rollout(body, person, max_steps=2000, sinks=[recorder])
        recorder.saved[-1]

What lies between the two processes is bounded. Where the disk or the encoder cannot keep up and the bound is reached, the
episode ends with a named reason and everything before is saved; nothing is dropped in silence and the loop never waits.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn import __version__, config
from robolearn.clock import now_ns
from robolearn.core import SOURCES, Outcome, Spec, Tick
from robolearn.data._codec import Codec
from robolearn.data._files import locked
from robolearn.data._link import Link
from robolearn.data.journal import Journal, Saved, folder_of
from robolearn.errors import DatasetError, EpisodeStopped

Piece = tuple[str, Any, np.ndarray]  # name in the journal, facts of it, value
_EVENTS = {"success": "success", "failure": "failure"}  # what a person's device says, and the label it gives
_REMEMBERED = 256  # pictures of a camera that a tick may still point at


@dataclass(frozen=True)
class Recording:
    """How to record.

    codec: of the pictures; buffer_mib: memory between the control loop and the disk; pack: when saved episodes go into the
    set (idle: between episodes, but for the last, which may be taken back; each: before `end` returns; close; never);
    save_s: how long `end` waits for the disk; least_free_mib: an episode is not begun with less on the disk; latency_s: by
    stream, how late its values come [s].
    """

    codec: Codec = Codec()
    buffer_mib: int = 256
    pack: Literal["idle", "each", "close", "never"] = "idle"
    save_s: float = 120.0
    least_free_mib: int = 200
    latency_s: Mapping[str, float] = field(default_factory=dict)


class EpisodeWriter:
    """Records episodes of any body into the journal of the set `path`, and packs them into it.

    facts: what is true of all episodes: task, env (rebuilds a simulated body), operator, robot, device, ...; state: gives the
    simulator's state, where there is one; clock: now [ns], monotonic and wall. saved: what was acknowledged, in order.
    """

    def __init__(
        self,
        path: Path,
        facts: Mapping[str, Any] | None = None,
        how: Recording = Recording(),
        state: Callable[[], np.ndarray] | None = None,
        clock: Callable[[], dict[str, int]] = now_ns,
    ) -> None:
        self.path, self.how = Path(path), how
        self._facts, self._state, self._clock = dict(facts or {}), state, clock
        how.codec.encoder()  # a missing library is said here, not in the other process
        self.journal = Journal(folder_of(self.path))
        self.saved: list[Saved] = []
        self._open = False
        options: dict[str, Any] = {"set": os.fspath(self.path.absolute()), "journal": os.fspath(self.journal.folder.absolute())}
        options |= {"codec": asdict(how.codec), "pack": how.pack}
        with ExitStack() as stack:
            # The recorder's process has the lock too: it may live on for a while when this one is killed.
            lock = stack.enter_context(locked(self.journal.folder, "journal", wait_s=2.0))
            self._link = Link(self.journal.folder, how.buffer_mib, options, lock)
            for note in self._link.wait_for({"ready"}, 60.0).get("notes", ()):
                config.warn(f"robolearn: {self.journal.folder}: {note}")
            self._held = stack.pop_all()

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Begins an episode; DatasetError where the disk is nearly full or the recorder is gone."""
        self._link.listen()
        self._link.failed = ""
        free = os.statvfs(self.journal.folder)
        left = free.f_bavail * free.f_frsize >> 20
        if left < self.how.least_free_mib:
            raise DatasetError(f"{self.journal.folder}: {left} MiB are free on its disk, want {self.how.least_free_mib} to begin")
        now = self._clock()
        self._spec, self._rows, self._discard = spec, 0, False
        self._labels: list[dict[str, str]] = []
        self._events: list[dict[str, Any]] = []
        self._shown: dict[str, dict[int, int]] = {}  # by camera: capture time -> place in its stream
        self._counts: dict[str, int] = {}
        self._layouts: dict[Any, bytes] = {}
        self._times = {f"t_{name}": value for name, value in now.items()}
        self._due = now["monotonic"]  # when the next row should be taken
        about = {
            "uuid": uuid.uuid4().hex,
            "spec": spec.to_json(),
            "seed": meta.get("seed"),
            "meta": {k: v for k, v in {**self._facts, **meta}.items() if k not in ("task", "env", "seed")},
            "began": self._date("milliseconds"),
            "wall_minus_monotonic_ns": now["wall"] - now["monotonic"],
            "latency_s": dict(self.how.latency_s),
            "robolearn": __version__,
        }
        self._link.tell({"kind": "begin", "attributes": {**self._facts, **about}}, patience_s=self.how.save_s)
        self._open = True
        if self._state is not None:
            self._offer([("states", {}, np.asarray(self._state(), np.float64))])

    def record(self, tick: Tick) -> None:
        """Hands over one tick; EpisodeStopped where it cannot be taken any more (nothing handed over before is lost)."""
        self._link.listen()
        if self._link.failed:
            raise EpisodeStopped(self._link.failed)
        step, pieces = tick.step, self._pictures(tick)
        pieces += [(f"rows/{key}", {}, np.asarray(value)) for key, value in tick.obs.items() if not self._is_picture(key)]
        source = SOURCES.index(tick.source) if tick.source in SOURCES else 0
        pieces += [
            ("rows/action", {}, np.asarray(tick.asked)),
            ("rows/action_filtered", {}, np.asarray(step.filtered)),
            ("rows/action_sent", {}, np.asarray(step.sent)),
            ("rows/source", {}, np.array(source, np.int8)),
            ("rows/flags", {}, np.array(int(step.flags), np.int32)),
            ("rows/step_success", {}, np.array(-1 if step.success is None else int(step.success), np.int8)),
        ]
        if step.score is not None:
            pieces.append(("rows/step_score", {}, np.array(step.score, np.float32)))
        pieces += self._clocks(tick)
        if self._state is not None:
            pieces.append(("states", {}, np.asarray(self._state(), np.float64)))
        self._offer(pieces)
        self._rows += 1
        for event in tick.chunk.events if tick.chunk is not None and tick.chunk.tick == tick.k else ():
            self._take_event(event, tick.k)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Hands over a sample of a source with its own rate, captured at t_ns (monotonic): a picture, a device's state."""
        if not self._open or self._link.failed:
            return  # the next tick says so
        array = np.asarray(array)
        if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3:
            self._offer([(f"frame/{name}", str(t_ns), array)], at_tick=False)
            self._count_frame(name, t_ns)
        else:
            at = f"streams/{name}"
            pieces: list[Piece] = [(f"{at}/values", {}, array), (f"{at}/t", {"unit": "ns"}, np.array(t_ns, np.int64))]
            self._offer(pieces, at_tick=False)

    def label(self, label: str, by: str) -> None:
        """Labels the running episode (success, failure, ...); by: who says so. The last word counts, all are kept."""
        self._labels.append({"label": label, "by": by, "time": self._date("seconds")})

    def discard(self) -> None:
        """Sends the running episode to the trash when it ends (re-record); `undo` brings it back."""
        self._discard = True

    def end(self, outcome: Outcome) -> None:
        """Ends the episode and returns when it is on the disk; says on standard error where it could not be saved."""
        if not self._open:
            return
        self._open = False
        if outcome.success is not None:  # the environment's word comes first, so that a person's counts
            self._labels.insert(
                0, {"label": "success" if outcome.success else "failure", "by": "env", "time": self._date("seconds")}
            )
        about = {
            "success": outcome.success,
            "score": outcome.score,
            "reason": outcome.reason,
            "alarm_step": outcome.alarm_step,
            "labels": self._labels,
            "events": self._events,
            "discarded": self._discard,
        }
        self._link.tell({"kind": "end", "attributes": about}, patience_s=self.how.save_s)
        self._finish(self._link.wait_for({"saved", "empty", "unsaved"}, self.how.save_s))
        if self.how.pack == "each":
            self._link.wait_for({"packed", "pack_failed"}, self.how.save_s)

    def delete_last(self) -> int:
        """Moves the episode saved last to the trash and returns its id; `undo` brings it back.

        DatasetError where it is packed: with pack="idle" the last one is not, because it waits for this.
        """
        if not self.saved:
            raise DatasetError(f"{self.path}: no episode was saved yet, so none can be taken back")
        self._obeyed({"kind": "trash", "id": self.saved[-1].id})
        return self.saved.pop().id

    def undo(self, episode: int) -> None:
        """Brings an episode back from the trash."""
        self._obeyed({"kind": "untrash", "id": episode})

    def close(self) -> None:
        """Lets the recorder finish its work, packing included, and ends it."""
        try:
            self._link.close(self.how.save_s)
        finally:
            self._held.close()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clocks(self, tick: Tick) -> list[Piece]:
        """Returns when the observation of this row was captured; the step's own times are those of the next row."""
        given = {f"t_{name.replace('/', '_')}": value for name, value in tick.step.t_ns.items()}
        following = {f"t_{name}": value for name, value in self._clock().items()} | given
        period = round(1e9 / self._spec.hz)
        if not self._rows:  # the first observation came with no times but those of `begin`
            self._times = {name: self._times.get(name, value - period) for name, value in following.items()}
        times = {name: self._times.get(name, value - period) for name, value in following.items()}
        pieces: list[Piece] = [(f"rows/{name}", {"unit": "ns"}, np.array(value, np.int64)) for name, value in times.items()]
        if "t_monotonic" in given:
            late = times["t_monotonic"] - self._due
            self._due += period * (1 + max(0, late) // period)  # a tick that was missed is not made up for
            pieces.append(("rows/late_ms", {"unit": "ms"}, np.array(late * 1e-6, np.float32)))
        self._times = following
        return pieces

    def _pictures(self, tick: Tick) -> list[Piece]:
        """Returns the pictures of a tick that were not handed over yet, and which picture of its camera the row shows."""
        pieces: list[Piece] = []
        for key in filter(self._is_picture, tick.obs):
            when = self._times.get(f"t_dev_{key}")
            place = self._shown.get(key, {}).get(when) if when is not None else None
            if place is None:
                pieces.append((f"frame/{key}", str(self._times["t_monotonic"] if when is None else when), tick.obs[key]))
                place = self._count_frame(key, when)
            pieces.append((f"rows/{key}@frame", {}, np.array(place, np.int64)))
        return pieces

    def _count_frame(self, key: str, when: int | None) -> int:
        place = self._counts.get(key, 0)
        self._counts[key] = place + 1
        if when is not None:
            known = self._shown.setdefault(key, {})
            known[when] = place
            if len(known) > _REMEMBERED:
                del known[next(iter(known))]
        return place

    def _is_picture(self, key: str) -> bool:
        return key in self._spec.obs and self._spec.obs[key].is_image

    def _take_event(self, event: str, tick: int) -> None:
        self._events.append({"event": event, "tick": tick})
        if event in _EVENTS:
            self.label(_EVENTS[event], f"operator:{self._facts.get('operator', '')}".rstrip(":"))
        elif event == "redo":
            self.discard()

    def _finish(self, event: dict[str, Any]) -> None:
        kind, why, where = event["event"], event.get("why", ""), self.journal.folder
        if kind == "saved" and not event["discarded"]:
            self.saved.append(Saved(event["id"], event["sha256"], event["steps"]))
        if kind == "saved" and why:
            config.warn(f"robolearn: {where}: episode {event['id']} ended early and is saved as partial: {why}")
        if kind == "unsaved":
            config.warn(
                f"robolearn: {where}: episode {event['id']} could not be saved ({why}); what was written is kept, "
                "`robolearn data salvage` makes an episode of it; all earlier ones are safe"
            )

    def _obeyed(self, command: dict[str, Any]) -> None:
        self._link.tell(command, patience_s=self.how.save_s)
        event = self._link.wait_for({"trashed", "untrashed", "refused"}, self.how.save_s)
        if event["event"] == "refused":
            raise DatasetError(event["why"])

    def _offer(self, pieces: list[Piece], at_tick: bool = True) -> None:
        """Hands pieces over; where they do not fit, this episode is over, which the tick says."""
        pieces = [piece for piece in pieces if piece[2].size]
        layout = tuple((name, str(facts), a.dtype.str, a.shape) for name, facts, a in pieces)
        header = self._layouts.get(layout)
        if header is None:
            arrays = [[a.dtype.str, list(a.shape)] for _, _, a in pieces]
            header = json.dumps({"kind": "row", "names": [[n, facts] for n, facts, _ in pieces], "arrays": arrays}).encode()
            if not any(name.startswith("frame/") for name, _, _ in pieces):  # a frame's time differs every time
                self._layouts[layout] = header
        if not self._link.offer(header, [a for _, _, a in pieces]):
            full = f"the recorder's buffer of {self.how.buffer_mib} MiB is full: disk or encoder cannot keep up"
            self._link.failed = self._link.failed or full
            if at_tick:
                raise EpisodeStopped(self._link.failed)

    def _date(self, to: str) -> str:
        return datetime.fromtimestamp(self._clock()["wall"] * 1e-9, UTC).isoformat(timespec=to)
