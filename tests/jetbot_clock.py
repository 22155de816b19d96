"""The motor owner of robot_host/jetbot_server.py by a simulated clock: an hour of it takes a second."""

import importlib.util
import itertools
import math
import random

from jetbot_faults import SERVER


def loaded():
    spec = importlib.util.spec_from_file_location("robot_host.jetbot_server", SERVER)  # as mutmut names it
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


host = loaded()
LIMIT = 0.25


class Tape:
    """A motor board that remembers when it was given what, by a clock that is set by hand."""

    def __init__(self):
        self.now, self.values = 100.0, []

    def write(self, left, right):
        self.values.append((self.now, left, right))

    def zero(self):
        self.write(0.0, 0.0)

    def moving(self):
        return bool(self.values) and any(self.values[-1][1:])


class Simulated:
    """Motors, their board, and time that passes by itself; `late` seconds at most from when something is due until it is done."""

    def __init__(self, late=0.0, seed=0, limit=LIMIT):
        self.board, self.random, self.late = Tape(), random.Random(seed), late
        self.until, self.announced = 0.0, True
        self.motors = host.Motors(self.board, limit, self.announce)

    def announce(self, until):
        assert until == 0.0 or until <= self.board.now + host.LEASE, "what is announced to the supervisor is never later than a lease"
        assert until or not self.board.moving(), "rest is announced after the motors are at rest"
        self.until = until

    def send(self, what, left=0.0, right=0.0, seconds=0.0, lease=0, age=0.0):
        return self.raw(host.ORDER.pack(what, lease, self.board.now - age, left, right, seconds))

    def raw(self, order):
        return host.ANSWER.unpack(self.motors.obey(order, self.board.now))

    def wait(self, seconds):
        end = self.board.now + seconds
        while (due := self.motors.tick(self.board.now)) is not None and self.board.now + due < end:
            self.board.now += due + 1e-6 + self.random.uniform(0.0, self.late)
        self.board.now = max(end, self.board.now)
        self.motors.tick(self.board.now)
        assert bool(self.until) == self.board.moving() or not self.motors.resting, "the supervisor knows whether they turn"

    def outcome(self, lease):
        return host.OUTCOMES[self.send(host.ASK, lease=lease)[0] - 10]


def check_board(values, limit=LIMIT):
    for (before, *old), (when, *new) in itertools.pairwise(values):
        assert all(math.isfinite(value) and abs(value) <= limit + 1e-12 for value in new), new
        if any(new):  # to zero may be at once
            assert all(abs(a - b) <= limit / host.STEPS + 1e-9 for a, b in zip(old, new, strict=True)), (old, new)
            assert when - before >= host.STEP - 0.001 or not any(old), "nor sooner than a step of a ramp"
