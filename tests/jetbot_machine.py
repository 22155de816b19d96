"""A JetBot's processes that are not there, by a simulated clock: what motor owner, supervisor and front end do to one another, and when."""

import os
import signal
import types

import pytest
from jetbot_clock import Tape, host

ME, STARTER, OWNER, FACE = 10, 9, 11, 12  # processes


class Machine:
    """Clock, processes and signals of a robot that is not there. `at` lets something happen when its moment has come; nothing waits for real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.board, self.page, self.events = Tape(), host.Page(), []
        self.said, self.killed, self.ends, self.handlers = [], [], [], {}
        self.parent, self.dead, self.beats = STARTER, [], []
        self.orders: list[tuple[float, bytes]] = []  # when, and what is sent to the motor owner; empty: the other end closed
        self.answers: list[tuple] = []
        forked = iter((OWNER, FACE))
        self.os = types.SimpleNamespace(
            getpid=lambda: ME,
            getppid=lambda: self.parent,
            waitpid=self.waitpid,
            kill=lambda process, number: self.killed.append((round(self.board.now - 100, 3), process, number)),
            WNOHANG=os.WNOHANG,
        )
        for name, stand_in in {
            "os": self.os,
            "time": types.SimpleNamespace(monotonic=lambda: self.board.now, sleep=self.sleep),
            "select": types.SimpleNamespace(select=self.select),
            "signal": types.SimpleNamespace(
                **{name: getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGKILL", "SIG_IGN")}, signal=self.handlers.__setitem__
            ),
            "Page": lambda: self.page,
            "fork": lambda life: next(forked),
            "say": self.said.append,
            "hurry": lambda: None,
            "tell_systemd": lambda: self.beats.append(self.page.get(host.BEAT)),
        }.items():
            monkeypatch.setattr(host, name, stand_in)

    def at(self, seconds, happens):
        self.events.append((100 + seconds, happens))
        self.events.sort(key=lambda event: event[0])

    def sleep(self, seconds):
        assert seconds >= 0 and self.board.now < 200, "it goes on and on"
        end = self.board.now + seconds
        while self.events and self.events[0][0] <= end:
            self.board.now, happens = max(self.board.now, self.events[0][0]), self.events.pop(0)[1]
            happens()
        self.board.now = max(end, self.board.now)

    def waitpid(self, process, how):
        assert process == -1 and how == os.WNOHANG
        return (self.dead.pop(0), 9) if self.dead else (0, 0)

    # The motor owner's line

    def select(self, ready, nothing, more, seconds):
        assert 0 <= seconds <= 0.05 and ready == [self] and nothing == more == []
        if self.orders and self.orders[0][0] <= self.board.now + seconds:
            self.sleep(max(0.0, self.orders[0][0] - self.board.now))
            return ready, [], []
        self.sleep(seconds)
        return [], [], []

    def recv(self, most):
        return self.orders.pop(0)[1]

    def send(self, answer):
        self.answers.append(host.ANSWER.unpack(answer))

    def order(self, seconds, what, left=0.0, right=0.0, lasts=0.0, lease=0):
        self.orders.append((100 + seconds, host.ORDER.pack(what, lease, 100 + seconds, left, right, lasts)))

    def zeros(self):
        return [round(when - 100, 3) for when, left, right in self.board.values if not (left or right)]
