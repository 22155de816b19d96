"""ReplayRobot: recorded sessions wearing the face of a robot, so that the one loop lives through them again.

Decisions: looking shows exactly the recorded pixels, acting answers what was really executed and goes on; any other
action is refused, since nobody knows what it would have done. Where moments do not follow each other (another session, damage,
transitions that a filter drops) the episode rises, so no window ever joins what did not happen in a row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from motorbabble.errors import ActionError, EndOfSession, RecordingError, RobotError, SessionDamaged
from motorbabble.experience import Action, ActionSpace, Choice, Observation, Situation
from motorbabble.recording.reader import Moment, RecordingReader
from motorbabble.robots.interface import RobotInterface

ActionFilter = Callable[[Action], bool]


@dataclass(frozen=True)
class Stop:
    """One place on the way through recordings: a moment, what was done there (None: nothing), and whether it follows the stop before."""

    reader: RecordingReader
    moment: Moment
    acts: bool
    follows: bool


class ReplayRobot(RobotInterface):
    """Sessions of one kind of robot, one after the other: readers or their folders. Ends with EndOfSession.

    `action_filter`: keeps only transitions whose executed action it accepts, each with the frame it led to. `first`: the moment
    of the first session to begin at. `loop`: begin again for ever. `last_frame` False leaves out the frame that the last session
    was closed with, for a life that goes on from it; `follows` says that the moment it begins at came right after what such a life
    knows already. `skipped` counts moments whose frame was damaged.
    """

    def __init__(
        self,
        *sessions: RecordingReader | Path | str,
        action_filter: ActionFilter | None = None,
        first: int = 0,
        loop: bool = False,
        last_frame: bool = True,
        follows: bool = False,
    ):
        if not sessions:
            raise RecordingError("there is no session to replay; give at least one")
        self.sessions = [session if isinstance(session, RecordingReader) else RecordingReader(session) for session in sessions]
        self.robot_type = self.sessions[0].robot_type
        for other in self.sessions[1:]:
            check_same_robot(self.sessions[0], other)
        self._filter, self._first, self._loop, self._last_frame = action_filter, first, loop, last_frame
        self._follows = follows
        self._way = self._stops()
        self._at: Stop | None = None
        self._kept: Observation | None = None  # what is seen there
        self._acted = True  # the next look goes on to the next stop
        self._stopped = False
        self._episode, self._passed, self.skipped, self.rounds = -1, 0, 0, 0

    @property
    def action_space(self) -> ActionSpace:
        return self.sessions[0].action_space

    @property
    def recorded(self) -> Choice | None:
        """What was chosen where it stands now; None where nothing was done, and before the first look."""
        if self._at is None or not self._at.acts:
            return None
        scores = {label: float("nan") if score is None else score for label, score in self._at.moment.scores.items()}
        return Choice(self._at.moment.requested, scores, self._at.moment.why)

    @property
    def moment(self) -> tuple[RecordingReader, int] | None:
        """The session and the moment in it where it stands now."""
        return None if self._at is None else (self._at.reader, self._at.moment.moment)

    def get_observation(self) -> Observation:
        if not self._acted and self._kept is not None and not self._kept.ends:
            return _own(self._kept)
        follows = True
        while True:
            stop = next(self._way, None)
            self._passed += 1
            if stop is None:
                self._at = self._kept = None
                raise EndOfSession(f"{self.sessions[-1].name} holds no further frame")
            follows = follows and stop.follows
            try:
                seen = stop.reader.observation(stop.moment.moment)
            except SessionDamaged:
                self.skipped, follows = self.skipped + 1, False
                continue
            if not follows or self._episode < 0:
                self._episode = max(self._episode + 1, stop.moment.episode)
            self._at, self._acted = stop, False
            self._kept = replace(seen, episode=self._episode, ends=not stop.acts)
            return _own(self._kept)

    def execute_action(self, action: Action) -> Action:
        plain = self.action_space.check(action)
        if self._stopped:
            raise RobotError(f"action {plain} came after the replay was stopped; make a new one to go on")
        if self._acted:
            self.get_observation()  # go on to where something was done next
        if self._at is None or not self._at.acts:
            raise EndOfSession("nothing was done here in the recording; look again")
        done = self._at.moment
        if plain not in (dict(done.requested), dict(done.executed)):
            raise ActionError(f"the recording did {dict(done.executed)} here, not {plain}; select with create_recorded_action_selector(robot)")
        self._acted = True
        return done.executed

    def left(self) -> int:
        """How many moments are still to come (of one round, in a loop)."""
        return sum(1 for _ in self._round()) - self._passed

    def stop(self) -> None:
        self._stopped = True

    def cleanup(self) -> None:
        self.stop()

    def state_dict(self) -> dict:
        """How far it is: the sessions, the stops passed, whether the one it stands at was acted from."""
        return {
            "sessions": [session.name for session in self.sessions],
            "passed": self._passed,
            "moment": None if self._at is None else [self._at.reader.name, self._at.moment.moment],
            "acted": self._acted,
            "episode": self._episode,
            "ended": self._passed > 0 and self._at is None,
        }

    def load_state_dict(self, state: dict) -> bool:
        """Go to where another replay was. False, and to the beginning, when it was of other moments or had come to its end."""
        self._way, self._passed, self.rounds, self._at, self._kept, self._acted = self._stops(), 0, 0, None, None, True
        if state["ended"] or state["sessions"] != [session.name for session in self.sessions]:
            return False
        while self._passed < state["passed"]:
            self._at, self._passed = next(self._way, None), self._passed + 1
        if state["moment"] != (None if self._at is None else [self._at.reader.name, self._at.moment.moment]):
            return self.load_state_dict({**state, "ended": True})  # it was filtered in another way
        self._acted, self._episode = state["acted"], state["episode"]
        if self._at is not None:
            seen = self._at.reader.observation(self._at.moment.moment)
            self._kept = replace(seen, episode=self._episode, ends=not self._at.acts)
        return True

    def describe(self) -> str:
        steps = sum(len(session) for session in self.sessions)
        return f"A recording of {self.robot_type}: {len(self.sessions)} session{'s' * (len(self.sessions) > 1)}, {steps} moments."

    # Parts

    def _stops(self) -> Iterator[Stop]:
        while True:
            some = False
            self.rounds += 1
            for stop in self._round():
                some = some or stop.acts
                yield stop
            if not self._loop or not some:
                return

    def _round(self) -> Iterator[Stop]:
        for place, reader in enumerate(self.sessions):
            ahead = self.sessions[place + 1] if place + 1 < len(self.sessions) else None
            after = self.sessions[place - 1] if place else None
            yield from self._stops_of(reader, self._first if place == 0 else 0, after, ahead)

    def _stops_of(self, reader: RecordingReader, first: int, after: RecordingReader | None, ahead: RecordingReader | None) -> Iterator[Stop]:
        joined = continues_unbroken(reader, after, step=True) or (after is None and self._follows)
        last = len(reader) - 1
        followed = continues_unbroken(ahead, reader, step=False) or (ahead is None and not self._last_frame)
        for stretch in reader.stretches:
            kept_before = (joined and stretch.start == (first if after is None else 0)) or stretch.start < first
            for number in stretch:
                if number < first:
                    continue
                moment = reader.moment(number)
                if number == last and not moment.is_step and followed:
                    return  # what comes next begins with this very frame
                acts = moment.is_step and (self._filter is None or self._filter(moment.executed))
                if acts or kept_before:
                    yield Stop(reader, moment, acts, kept_before)
                kept_before = acts


def _own(seen: Observation) -> Observation:
    """The same with arrays of the caller's own."""
    return replace(seen, image=seen.image.copy(), state={name: value.copy() for name, value in seen.state.items()})


