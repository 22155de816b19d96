"""What of a session can leave it: readable moments that follow each other, with their frames and actions verified.

Decision: everything is read once before anything is written, so that damage is known, named and ends an episode, and no
writer of a foreign format has to know about it.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from motorbabble.errors import ActionError, RecordingError, SessionDamaged
from motorbabble.recording.reader import Moment, RecordingReader


class Episode(NamedTuple):
    """Moments of one session without a gap: all but the last are steps, and each one's frame is the outcome of the one before."""

    reader: RecordingReader
    numbers: range

    def moments(self) -> Iterator[Moment]:
        return map(self.reader.moment, self.numbers)

    def steps(self) -> "Episode":
        """Without an ending: only moments from which something was done."""
        last = self.numbers[-1]
        return self if self.reader.moment(last).is_step else Episode(self.reader, self.numbers[:-1])


def episodes_of(folders: list[Path]) -> tuple[list[Episode], list[str]]:
    """All episodes of these sessions, and a sentence for each session of which something is damaged. RecordingError when nothing is left."""
    readers = [RecordingReader(folder) for folder in folders]
    names = [reader.name for reader in readers]
    if len(set(names)) < len(names):
        raise RecordingError(f"two of the sessions {names} have one name; export them one by one, or rename a folder")
    found: list[Episode] = []
    said: list[str] = []
    for reader in readers:
        lost = set(reader.damaged())
        for stretch in reader.stretches:
            start = stretch.start
            for number in stretch:
                if not _is_readable(reader, number):
                    found += [Episode(reader, range(start, number))] if start < number else []
                    lost.add(number)
                    start = number + 1
            found += [Episode(reader, range(start, stretch.stop))] if start < stretch.stop else []
        if lost:
            said.append(f"{len(lost)} damaged moments of {reader.name} are left out, and end an episode: {in_words(lost)}")
    if not found:
        raise RecordingError(f"no moment of {', '.join(names) or 'no session'} can be read; there is nothing to export")
    return found, said


def _is_readable(reader: RecordingReader, number: int) -> bool:
    try:
        reader.observation(number)
        if (moment := reader.moment(number)).is_step:
            reader.encoded_action(number)
            reader.action_space.check(moment.requested)
    except (SessionDamaged, ActionError):
        return False
    return True


def in_words(numbers: set[int] | list[int], most: int = 12) -> str:
    """1, 4-9, 12 ..."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = [f"{first}" if first == last else f"{first}-{last}" for first, last in spans[:most]]
    return ", ".join(words) + (" ..." if len(spans) > most else "")


def when(moment: Moment) -> int:
    """Wall clock in nanoseconds: of the frame, or, where the robot did not say, of the action."""
    return moment.captured_ns or moment.started_ns


def frame_rate(episodes: list[Episode]) -> float:
    """Frames per second: the median over all neighbours whose times are known; 10 when none are."""
    times = [np.array([when(moment) for moment in episode.moments()], np.int64) for episode in episodes]
    between = np.concatenate([np.diff(each) for each in times])
    between = between[between > 0]
    return 1e9 / float(np.median(between)) if len(between) else 10.0


def nominal(rate: float) -> int:
    """A whole number of frames per second, as videos want it: the rate rounded up, 1 to 120."""
    return min(max(math.ceil(rate - 0.05), 1), 120)


def one_size(episodes: list[Episode]) -> tuple[int, int]:
    """Height and width of every frame; RecordingError when there are several sizes."""
    sizes = {moment.frame.shape[:2] for episode in episodes for moment in episode.moments()}
    if len(sizes) > 1:
        raise RecordingError(f"the frames have {len(sizes)} sizes, {sorted(sizes)[:4]}, and a video has one; export such sessions apart, or as png")
    height, width = sizes.pop()
    return height, width
