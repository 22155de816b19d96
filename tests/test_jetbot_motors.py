"""What a JetBot's motors may do, and when it ends, by a simulated clock: the motor owner of robot_host/jetbot_server.py, alone."""

import math
import random

import pytest
from jetbot_clock import Simulated, check_board, host
from jetbot_faults import any_order


def test_an_action_rises_in_four_values_lasts_and_falls_in_four():
    robot = Simulated()
    begun = robot.board.now
    how, lease, left, right = robot.send(host.DRIVE, 0.0, 0.12, 0.2)
    assert (how, left, right) == (1, 0.0, 0.12)
    robot.wait(1.0)
    moments = [when - begun for when, *_ in robot.board.values[1:]]
    assert moments == pytest.approx([0.0, 0.015, 0.03, 0.045, 0.2, 0.215, 0.23, 0.245], abs=1e-4)
    assert [right for *_, right in robot.board.values[1:]] == pytest.approx([0.03, 0.06, 0.09, 0.12, 0.09, 0.06, 0.03, 0.0])
    assert robot.outcome(lease) == "done" and robot.until == 0.0


def test_the_supervisor_is_told_until_when_the_motors_may_turn():
    robot = Simulated()
    begun, lease = robot.board.now, robot.send(host.DRIVE, 0.0, 0.12, 3.0)[1]
    assert robot.until == begun + host.LEASE
    for _ in range(5):
        robot.wait(0.08)
        robot.send(host.RENEW, lease=lease)
        assert robot.until == pytest.approx(robot.board.now + host.LEASE)
    robot.wait(0.24)
    assert robot.until == pytest.approx(begun + 0.4 + host.LEASE)
    robot.wait(0.02)
    assert robot.until == 0.0


@pytest.mark.parametrize(
    ("order", "how"),
    [
        ((host.HALT,), 1),
        ((host.STOP,), 1),
        ((host.REARM,), 1),
        ((host.SET, 0.0, 0.0), 1),
        ((99, 0.1, 0.1, 0.2), 4),
        ((0, 0.1, 0.1, 0.2), 4),
        ((host.DRIVE, math.nan, 0.1, 0.2), 4),
        ((host.DRIVE, 0.1, math.inf, 0.2), 4),
        ((host.DRIVE, 0.1, 0.1, math.nan), 4),
        ((host.DRIVE, 0.1, 0.1, -0.1), 4),
        ((host.DRIVE, 0.1, 0.1, host.LONGEST + 0.1), 4),
    ],
    ids=str,
)
def test_these_stop_at_once(order, how):
    robot = Simulated()
    lease = robot.send(host.DRIVE, 0.1, 0.1, 0.5)[1]
    robot.wait(0.1)
    assert robot.board.moving() and robot.outcome(lease) == "moving"
    assert robot.send(*order)[0] == how and not robot.board.moving() and robot.until == 0.0
    written = len(robot.board.values)
    robot.wait(1.0)
    assert len(robot.board.values) == written and robot.motors.tick(robot.board.now) is None
    if order[0] != host.SET:
        assert robot.outcome(lease) == "stopped"


def test_what_cannot_be_read_stops_at_once():
    for garbage in (b"", b"x", bytes(host.ORDER.size + 1)):
        robot = Simulated()
        robot.send(host.DRIVE, 0.1, 0.1, 0.5)
        assert robot.raw(garbage)[0] == 4 and not robot.board.moving()


def test_an_action_begins_with_its_command_and_says_when_it_is_due_again():
    robot = Simulated()
    _, first, *_ = robot.send(host.DRIVE, 0.0, 0.12, 0.2)
    assert robot.board.values[-1] == (robot.board.now, 0.0, 0.03)
    assert robot.motors.tick(robot.board.now) == pytest.approx(host.STEP)
    robot.wait(0.1)
    assert robot.motors.tick(robot.board.now) == pytest.approx(0.1)
    robot.wait(0.5)
    assert robot.send(host.DRIVE, 0.0, 0.12, host.LONGEST)[:2] == (1, first + 1)
    assert robot.motors.tick(robot.board.now + 0.1) == pytest.approx(0.015, abs=1e-6)


def test_a_clock_that_comes_far_too_late_still_knows_how_it_ended():
    for seconds, outcome in ((0.2, "done"), (0.3, "cut short")):
        robot = Simulated()
        lease = robot.send(host.DRIVE, 0.0, 0.12, seconds)[1]
        robot.board.now += 1.0
        assert robot.motors.tick(robot.board.now) is None and not robot.board.moving()
        assert robot.outcome(lease) == outcome


def test_a_motor_that_turns_the_other_way_is_never_rushed():
    robot = Simulated()
    robot.send(host.SET, 0.25, -0.25)
    robot.wait(0.1)
    robot.send(host.SET, -0.25, 0.25)
    robot.wait(0.2)
    check_board(robot.board.values)
    assert (-0.25, 0.25) in [value[1:] for value in robot.board.values]


def test_zero_comes_first():
    assert Simulated().board.values == [(100.0, 0.0, 0.0)]


def test_a_longer_action_is_as_long_as_it_says_if_it_is_renewed_and_cut_short_if_not():
    robot = Simulated()
    begun, lease = robot.board.now, robot.send(host.DRIVE, 0.0, 0.12, 0.6)[1]
    for _ in range(8):
        robot.wait(0.08)
        robot.send(host.RENEW, lease=lease)
    robot.wait(1.0)
    assert robot.board.values[-1][0] - begun == pytest.approx(0.645, abs=1e-3) and robot.outcome(lease) == "done"
    begun, lease = robot.board.now, robot.send(host.DRIVE, 0.0, 0.12, 0.6)[1]
    robot.wait(0.08)
    robot.send(host.RENEW, lease=lease)
    robot.wait(1.0)
    assert robot.board.values[-1][0] - begun == pytest.approx(0.08 + 0.245, abs=1e-3) and robot.outcome(lease) == "cut short"


