"""Memory: a life that can be killed at any moment and goes on when the same command is given again.

Decisions: every step is on disk before anybody hears of it; a generation of everything else is saved now and then, between
two steps; a resumed life loads the newest one, lives once more through the moments recorded after it (with the one
loop, over a ReplayRobot), and only then does the robot move. A simulated robot is led along those moments, so its world stands
where it stood; a real one has moved on, so what comes next is a new episode.
"""

import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from motorbabble.errors import CheckpointError, ConfigurationError, MotorbabbleError, RecordingError
from motorbabble.experience import Choice, Ending, Event, Observation, Selector, Situation, Step, Study
from motorbabble.learning.checkpoint import Checkpoints, Identity, Loaded, Saved, differences, kept_copy
from motorbabble.learning.state import (
    architecture_of,
    check_weights,
    counters_of,
    generators_of,
    grow_as_saved,
    load_counters,
    load_generators,
    load_optimizer,
    load_replay,
    load_weights,
    optimizer_of,
    replay_of,
    weights_of,
)
from motorbabble.life import History, as_executed, live, look
from motorbabble.recording.format import PIN, Continues, array_from, array_to_json, decoded, to_png
from motorbabble.recording.quota import MAX_BYTES
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.recorder import Recorder
from motorbabble.recording.shelf import Shelf
from motorbabble.recording.trail import Trail
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.replay import ReplayRobot

if TYPE_CHECKING:
    from motorbabble.learning.learner import Learner


@dataclass(frozen=True)
class MemoryConfig:
    checkpoint_dir: Path | None = None  # of this one life; None: nothing is saved, nothing resumed
    session_dir: Path | None = None  # of this robot type's sessions; None: nothing is recorded
    record: bool = True  # False: old sessions are still read, none is written
    save_updates: int = 500  # a generation after so many updates ...
    save_seconds: float = 60.0  # ... and after so many seconds, and at the end
    quota_bytes: float = MAX_BYTES  # of disk for all sessions of this robot type

    def __post_init__(self):
        if self.save_updates < 1 or not self.save_seconds > 0:
            raise ConfigurationError(f"saving every {self.save_updates} updates and {self.save_seconds} s cannot work; give positive numbers")


