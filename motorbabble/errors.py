"""Everything that can go wrong, in one tree.

    MotorbabbleError
    ├── ConfigurationError     a setting or argument that cannot work            (exit code 2)
    ├── ActionError            an action the robot does not have
    ├── FrameError             a picture of the wrong shape, dtype or content
    ├── RobotError             the robot did not look or act as its contract says
    │   └── RobotLost          the link to it is gone for good                   (exit code 3)
    ├── Diverged               a loss or a weight is no longer a finite number   (exit code 4)
    ├── LearningError          the process that learns beside the robot failed, or is gone
    ├── RecordingError         a session could not be written, found or read
    │   ├── QuotaExceeded      the disk's share is used up and nothing may be removed
    │   └── SessionDamaged     this moment, or all of a session, is not what was written (exit code 5)
    ├── CheckpointError        no usable checkpoint, or none could be written
    │   └── CheckpointMismatch it was made for other actions, another model or a newer version (exit code 2)
    └── EndOfSession           not a fault: a recording has no further frame; `live` ends normally

A message is one sentence: what happened, the value, what to do.
"""


class MotorbabbleError(Exception):
    exit_code = 1


class ConfigurationError(MotorbabbleError, ValueError):
    exit_code = 2


class ActionError(MotorbabbleError, ValueError):
    pass


class FrameError(MotorbabbleError, ValueError):
    pass


class RobotError(MotorbabbleError):
    pass


class RobotLost(RobotError):
    exit_code = 3


class Diverged(MotorbabbleError):
    exit_code = 4


class LearningError(MotorbabbleError):
    pass


class RecordingError(MotorbabbleError):
    pass


class QuotaExceeded(RecordingError):
    pass


class SessionDamaged(RecordingError):
    exit_code = 5


class CheckpointError(MotorbabbleError):
    pass


class CheckpointMismatch(CheckpointError):
    exit_code = 2


class EndOfSession(MotorbabbleError):
    exit_code = 0