def test_what_has_ended_does_not_begin_again():
    robot = Simulated()
    lease = robot.send(host.DRIVE, 0.0, 0.12, 0.2)[1]
    robot.wait(0.21)  # on its way down
    assert robot.send(host.RENEW, lease=lease)[0] == 0
    robot.wait(0.1)
    assert robot.send(host.RENEW, lease=lease)[0] == 0 and not robot.board.moving()
    other = robot.send(host.DRIVE, 0.0, 0.12, 0.5)[1]
    assert robot.send(host.RENEW, lease=lease)[0] == 0, "and the one before does not lengthen the new one"
    robot.wait(1.0)
    assert robot.outcome(other) == "cut short" and robot.outcome(lease) == "unknown"


def test_a_command_that_waited_too_long_moves_nothing():
    robot = Simulated()
    for age in (0.26, 5.0, -0.1):
        assert robot.send(host.DRIVE, 0.0, 0.12, 0.2, age=age)[0] == 3
        assert robot.send(host.SET, 0.0, 0.12, age=age)[0] == 3
    assert not any(robot.board.values[-1][1:])
    robot.send(host.DRIVE, 0.0, 0.12, 0.2, age=0.1)  # it counts from its receipt
    robot.wait(1.0)
    assert robot.board.values[-1][0] - 100.0 <= host.LEASE - 0.1 + 1e-3


def test_the_plain_call_holds_until_its_lease_ends():
    robot = Simulated()
    for step in range(1, 5):  # as the original's client rises
        robot.send(host.SET, 0.0, 0.03 * step)
        robot.wait(0.0151)
    assert robot.board.values[-1][2] == pytest.approx(0.12)
    robot.wait(1.0)
    assert robot.board.values[-1][0] - 100.0 <= 3 * 0.0151 + host.LEASE
    robot.send(host.SET, 0.0, 0.2)
    robot.send(host.SET, 0.0, 0.0)
    assert not robot.board.moving(), "zero is at once"


def test_the_emergency_stop_latches():
    robot, draw = Simulated(late=0.003), random.Random(1)
    pressed = False
    for _ in range(1000):
        what = draw.choice([host.DRIVE, host.SET, host.RENEW, host.HALT, host.DRIVE, host.STOP, host.REARM])
        how = robot.send(what, draw.uniform(-1, 1), draw.uniform(-1, 1), draw.uniform(0, 1), robot.motors.lease)[0]
        pressed = what == host.STOP or (pressed and what != host.REARM)
        assert (how == 2) == (pressed and what in (host.DRIVE, host.SET, host.RENEW))
        before = len(robot.board.values)
        robot.wait(draw.uniform(0.0, 0.1))
        if pressed:
            assert not robot.board.moving() and not any(any(value[1:]) for value in robot.board.values[before:])


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_commands_of_any_kind_leave_nothing_out_of_range(seed):
    robot, accepted, draw = Simulated(late=0.004, seed=seed), -math.inf, random.Random(seed)
    for _ in range(2500):
        order = any_order(draw, robot.board.now)
        how = robot.raw(order)[0]
        if how == 1 and order[0] in (host.DRIVE, host.SET, host.RENEW):
            accepted = robot.board.now
        robot.wait(draw.choice([0.0, 0.001, 0.02, 0.3]))
        if robot.board.now > accepted + host.LEASE + 0.01:
            assert not robot.board.moving(), "250 ms after the last command that was taken, and the lateness of the clock, it stands"
    check_board(robot.board.values)
    assert sum(any(value[1:]) for value in robot.board.values) > 500, "and there was something to check"


def test_a_motor_owner_that_clamps_nothing_is_noticed(monkeypatch):
    monkeypatch.setattr(host, "STEPS", 1)  # no ramp
    robot = Simulated()
    monkeypatch.undo()
    robot.motors.limit, robot.motors.slew = math.inf, math.inf
    for value in (0.2, 7.0):
        robot.send(host.SET, value, 0.0)
        robot.wait(0.1)
    with pytest.raises(AssertionError):
        check_board(robot.board.values)


def test_an_hour_of_acting_and_training_moves_only_inside_actions():
    robot, draw = Simulated(late=0.002), random.Random(3)
    windows, end = [], robot.board.now + 3600.0
    while robot.board.now < end:
        seconds = draw.choice([0.1, 0.2, 0.5])
        begun, lease = robot.board.now, robot.send(host.DRIVE, 0.0, 0.12, seconds)[1]
        while robot.board.now < begun + seconds:
            robot.wait(min(0.08, begun + seconds - robot.board.now + 1e-6))
            robot.send(host.RENEW, lease=lease)
        robot.wait(0.06)
        windows.append((begun, seconds))
        robot.wait(draw.uniform(0.0, 30.0))  # it learns
    assert len(windows) > 100
    values, at = robot.board.values[1:], 0
    for begun, seconds in windows:
        inside = []
        while at < len(values) and values[at][0] <= begun + seconds + 0.06:
            inside.append(values[at])
            at += 1
        assert all(begun <= when for when, *_ in inside) and not any(inside[-1][1:])
        falls = next(when for (when, *_), (_, _, before) in zip(inside[1:], inside, strict=False) if before >= 0.12 - 1e-9)
        assert falls - begun == pytest.approx(seconds, abs=0.005), "an action is as long as it says"
        assert inside[-1][0] - begun <= seconds + 0.045 + 0.01
    assert at == len(values)