class Memory:
    """Keeps one life. `resume` first, then `catch_up`, `begin`; then `keep` every event; in the end `close`.

    `notes` gathers sentences a person should hear: what was resumed, what was lost, what could not be saved.
    """

    def __init__(
        self,
        config: MemoryConfig,
        robot: RobotInterface,
        learner: "Learner",
        select: Selector,
        history: History,
        about: Mapping[str, Any] | None = None,
    ):
        self.config, self.robot, self.learner, self.select, self.history = config, robot, learner, select, history
        self.about, self.notes = dict(about or {}), []
        self.life = secrets.token_hex(8)
        self.trail = Trail(config.session_dir, robot.sessions if isinstance(robot, ReplayRobot) else ())
        self.recorder: Recorder | None = None
        self.resumed = False
        self._tail: tuple[list[RecordingReader], int] = ([], 0)  # what was recorded after the generation that was loaded
        self._unlearned: list[str] = []  # sessions of that tail
        self._taught: list[str] = []  # sessions of the training this life began from
        self._simulated = hasattr(robot, "state_dict") and hasattr(robot, "load_state_dict")
        self._unbroken = False  # the world stands where the last recorded moment left it
        self._pngs: dict[int, bytes] = {}  # frames that no session holds
        self._remembered: list[str] = []  # sessions that the newest generation refers to
        self._due = (0, time.monotonic())  # updates and time of the last save
        self._checkpoints = Checkpoints(config.checkpoint_dir) if config.checkpoint_dir else None
        if self._checkpoints:
            self._checkpoints.__enter__()

    # Coming back

    def resume(self, restore: Callable[[dict[str, Any], list[Step]], None]) -> None:
        """Load the newest generation, if there is one. `restore` is given the run's own state, and the steps it still remembers.

        CheckpointMismatch or CheckpointError, before a weight is touched, where it cannot be used.
        """
        loaded = self._checkpoints.load(self._identity()) if self._checkpoints else None
        if loaded is None:
            return
        try:
            grow_as_saved(self.learner, loaded.state)
            check_weights(self.learner, loaded.tensors)
            if "training" in loaded.state:
                self._born_from(loaded)
            else:
                self._resumed(loaded, restore)
        except MotorbabbleError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(
                f"generation {loaded.generation} says something this program does not understand ({error!r:.200}); "
                "begin anew with --fresh, which keeps these files"
            ) from error

    def _born_from(self, loaded: Loaded) -> None:
        """A new life with what `babble train` learned from recordings; its own optimiser and memories begin empty.

        A copy of the training is kept, since what this life saves takes the place of its generations.
        """
        assert self._checkpoints
        aside = kept_copy(self._checkpoints.folder)
        self._taught = sorted({name for name, _ in loaded.state["training"]["sources"]})
        updates = loaded.state["counters"]["updates"]
        self.notes += [f"Its life begins with what {updates} updates on recordings taught it; the training itself is kept in {aside}."]
        self.notes += loaded.notes
        load_weights(self.learner, loaded.tensors)
        self.resumed = True

    def _resumed(self, loaded: Loaded, restore: Callable[[dict[str, Any], list[Step]], None]) -> None:
        state, run = loaded.state, loaded.state["run"]
        self.resumed = True
        told, now = (about.get("settings", {}) for about in (state["about"], self.about))
        self.notes += loaded.notes
        self.notes += [f"From now on {key.replace(' there', ' before').replace(' here', ' now')}." for key in differences(told, now)]
        self.life, self._remembered, self._taught = state["life"], state["remembered"], state["taught"]
        self.trail.load(state["trail"])
        steps = dict(self.trail.newest_steps(self.learner.config.replay.capacity, run["steps_done"]))
        self._load_replay(loaded.tensors["memory"], steps)
        load_history(self.history, state["history"], loaded.tensors["memory"])
        self._load_selector(state["selector"], loaded.tensors.get("selector", {}))
        self._load_robot(state["robot"])
        load_counters(self.learner, state["counters"])
        if "levels" in state:
            self.learner.levels.load_state_dict(state["levels"])
        if "surprise" in state:
            self.learner.surprise.load_state_dict(state["surprise"])
        load_generators(self.learner, state["generators"])
        self._due = (self.learner.updates, time.monotonic())
        self._tail = self.trail.tail(self.life)
        self._unlearned = [reader.name for reader in self._tail[0]]
        if isinstance(self.robot, ReplayRobot):
            self._tail = ([], 0)  # left for the next life with the robot itself
        since = self._replayed().left() if self._tail[0] else 0
        first = f", and first learns from what was recorded after that ({since} moments)" if since else ""
        self.notes.insert(0, f"It goes on where it was saved, after {self.learner.updates} updates and {run['steps_done']} steps{first}.")
        restore(run, list(reversed(steps.values())))
        load_optimizer(self.learner, loaded.tensors["optimizer"])
        load_weights(self.learner, loaded.tensors)  # last: whatever is malformed is found before a weight is touched

    def catch_up(self, first: int, stop: Flag) -> Iterator[Event]:
        """Live once more through what was recorded after the generation that was loaded; `first`: the number of the next step."""
        if self._tail[0]:
            if not self.trail.is_followed_by(self._tail[0][0], self._tail[1]):
                self.history.forget()
            tail = self._replayed()
            waits, self.learner.waits = self.learner.waits, True  # here no robot has to move on
            for event in live(tail, Recalling(self.select, tail), self.learner, stop, first=first, history=self.history):
                if not isinstance(event, Study) and tail.moment:
                    self.trail.add(tail.moment[0].name, tail.moment[1])
                if not isinstance(event, Study) and self._unbroken:
                    self._lead_along(event)
                yield event
            self.learner.waits = waits
            if tail.skipped:
                self.notes.append(f"{tail.skipped} moments that were recorded since then are damaged, and were left out.")
        if not self._unbroken:  # a real robot has moved on meanwhile
            self.history.forget()

    def _replayed(self) -> ReplayRobot:
        """What was recorded after the generation that was loaded."""
        sessions, moment = self._tail
        return ReplayRobot(*sessions, first=moment, last_frame=not self._unbroken, follows=self.trail.is_followed_by(sessions[0], moment))

    def _lead_along(self, event: Step | Ending) -> None:
        """Let the simulated world do what was recorded, so that it stands where the recording ends."""
        repeats = np.array_equal(look(self.robot).image, event.observation.image)
        if repeats and isinstance(event, Step):  # what was asked for, since its own chance may make something else of it, and did
            repeats = as_executed(self.robot.execute_action(event.requested), self.robot.action_space) == event.executed
        if not repeats:
            self._unbroken = False
            self.notes.append("The simulated world does not repeat what was recorded; it goes on with a new episode.")

    def _load_replay(self, own: Mapping[str, torch.Tensor], steps: Mapping[int, Step]) -> None:
        moments = own["replay/moments"].tolist()
        if "frames" in own:
            data, ends = own["frames"].numpy().tobytes(), [0, *own["frame_ends"].tolist()]
            self._pngs = {moment: data[a:b] for moment, a, b in zip(own["frame_moments"].tolist(), ends, ends[1:], strict=False)}

        def frame(i: int) -> np.ndarray | None:
            moment = moments[i]
            if moment in steps:
                return steps[moment].observation.image
            try:
                return decoded(self._pngs[moment]) if moment in self._pngs else self.trail.event(moment).observation.image
            except RecordingError:
                return None

        if lost := load_replay(self.learner, own, self.trail.moments, frame):
            self.notes.append(f"{lost} of its {len(moments)} memories cannot be read any more; it goes on with the others.")

    def _load_selector(self, saved: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        name = _name_of(self.select)
        if saved["name"] != name:
            self.notes.append(f"Actions were chosen by {saved['name']} before, now by {name}.")
        elif saved["state"] is not None and hasattr(self.select, "load_state_dict"):
            self.select.load_state_dict(saved["state"])  # type: ignore[attr-defined]
            if tensors and hasattr(self.select, "load_tensors"):
                self.select.load_tensors(tensors)  # type: ignore[attr-defined]

    def _load_robot(self, saved: Mapping[str, Any]) -> None:
        """A simulated world, or a replay that was interrupted, stands where it stood; a real robot, or another body, begins an episode."""
        if saved["body"] == type(self.robot).__name__ and saved["state"] is not None and self._simulated:
            self._unbroken = self.robot.load_state_dict(saved["state"]) is not False  # type: ignore[attr-defined]

    # Living

    def begin(self, run_state: dict[str, Any]) -> None:
        """Save, and begin a session: from now on every step is recorded."""
        if not isinstance(self.robot, ReplayRobot):
            self._tail, self._unlearned = ([], 0), []
        before = self.trail.newest_session(self.life) if self._checkpoints else None
        self.save(run_state)
        if not self.config.record or self.config.session_dir is None or isinstance(self.robot, ReplayRobot):
            return
        self.recorder = Recorder(
            self.config.session_dir,
            self.robot.robot_type,
            self.robot.action_space,
            stop=self.robot.stop,
            quota=self.config.quota_bytes,
            continues=Continues(before, run_state["steps_done"], self._unbroken and self.trail.reaches_end_of(before)) if before else None,
            about={**self.about, "life": self.life, "moment": self.trail.moments if self._unbroken else None},
        )
        if self._checkpoints:
            self._pin([self.recorder.session])

    def keep(self, event: Event, run_state: Callable[[], dict[str, Any]]) -> None:
        """Write a step down before anybody hears of it; now and then save everything else.

        RecordingError when it could not be written, whatever the process that learns beside it failed with; the robot was stopped then.
        """
        if self.recorder:
            self.recorder(event)
        if isinstance(event, Study):
            return
        if self.recorder:
            self.trail.add(self.recorder.session, self.recorder.writer.moments - 1)
        elif isinstance(self.robot, ReplayRobot) and self.robot.moment:
            self.trail.add(self.robot.moment[0].name, self.robot.moment[1], own=False)
        else:
            self.trail.add()
        updates, since = self._due
        if self.learner.updates - updates >= self.config.save_updates or time.monotonic() - since >= self.config.save_seconds:
            try:
                self.save(run_state())
            except CheckpointError as error:  # a full disk may be freed; the save before and the session still hold
                self.notes.append(f"It was not saved: {error}.")
            except MotorbabbleError:  # nobody learns any more, or a session cannot be pinned
                self.robot.stop()
                raise

    def save(self, run_state: dict[str, Any]) -> None:
        """A generation of this moment, if generations are kept and this is a moment to keep.

        In the middle of a step the save before and the session say it exactly; where nothing was recorded, this comes nearest, and where
        the robot is a real one, which never stands there again, it is as good.
        """
        in_a_step = self.learner.replay.moments > self.trail.moments
        exactly = (self.recorder is not None and self._simulated) or self._tail[0] or isinstance(self.robot, ReplayRobot)
        if not self._checkpoints or (in_a_step and exactly):
            return
        self.learner.gather()
        self._due = (self.learner.updates, time.monotonic())
        before = self.trail.moments
        history, frames = history_of(self.history, pending=in_a_step)
        state = {
            "life": self.life,
            "trail": self.trail.to_json(),
            "counters": counters_of(self.learner),
            "levels": self.learner.levels.state_dict(),
            "surprise": self.learner.surprise.state_dict(),
            "generators": generators_of(self.learner),
            "selector": {"name": _name_of(self.select), "state": self.select.state_dict() if hasattr(self.select, "state_dict") else None},  # type: ignore[attr-defined]
            "robot": {"body": type(self.robot).__name__, "state": self.robot.state_dict() if self._simulated else None},  # type: ignore[attr-defined]
            "history": history,
            "run": run_state,
            "remembered": self.trail.sessions(since=min(self.learner.replay.references(before)["moments"], default=before)),
            "taught": self._taught,
            "about": self.about,
        }
        self._pin(state["remembered"])
        memory = replay_of(self.learner, before) | self._embedded(before) | frames
        chooser = {"selector": self.select.tensors()} if hasattr(self.select, "tensors") else {}  # type: ignore[attr-defined]
        tensors = {**weights_of(self.learner), "optimizer": optimizer_of(self.learner), "memory": memory, **chooser}
        self._checkpoints.save(self.learner.updates, Saved(self._identity(), tensors, state))
        self._unpin(state["remembered"])

    def _embedded(self, before: int) -> dict[str, torch.Tensor]:
        """Frames that no session holds, as PNG end to end."""
        moments = self.learner.replay.references(before)["moments"].tolist()
        images = self.learner.replay.frames(before)
        wanted = {moment: image for moment, image in zip(moments, images, strict=True) if self.trail.place(moment) is None}
        self._pngs = {moment: self._pngs.get(moment) or to_png(image) for moment, image in wanted.items()}
        if not wanted:
            return {}
        ends = np.cumsum([len(png) for png in self._pngs.values()]).astype(np.int64)
        together = torch.frombuffer(bytearray(b"".join(self._pngs.values())), dtype=torch.uint8)
        return {"frames": together, "frame_ends": torch.from_numpy(ends), "frame_moments": torch.tensor(list(wanted))}

    def close(self, run_state: dict[str, Any] | None) -> None:
        """Save, unless something broke off (`run_state` is None); close the session, let go of the lock."""
        try:
            if run_state is not None:
                self.save(run_state)  # before the last look, which some worlds change by
        finally:
            try:
                if self.recorder:
                    self.recorder.close(self._last_look())
            finally:
                self.release()

    def release(self) -> None:
        """Let others have the checkpoints."""
        if self._checkpoints:
            self._checkpoints.__exit__()

    # Parts

    @property
    def _owner(self) -> str:
        return f"checkpoint-{self.life}"

    def taught_by(self) -> set[str]:
        """Every session this life has learned from."""
        return {*self.trail.sessions(), *self._taught}

    def _pin(self, sessions: list[str]) -> None:
        """Before a generation refers to them; those that lie elsewhere, or are gone, are not ours to keep."""
        assert self._checkpoints
        for session in sessions:
            folder = self.config.session_dir / session if self.config.session_dir else None
            if folder is None or not folder.is_dir() or (folder / f"{PIN}{self._owner}").exists():
                continue
            try:
                Shelf(folder.parent).pin(session, self._owner, str(self._checkpoints.folder))
            except OSError as error:
                raise RecordingError(f"session {session} could not be pinned: {error.strerror or error}; free the disk, then go on") from error

    def _unpin(self, remembered: list[str]) -> None:
        """Sessions that neither this generation nor its backup refers to belong to the quota again; so do those of starts that came to nothing."""
        kept = {*remembered, *self._remembered, *self._unlearned}
        if self.recorder:
            kept.add(self.recorder.session)  # what is recorded after this generation
        if self.config.session_dir:
            for pin in self.config.session_dir.glob(f"*/{PIN}{self._owner}"):
                if pin.parent.name not in kept:
                    with suppress(RecordingError, OSError):  # a session too many on the disk harms nobody
                        Shelf(self.config.session_dir).unpin(pin.parent.name, self._owner)
        self._remembered = remembered

    def _identity(self) -> Identity:
        return Identity(self.robot.robot_type, self.robot.action_space, architecture_of(self.learner.trained))

    def _last_look(self) -> Observation | None:
        try:
            return look(self.robot)
        except Exception:  # a robot that is lost has no last frame; its session still closes
            return None


class Recalling:
    """Chooses what was chosen, after asking the selector all the same, so that it stands where it stood."""

    def __init__(self, select: Selector, tail: ReplayRobot):
        self.select, self.tail = select, tail

    def __call__(self, situation: Situation) -> Choice:
        self.select(situation)
        recorded = self.tail.recorded
        assert recorded
        return recorded

    def observe(self, step: Step) -> None:
        if observe := getattr(self.select, "observe", None):
            observe(step)


def history_of(history: History, pending: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The newest frames and actions, without the very newest frame where it was not lived to its end (`pending`)."""
    seen, actions, led, episode = list(history.seen), list(history.actions), history.led, history.episode
    if pending and seen:
        seen, actions = seen[:-1], actions[: max(len(seen) - 2, 0)]
        episode = seen[-1].episode if seen else None
    tensors = {f"history/{i}": torch.from_numpy(observation.image.copy()) for i, observation in enumerate(seen)}
    sensed = [{name: array_to_json(np.asarray(value)) for name, value in observation.state.items()} for observation in seen]  # NaN is legal there
    return {
        "episode": episode,
        "over": history.over and not pending,
        "seen": [[one.captured_ns, one.sequence, one.episode, state] for one, state in zip(seen, sensed, strict=True)],
        "actions": [[float(x) for x in action] for action in actions],
        "led": None if led is None else [float(x) for x in led],
    }, tensors


def load_history(history: History, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    history.forget()
    for i, (captured, sequence, episode, stored) in enumerate(state["seen"]):
        sensed = {name: array_from(one["dtype"], one["shape"], b64decode(one["base64"])) for name, one in stored.items()}
        history.seen.append(Observation(tensors[f"history/{i}"].numpy(), None, captured, sequence, episode, state=sensed))
    history.actions.extend(np.array(action, np.float32) for action in state["actions"])
    history.led = None if state["led"] is None else np.array(state["led"], np.float32)
    history.episode, history.over = state["episode"], state["over"]


def _name_of(select: Selector) -> str:
    return getattr(select, "__name__", type(select).__name__)
