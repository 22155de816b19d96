"""RecordingRobot: any robot, with everything it sees and does written down."""

import time
from pathlib import Path
from typing import Any

from motorbabble.errors import RobotError
from motorbabble.experience import Action, ActionSpace, Choice, Ending, Observation, Step, check_frame
from motorbabble.recording.quota import MAX_BYTES
from motorbabble.recording.recorder import Recorder
from motorbabble.robots.interface import RobotInterface

LOOKS = 5  # for the last frame; a robot may be slow to see


class RecordingRobot(RobotInterface):
    """Wears the robot's own face. A step is written when its action is over, so what `execute_action` answered is on disk.

    `root`: where sessions go, one folder per robot type; `saved/sessions` unless told. `quota`: bytes for that robot type.
    """

    def __init__(self, robot: RobotInterface, root: Path | str = "saved/sessions", *, quota: float = MAX_BYTES, **settings: Any):
        self.robot = robot
        self.robot_type = robot.robot_type
        self.recorder = Recorder(Path(root) / robot.robot_type, robot.robot_type, robot.action_space, stop=robot.stop, quota=quota, **settings)
        self._seen: Observation | None = None  # what was looked at since the last action
        self._index = 0

    @property
    def action_space(self) -> ActionSpace:
        return self.robot.action_space

    @property
    def session(self) -> Path:
        """The session's folder."""
        return self.recorder.writer.folder

    def get_observation(self) -> Observation | None:  # type: ignore[override] - None, where the robot is slow to see, is handed on: live asks again
        seen: Any = self.robot.get_observation()
        if seen is None:
            return None
        if self._seen is not None and self._seen.ends:
            self.recorder(Ending(self._seen))
        self._seen = seen if isinstance(seen, Observation) else Observation(check_frame(seen).copy(), captured_ns=time.time_ns())
        return self._seen

    def execute_action(self, action: Action) -> Action:
        plain = self.action_space.check(action)
        seen = self._seen or self.get_observation()
        if seen is None:
            raise RobotError(f"action {plain} came while the robot gave no frame, so it could not be recorded with one; look first")
        started, monotonic = time.time_ns(), time.monotonic_ns()
        executed = self.robot.execute_action(plain)
        self.recorder(Step(self._index, seen, plain, executed, Choice(plain), started, time.time_ns(), monotonic))
        self._seen, self._index = None, self._index + 1
        return executed

    def stop(self) -> None:
        self.robot.stop()

    def cleanup(self) -> None:
        """Write the last frame if it can still be seen, close the session, release the robot."""
        try:
            self.robot.stop()
            self.recorder.close(self._last_look())
        finally:
            self.robot.cleanup()

    def describe(self) -> str:
        return f"{self.robot.describe()} It is recorded as {self.recorder.session}."

    def _last_look(self) -> Observation | None:
        try:
            return self._seen or next((seen for _ in range(LOOKS) if (seen := self.get_observation())), None)
        except Exception:  # a robot that is lost has no last frame; its session still closes
            return None

    def __getattr__(self, name: str) -> Any:
        """Whatever else the robot can: state_dict, locate, place ..."""
        if name == "robot":  # not made yet
            raise AttributeError(name)
        return getattr(self.robot, name)