def continues_unbroken(later: RecordingReader | None, earlier: RecordingReader | None, *, step: bool) -> bool:
    """Whether the world stood still between two sessions, and the later one begins in the episode of the earlier one's newest moment.

    `step`: of its newest step, which is another where the frame it was closed with had begun a new episode.
    """
    if later is None or earlier is None or later.meta.continues is None:
        return False
    if not later.meta.continues.unbroken or later.meta.continues.session != earlier.name:
        return False
    try:
        newest = earlier.moment(len(earlier) - 1)
        if step and not newest.is_step:
            newest = earlier.moment(len(earlier) - 2)
        return (newest.is_step or not step) and newest.episode == later.moment(0).episode
    except RecordingError:
        return False


def check_same_robot(one: RecordingReader, other: RecordingReader) -> None:
    """RecordingError, with both action spaces, when two sessions are not of one kind of robot."""
    if other.robot_type != one.robot_type or other.action_space.fingerprint != one.action_space.fingerprint:
        raise RecordingError(
            f"{other.name} is of {other.robot_type} with actions {other.action_space}, {one.name} of {one.robot_type} with "
            f"{one.action_space}; replay sessions of one kind of robot together"
        )


def create_recorded_action_selector(
    recording: ReplayRobot | RecordingReader, action_filter: ActionFilter | None = None
) -> Callable[[Situation], Choice]:
    """A selector that does what was recorded, and raises EndOfSession after the last action.

    With a ReplayRobot it follows wherever that one stands, its filter included. With a reader it plays the recorded actions, those
    that `action_filter` accepts, in order, whatever robot acts: a way to repeat a recording on a real one.
    """
    if isinstance(recording, ReplayRobot):
        return _following(recording, action_filter)
    moments = (recording.moment(number) for number in recording.readable())
    chosen = (moment for moment in moments if moment.is_step and (action_filter is None or action_filter(moment.executed)))

    def in_order(situation: Situation) -> Choice:
        moment = next(chosen, None)
        if moment is None:
            raise EndOfSession(f"{recording.name} holds no further action")
        return Choice(moment.executed, why=f"as in moment {moment.moment} of {recording.name}")

    return in_order


def _following(robot: ReplayRobot, action_filter: ActionFilter | None) -> Callable[[Situation], Choice]:
    if action_filter is not None:
        raise RecordingError("a filter belongs to the ReplayRobot, which drops whole transitions; give it to ReplayRobot(..., action_filter=...)")

    def as_recorded(situation: Situation) -> Choice:
        choice = robot.recorded
        if choice is None:
            raise EndOfSession("nothing was done here in the recording")
        return choice

    return as_recorded
