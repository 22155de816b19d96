"""The robot's own stops by a simulated clock: the motor owner's life, and the supervisor's."""

import itertools
import os
import signal
import types

import pytest
from jetbot_clock import LIMIT, host
from jetbot_machine import FACE, ME, OWNER, Machine


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


# The motor owner's life


def owner_lives(machine, seconds=2.0):
    """Until its line is closed, so many seconds from its beginning; the supervisor is well."""
    machine.parent = ME

    def beat():
        machine.page.set(host.BEAT, machine.board.now)
        if machine.board.now < 100 + seconds:
            machine.at(machine.board.now - 100 + 0.02, beat)

    if not machine.events:
        machine.at(0.0, beat)
    machine.page.set(host.BEAT, machine.board.now)
    if seconds:
        machine.orders.append((100 + seconds, b""))
    host.own_the_motors(machine.board, LIMIT, machine, machine.page, ME)


def test_the_motor_owner_does_an_action_in_time_and_ends_with_its_line(machine):
    machine.order(0.1, host.DRIVE, 0.0, 0.12, 0.2)
    machine.order(0.5, host.ASK, lease=1)
    owner_lives(machine)
    moving = [(round(when - 100, 3), round(right, 3)) for when, _, right in machine.board.values if right]
    assert [right for _, right in moving] == [0.03, 0.06, 0.09, 0.12, 0.09, 0.06, 0.03]
    assert [when for when, _ in moving] == pytest.approx([0.1, 0.115, 0.13, 0.145, 0.3, 0.315, 0.33], abs=0.002)
    assert [answer[0] for answer in machine.answers] == [1, 10 + host.OUTCOMES.index("done")]
    assert machine.zeros()[0] == 0.0 and machine.zeros()[-1] == 2.0 and machine.page.get(host.UNTIL) == 0.0
    assert round(machine.zeros()[1] - 0.345, 2) == 0


def test_the_motor_owner_announces_until_when_they_may_turn(machine):
    machine.order(0.1, host.DRIVE, 0.0, 0.12, 0.2)
    seen = []
    for seconds in (0.05, 0.2, 0.4):
        machine.at(seconds, lambda: seen.append(machine.page.get(host.UNTIL)))
    machine.at(0.0, lambda: None)
    machine.page.set(host.BEAT, 100.0)
    machine.orders.append((100.1999, b""))
    owner_lives(machine, 0)
    assert seen[:1] == [0.0] and machine.page.get(host.UNTIL) == 0.0
    assert machine.zeros()[-1] == 0.2, "its end is zero, also in the middle"


def test_without_a_supervisor_it_refuses_to_drive_and_stops(machine):
    machine.order(0.1, host.DRIVE, 0.0, 0.12, 3.0)
    machine.at(0.15, lambda: machine.order(0.16, host.RENEW, lease=1))
    for seconds, what in ((0.3, host.DRIVE), (0.31, host.SET), (0.32, host.ASK), (0.33, host.HALT), (0.34, host.STOP), (0.35, host.REARM)):
        machine.order(seconds, what, 0.0, 0.12, 0.2)
    machine.orders.append((100.5, b""))
    machine.parent = ME
    machine.page.set(host.BEAT, 100.0)  # its last sign of life
    host.own_the_motors(machine.board, LIMIT, machine, machine.page, ME)
    hows = [answer[0] for answer in machine.answers]
    assert hows == [1, 5, 5, 10 + host.OUTCOMES.index("unknown"), 1, 1, 5]
    first = next(zero for zero in machine.zeros() if zero > 0.1)
    assert host.SILENT <= first <= host.SILENT + 0.011, "with the supervisor's silence the motors rest"
    assert not any(right for when, _, right in machine.board.values if when - 100 > first)


