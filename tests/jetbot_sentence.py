"""What every failure of a robot that is far away comes to: a sentence, soon."""

import time

import pytest

from motorbabble.errors import RobotError

SENTENCE = 3.0  # seconds


def in_a_sentence(act, *words, kind=RobotError, seconds=SENTENCE):
    """It raises a RobotError of one sentence that holds the words, within three seconds."""
    begun = time.monotonic()
    with pytest.raises(kind) as raised:
        act()
    assert time.monotonic() - begun < seconds
    said = str(raised.value)
    assert "\n" not in said and "Traceback" not in said and 20 < len(said) < 400
    assert all(word in said for word in words), said
    return raised.value
