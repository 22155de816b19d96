"""Learning spread over several processes: it is what one learns, levels and all, and a helper that is gone is missed."""

import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch
from brief_lives import BriefMind
from test_beside import gone
from test_latent import small

from motorbabble.errors import ConfigurationError, LearningError, MotorbabbleError
from motorbabble.learning.gate import GateConfig
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.levels import LevelsConfig
from motorbabble.learning.process import load, state_of
from motorbabble.learning.spread import Spread, _devices, _Helper
from motorbabble.world_models.base import WorldModel, this_process

EAGER = LevelsConfig(level_skill=-5.0, retire_skill=-9.0, level_evaluations=4)  # one more level after every four predictions
CONFIG = LearnerConfig(batch_size=4, shift=(2, 2), gate=GateConfig(max_seconds=math.inf), levels=EAGER)


class Frail(BriefMind):
    """Fails in every process but the first."""

    def losses(self, batch):
        if this_process()[0]:
            raise RuntimeError("the weights\nare upside down")
        return super().losses(batch)


def seen(looks: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """What a robot sees that pushes a square to the right, or does not, and what it did before."""
    rng, place, pushed = np.random.default_rng(0), 0, 0
    for look in range(looks):
        image = np.zeros((32, 32, 3), np.uint8)
        image[8:12, place % 28 : place % 28 + 4] = 255
        yield image, np.array([pushed, 0.5], np.float32) if look else None
        pushed = int(rng.integers(2))
        place += 4 * pushed


def spread(mind: WorldModel, config: LearnerConfig = CONFIG, **settings: Any) -> Any:
    return closing(Spread(mind, config, processes=2, **settings))


def taught(learner: Learner, looks: list[Any]) -> tuple[list[dict[str, float]], list[int], list[str]]:
    """Losses of every update, the number of levels after each look, and what was said."""
    losses, levels, notes = [], [], []
    for image, led in looks:
        learner.keep(image, led)
        for study in learner.study():
            losses.append(study.losses)
            notes += study.notes
        levels.append(len(learner.levels))
    return losses, levels, notes


def apart(several: list[dict[str, float]], one: list[dict[str, float]]) -> float:
    """The largest difference of any loss of any update."""
    assert [losses.keys() for losses in several] == [losses.keys() for losses in one]
    return max(abs(a[name] - b[name]) / max(1.0, abs(b[name])) for a, b in zip(several, one, strict=True) for name in b if math.isfinite(b[name]))


def sockets_of(process: int) -> set[str]:
    """The addresses of this machine at which it listens and speaks."""
    opened = set()
    for number in os.listdir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):
            opened.add(os.readlink(f"/proc/{process}/fd/{number}"))
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/{process}/net/{kind}").read_text().splitlines()[1:]]
    found = [words[1].partition(":")[0] for words in lines if f"socket:[{words[9]}]" in opened]
    return {socket.inet_ntoa(bytes.fromhex(address)[::-1]) if len(address) == 8 else address for address in found}


def test_two_processes_learn_what_one_learns_levels_and_all(monkeypatch):
    torch.set_num_threads(1)
    looks = list(seen(26))
    one = Learner(small(), CONFIG)
    taught(one, looks[:6])
    sent, lost = [], []
    tell = _Helper.tell
    monkeypatch.setattr(_Helper, "tell", lambda helper, what, *more: (sent.append((what, *more)), tell(helper, what, *more)))
    with spread(small(), when_lost=lambda error, killed: lost.append(killed)) as two:
        load(two, state_of(one))  # what it has learned so far, its optimiser's moments too
        for look in looks[:6]:
            two.replay.add(*look)
        two.updates, two.samples = one.updates, one.samples
        expected, levels, said = taught(one, looks[6:25])
        losses, same_levels, same_said = taught(two, looks[6:25])
        assert apart(losses, expected) < 1e-5
        assert (levels, said) == (same_levels, same_said) and max(levels) == 3  # both levels grew, with their losses
        assert any("level_2/patch" in update for update in losses) and any("fresh_error" in update for update in losses)
        assert two.surprise.state_dict() == pytest.approx(one.surprise.state_dict(), abs=1e-5)
        assert (two.updates, two.samples) == (one.updates, one.samples)
        frames = sum(len(message[3]) for message in sent if message[0] == "update")
        assert 0 < frames <= 25  # each goes to the helper once
        for learner in (one, two):  # and a level that is wanted no more is retired by all
            learner.levels.config = LevelsConfig(most_levels=1)
        assert apart(taught(two, looks[25:])[0], taught(one, looks[25:])[0]) < 1e-5 and len(two.levels) == 1
        windows = one.choose()[0]
        two.rng.bit_generator.state = one.rng.bit_generator.state
        elsewhere = np.random.default_rng(1).bit_generator.state
        spoilt = lambda helper, what, state, *more: tell(helper, what, elsewhere, *more)  # noqa: E731
        monkeypatch.setattr(_Helper, "tell", spoilt)
        assert apart([two.update(windows)], [one.update(windows)]) > 1e-4  # a helper that draws for itself would be noticed
        monkeypatch.setattr(_Helper, "tell", tell)
        [helper] = two.helpers
        assert sockets_of(helper) == {"127.0.0.1"}
        began = time.monotonic()
        os.kill(helper, signal.SIGKILL)
        with pytest.raises(LearningError, match=r"a process that helps learning is gone \(killed by signal 9\)"):
            two.update(windows)
        assert time.monotonic() - began < 5 and lost == [True]


def test_a_helper_that_fails_says_why_and_none_is_left():
    lost, told = [], Flag()

    def when_lost(error: MotorbabbleError, killed: bool) -> None:
        lost.append((str(error), killed))
        told.set()

    with spread(Frail(2), LearnerConfig(batch_size=2), when_lost=when_lost) as learner:
        with pytest.raises(ConfigurationError, match="2 processes learn together already; spread one learner at a time"):
            Spread(BriefMind(2), CONFIG, processes=2)
        [helper] = learner.helpers
        with pytest.raises(LearningError, match=r"a process that helps learning failed with RuntimeError \(the weights are upside down\)"):
            taught(learner, list(seen(3)))
        assert told.wait(5) and not lost[0][1]
    assert gone(helper)
    with pytest.raises(ConfigurationError, match="closed"):
        learner.update([])


def test_what_cannot_be_spread_is_said():
    with pytest.raises(ConfigurationError, match="over 1 processes"):
        Spread(BriefMind(2), CONFIG, processes=1)
    with pytest.raises(ConfigurationError, match="4 windows cannot be shared evenly by 3"):
        Spread(BriefMind(2), CONFIG, processes=3)
    with pytest.raises(ConfigurationError, match="leave it false"):
        Spread(BriefMind(2), LearnerConfig(compile=True), processes=2)


def test_a_cuda_device_for_each_or_it_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(BriefMind, "device", torch.device("cuda", 1))
    assert _devices(BriefMind(2), LearnerConfig(batch_size=6), 3) == [torch.device("cuda", 0), torch.device("cuda", 2)]
    with pytest.raises(ConfigurationError, match="there are 3 devices here, not 4"):
        _devices(BriefMind(2), CONFIG, 4)