@pytest.mark.parametrize("how", ["orphaned", "SIGTERM", "error"])
def test_however_the_motor_owner_ends_it_ends_at_zero(how, machine, monkeypatch):
    machine.order(0.1, host.DRIVE, 0.0, 0.12, 3.0)
    if how == "error":
        machine.orders.append((100.2, "not bytes"))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            owner_lives(machine)
    else:
        machine.at(0.2, lambda: setattr(machine, "parent", 1) if how == "orphaned" else machine.handlers[signal.SIGTERM](signal.SIGTERM, None))
        machine.page.set(host.BEAT, 100.1)
        owner_lives(machine, 5.0)
    assert 0.2 <= machine.zeros()[-1] <= 0.212 and not machine.board.moving() and machine.page.get(host.UNTIL) == 0.0
    assert machine.handlers[signal.SIGINT] == signal.SIG_IGN, "Ctrl+C is the supervisor's"


# The supervisor


def supervised(machine, monkeypatch, fake=False):
    """Its exit status. What it ended: when, whom, with how much patience."""
    monkeypatch.setattr(host, "end", lambda child, patience: machine.ends.append((round(machine.board.now - 100, 3), child, patience)))
    return host.supervise(machine.board, types.SimpleNamespace(fake=fake, limit=LIMIT), "")


def terminate(machine, number=signal.SIGTERM):
    return lambda: machine.handlers[number](number, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_supervisor_begins_and_ends_at_zero(number, machine, monkeypatch):
    machine.at(1.0, terminate(machine, number))
    assert supervised(machine, monkeypatch) == 0
    assert machine.zeros()[0] == 0.0 and [zero for zero in machine.zeros() if zero] == pytest.approx([1.0, 1.0], abs=0.011)
    assert [(child, patience) for _, child, patience in machine.ends] == [(OWNER, 0.1), (FACE, host.CLOSES)], "the camera last, with patience"
    assert 0 <= machine.ends[0][0] - 1.0 < 0.011 and not machine.said
    beats = machine.beats
    assert len(beats) > 90 and max(b - a for a, b in itertools.pairwise(beats)) < 0.011, "and its heart beats"
    assert beats[0] > 100.0


def test_the_supervisor_zeroes_what_is_overdue_and_ends_what_is_frozen(machine, monkeypatch):
    machine.at(0.5, lambda: machine.page.set(host.UNTIL, 100.5))
    assert supervised(machine, monkeypatch) == 1
    zeros = [zero for zero in machine.zeros() if zero]
    assert host.OVERDUE <= zeros[0] - 0.5 <= host.OVERDUE + 0.02
    assert all(b - a < 0.011 for a, b in itertools.pairwise(zeros)), "again and again"
    assert 0.099 <= machine.ends[0][0] - zeros[0] <= 0.121 and machine.ends[0][1:] == (OWNER, 0.1)
    assert machine.said == ["the motor owner does not answer; the motors were stopped"]


def test_a_motor_owner_that_is_only_late_lives_on(machine, monkeypatch):
    for seconds in (0.5, 0.8):
        machine.at(seconds, lambda: machine.page.set(host.UNTIL, machine.board.now))
        machine.at(seconds + 0.08, lambda: machine.page.set(host.UNTIL, 0.0))
    machine.at(1.2, lambda: machine.page.set(host.UNTIL, 102.0))
    machine.at(1.5, lambda: machine.page.set(host.UNTIL, 0.0))
    machine.at(2.0, terminate(machine))
    assert supervised(machine, monkeypatch) == 0 and not machine.said
    zeros = [zero for zero in machine.zeros() if 0 < zero < 1.99]
    assert zeros and all(0.5 < zero < 0.59 or 0.8 < zero < 0.89 for zero in zeros), "what is announced for later is let be"


@pytest.mark.parametrize(("child", "words"), [(OWNER, "the motor owner ended"), (FACE, "the front end ended")])
def test_when_one_of_them_ends_the_motors_are_stopped_first(child, words, machine, monkeypatch):
    machine.at(0.5, lambda: machine.dead.append(child))
    assert supervised(machine, monkeypatch) == 1
    assert 0.5 <= next(zero for zero in machine.zeros() if zero) <= 0.511
    assert machine.ends[0][1:] == (OWNER, 0.0) and machine.ends[1][1:] == (FACE, host.CLOSES), "nobody is waited for before the motors rest"
    assert machine.said == [words + "; the motors were stopped"]


def test_each_of_them_begins_with_what_it_needs(machine, monkeypatch):
    lives, begun, pids = [], [], iter((OWNER, FACE))
    monkeypatch.setattr(host, "fork", lambda life: lives.append(life) or next(pids))
    monkeypatch.setattr(host, "Orders", lambda line: ("orders", line))
    monkeypatch.setattr(host, "own_the_motors", lambda *arguments: begun.append(arguments))
    monkeypatch.setattr(host, "serve", lambda *arguments: begun.append(arguments))
    ours, theirs = (types.SimpleNamespace(closed=[], close=lambda name=name: closed.append(name)) for name in ("ours", "theirs"))
    closed: list[str] = []
    unix = types.SimpleNamespace(AF_UNIX=1, SOCK_SEQPACKET=5, socketpair=lambda *kind: (ours, theirs) if kind == (1, 5) else None)
    monkeypatch.setattr(host, "socket", unix)
    machine.at(0.1, terminate(machine))
    arguments = types.SimpleNamespace(fake=False, limit=LIMIT)
    monkeypatch.setattr(host, "end", lambda child, patience: None)
    assert host.supervise(machine.board, arguments, "a word") == 0 and closed == ["ours", "theirs"], "a line that is held open never ends"
    lives[0]()
    lives[1]()
    assert closed[2:] == ["theirs", "ours"], "nor one of which each end is held by both"
    assert begun == [(machine.board, LIMIT, ours, machine.page, ME), (arguments, "a word", ("orders", theirs), machine.page, ME, OWNER)]


def test_a_stand_in_ends_with_who_started_it_and_a_robot_does_not(machine, monkeypatch):
    machine.at(0.5, lambda: setattr(machine, "parent", 1))
    assert supervised(machine, monkeypatch, fake=True) == 0 and machine.board.now < 100.6
    again = Machine(monkeypatch)
    again.at(0.5, lambda: setattr(again, "parent", 1))
    again.at(1.0, terminate(again))
    assert supervised(again, monkeypatch) == 0 and again.board.now > 100.9


@pytest.mark.parametrize(
    ("patience", "obeys", "signals"),
    [(0.1, True, [signal.SIGTERM]), (0.1, False, [signal.SIGTERM, signal.SIGKILL]), (0.0, False, [signal.SIGKILL])],
    ids=["obeys", "stubborn", "at once"],
)
def test_whoever_is_ended_is_ended(patience, obeys, signals, machine):
    def waits(process, how):
        assert process == FACE and how == os.WNOHANG
        last = machine.killed[-1]
        return (FACE, 0) if last[2] == signal.SIGKILL or (obeys and machine.board.now > 100.04) else (0, 0)

    machine.os.waitpid = waits
    host.end(FACE, patience)
    assert [number for _, _, number in machine.killed] == signals and {process for _, process, _ in machine.killed} == {FACE}
    assert machine.killed[-1][0] == pytest.approx(0.0 if obeys or not patience else patience, abs=0.011)


def test_who_is_gone_already_needs_no_end(machine):
    def gone(*_):
        raise ProcessLookupError

    machine.os.kill = gone
    host.end(FACE, 1.0)
    machine.os.kill, machine.os.waitpid = (lambda *_: None), lambda *_: (_ for _ in ()).throw(ChildProcessError)
    host.end(FACE, 1.0)
    assert machine.board.now == 100.0


def test_what_supervisor_and_owner_share_is_two_numbers():
    page = host.Page()
    assert (page.get(host.BEAT), page.get(host.UNTIL)) == (0.0, 0.0)
    page.set(host.BEAT, 3.25)
    assert (page.get(host.BEAT), page.get(host.UNTIL)) == (3.25, 0.0)
    page.set(host.UNTIL, 7.5)
    assert (page.get(host.BEAT), page.get(host.UNTIL)) == (3.25, 7.5)

    class Torn:
        def __init__(self):
            self.values = [1.0, 2.0, 2.0]

        def __getitem__(self, place):
            return self.values.pop(0)

    page.memory = Torn()
    assert page.get(0) == 2.0, "two looks have to agree"
