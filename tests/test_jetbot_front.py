"""What a JetBot's front end lets through to its motors, and what it answers, by a simulated clock."""

import base64
import hmac
import io
import json
import signal
import socket
import struct
import sys
import types
import zlib

import pytest
from jetbot_clock import host
from jetbot_machine import ME, Machine
from jetbot_simulated import AHEAD, World


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def ask(world, service, name, *values):
    return service._rpyc_getattr(name)(*values)


def test_a_client_reaches_the_listed_calls_by_either_name_and_nothing_else(world):
    service = world.service()
    assert set(service.NAMES) == {name[len("exposed_") :] for name in dir(type(service)) if name.startswith("exposed_")}
    assert service._rpyc_getattr("exposed_halt")() is True and service._rpyc_getattr("rearm")() is True
    for name in ("NAMES", "on_disconnect", "__class__", "exposed_exposed_halt", "exposed_", "XXhalt", ""):
        with pytest.raises(AttributeError, match="there is no"):
            service._rpyc_getattr(name)


def test_every_call_answers_what_it_promises(world):
    service = world.service()
    told = json.loads(ask(world, service, "info"))
    assert told["protocol"] == 1 and told["now"] == world.now + AHEAD and told["battery"] is None
    now = world.now + AHEAD
    lease, left, right, answered = ask(world, service, "drive", -9.0, 0.12, 3.0, now)
    assert (lease, left, right, answered) == (1, -0.25, 0.12, now)
    assert ask(world, service, "motion", lease) == ("moving", now) and ask(world, service, "motion", 7)[0] == "unknown"
    assert ask(world, service, "renew", lease, now) is True and ask(world, service, "renew", 7, now) is False
    assert ask(world, service, "halt") is True and ask(world, service, "motion", lease)[0] == "stopped" and not world.board.moving()
    assert ask(world, service, "set_motors", 0.0, 0.1) is True and world.board.moving()
    assert ask(world, service, "set_motors", 0, 0) is True and not world.board.moving()
    assert ask(world, service, "emergency_stop") is True
    with pytest.raises(RuntimeError, match="the emergency stop is pressed"):
        ask(world, service, "drive", 0.0, 0.1, 0.2, now)
    assert ask(world, service, "rearm") is True
    number, captured, moment, jpeg = ask(world, service, "get_frame", 0.0)
    assert jpeg[:2] == b"\xff\xd8" and moment == now and 0 <= moment - captured < 0.034 and number == world.number
    assert base64.b64decode(ask(world, service, "get_camera_frame")) == jpeg


@pytest.mark.parametrize("late", [0.26, -0.26, 5.0])
def test_what_was_sent_too_long_ago_moves_nothing(late, world):
    service, now = world.service(), world.now + AHEAD
    for call in (("drive", 0.0, 0.1, 0.2, now - late), ("renew", 1, now - late)):
        with pytest.raises(TimeoutError, match=f"sent {late:.2f} s before it was received, more than 0.25 s"):
            ask(world, service, *call)
    assert not world.turning()
    ask(world, service, "drive", 0.0, 0.1, 0.2, now - 0.24)
    assert world.board.moving()


def test_one_drives_until_it_is_silent_or_leaves(world):
    one, other = world.service(), world.service()

    def moves(service):
        return ask(world, service, "drive", 0.0, 0.1, 0.1, world.now + AHEAD)

    moves(one)
    world.sleep(1.9)
    with pytest.raises(RuntimeError, match="another client drives; wait until it has not for 2 s"):
        moves(other)
    ask(world, one, "renew", 1, world.now + AHEAD)  # whoever renews drives
    world.sleep(1.9)
    with pytest.raises(RuntimeError, match="another client drives"):
        ask(world, other, "renew", 1, world.now + AHEAD)
    world.sleep(0.1)
    moves(other)
    one.on_disconnect(None)
    assert world.board.moving(), "who does not drive leaves without a word"
    other.on_disconnect(None)
    assert not world.board.moving(), "who drives does not"
    moves(one)


def test_its_time_counts_from_its_receipt_however_long_the_camera_takes(world, monkeypatch):
    monkeypatch.setattr(world.body, "is_blind", lambda: world.sleep(0.1))
    received, service = world.now, world.service()
    ask(world, service, "drive", 0.0, 0.1, 3.0, received + AHEAD)
    world.sleep(1.0)
    assert received + 0.24 < world.turning()[0][1] <= received + host.LEASE + 0.001


def test_a_picture_is_waited_for_and_never_old(world):
    service, now = world.service(), world.now + AHEAD
    world.at(0.2, lambda: None)
    captured = ask(world, service, "get_frame", now + 0.1)[1]
    assert captured > now + 0.1 and world.now + AHEAD - now < 0.14
    world.hung = True
    world.sleep(host.OLDEST - 0.1)
    ask(world, service, "get_frame", 0.0)
    world.sleep(0.2)
    asked = world.now
    with pytest.raises(RuntimeError, match=r"no new picture for 1\.\d s; try on the robot"):
        ask(world, service, "get_frame", 0.0)
    assert host.OLDEST <= world.now - asked < host.OLDEST + 0.01


def test_blind_is_who_sees_nothing_new(world):
    assert not world.body.is_blind()
    world.hung, service = True, world.service()
    world.newest()
    world.sleep(host.BLIND - 0.04)
    assert not world.body.is_blind()
    world.sleep(0.05)
    assert world.body.is_blind()
    for call in (("set_motors", 0.0, 0.1), ("drive", 0.0, 0.1, 0.2, world.now + AHEAD), ("renew", 1, world.now + AHEAD)):
        with pytest.raises(RuntimeError, match="and nothing moves blind"):
            ask(world, service, *call)
    assert ask(world, service, "set_motors", 0.0, 0.0) is True, "zero is a stop"


@pytest.mark.parametrize("value", ["fast", None, b"x", True, (1,), float("nan"), float("inf"), -1e300, 10**400], ids=repr)
def test_a_number_is_one(value):
    with pytest.raises((ValueError, OverflowError)):
        host.plain(value)
    with pytest.raises((ValueError, OverflowError)):
        host.whole(value)
    assert host.plain(3) == 3.0 and type(host.plain(3)) is float and host.whole(2.0**32 + 5) == 5


def test_orders_are_answered_one_by_one_or_everything_ends(monkeypatch):
    sent, answers = [], []
    line = types.SimpleNamespace(settimeout=sent.append, send=sent.append, recv=lambda most: answers.pop(0))
    monkeypatch.setattr(host, "time", types.SimpleNamespace(monotonic=lambda: 7.5))
    orders = host.Orders(line)
    assert sent == [1.0]
    answers.append(host.ANSWER.pack(1, 3, 0.1, 0.2))
    assert orders.give(host.DRIVE, 3, 0.1, 0.2, 0.3) == (1, 3, 0.1, 0.2)
    assert host.ORDER.unpack(sent.pop()) == (host.DRIVE, 3, 7.5, 0.1, 0.2, 0.3)
    answers.append(host.ANSWER.pack(1, 0, 0.0, 0.0))
    orders.give(host.HALT)
    assert host.ORDER.unpack(sent.pop()) == (host.HALT, 0, 7.5, 0.0, 0.0, 0.0)
    answers.append(host.ANSWER.pack(1, 0, 0.0, 0.0))
    orders.give(host.RENEW, 4, received=2.5)
    assert host.ORDER.unpack(sent.pop()) == (host.RENEW, 4, 2.5, 0.0, 0.0, 0.0)
    for how, kind in ((2, RuntimeError), (3, TimeoutError), (4, RuntimeError), (5, RuntimeError)):
        answers.append(host.ANSWER.pack(how, 0, 0.0, 0.0))
        with pytest.raises(kind) as refused:
            orders.give(host.DRIVE)
        assert str(refused.value) == host.REFUSALS[how]
    monkeypatch.setattr(host, "os", types.SimpleNamespace(_exit=lambda status: (_ for _ in ()).throw(SystemExit(status))))
    answers.append(b"half")
    with pytest.raises(SystemExit) as ended:
        orders.give(host.HALT)
    assert ended.value.code == 1, "nobody knows which answer would come next"

    def silent(order):
        raise TimeoutError

    line.send = silent
    with pytest.raises(SystemExit):
        orders.give(host.HALT)


def test_the_front_end_watches_the_camera_while_something_moves(world, machine):
    machine.parent, given = ME, []
    blind = types.SimpleNamespace(is_blind=lambda: True, orders=types.SimpleNamespace(give=lambda what: given.append((machine.board.now, what))))

    def left(status):
        raise SystemExit(status)

    machine.os._exit = left
    machine.at(0.3, lambda: machine.page.set(host.UNTIL, 100.5))
    machine.at(0.4, lambda: machine.page.set(host.UNTIL, 0.0))
    machine.at(0.5, lambda: machine.page.set(host.UNTIL, 100.9))
    machine.at(0.5, lambda: setattr(blind, "is_blind", lambda: False))
    machine.at(1.0, lambda: setattr(machine, "parent", 1))
    with pytest.raises(SystemExit) as ended:
        host.watch(blind, machine.page, ME)
    assert given and {what for _, what in given} == {host.HALT} and all(100.3 <= when <= 100.4 for when, _ in given)
    assert given[0][0] < 100.311 and ended.value.code == 1, "at once, and never without a supervisor"
    assert machine.killed == [(pytest.approx(1.0, abs=0.011), ME, signal.SIGTERM)] and machine.board.now >= 101.0 + host.CLOSES


def test_the_battery_is_a_voltage_where_it_is_measured(monkeypatch):
    asked, reading = [], [0.0]

    class SMBus:
        def __init__(self, bus):
            asked.append(bus)

        def read_word_data(self, place, register):
            asked.append((place, register))
            if reading[0] is None:
                raise OSError("no such device")
            word = round(reading[0] / 0.004) * 8 + 2  # the last bit of three says that it was converted
            return (word & 0xFF) << 8 | word >> 8

    monkeypatch.setitem(sys.modules, "smbus", types.SimpleNamespace(SMBus=SMBus))
    battery = host.JetBotBattery()
    for volts, charge in ((9.0, 0.0), (10.8, 0.5), (12.6, 1.0), (12.9, 1.0), (7.0, 0.0)):
        reading[0] = volts
        assert battery() == pytest.approx(charge, abs=0.002) and 0 <= battery() <= 1
    assert asked[0] == 1 and set(asked[1:]) == {(0x41, 2)}
    reading[0] = None
    assert battery() is None
    monkeypatch.setitem(sys.modules, "smbus", None)
    assert host.JetBotBattery()() is None, "most boards have none"


def test_a_stand_ins_battery_falls_by_the_clock(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(host, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    battery, none = host.fake_battery(0.5, 0.1), host.fake_battery(None, 0.1)
    assert battery() == 0.5 and none() is None
    now[0] = 170.0
    assert battery() == pytest.approx(0.3) and none() is None
    now[0] = 1000.0
    assert battery() == 0.0


def test_a_request_is_short_packed_or_not():
    class Channel:
        FRAME_HEADER, FLUSHER = struct.Struct("!LB"), b"\n"

        def __init__(self, data):
            self.stream, self.closed = io.BytesIO(data), False

        def close(self):
            self.closed = True

    Short = host.short_of(Channel)
    frame = Channel.FRAME_HEADER.pack
    assert Short(frame(3, 0) + b"abc\nrest").recv() == b"abc"
    packed = zlib.compress(b"x" * 1000)
    assert Short(frame(len(packed), 1) + packed + b"\n").recv() == b"x" * 1000
    bomb = zlib.compress(bytes(2**22))
    assert len(Short(frame(len(bomb), 1) + bomb + b"\n").recv()) == host.LARGEST
    assert len(Short(frame(host.LARGEST, 0) + bytes(host.LARGEST) + b"\n").recv()) == host.LARGEST
    long = Short(frame(host.LARGEST + 1, 0))
    with pytest.raises(EOFError, match="65537 bytes"):
        long.recv()
    assert long.closed


def test_a_line_is_short_and_soon(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(host, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b" stop \r\nmore" + b"x" * 300)
        assert host.read_line(ours) == b"stop"
        assert len(host.read_line(ours)) == 200
        theirs.sendall(b"y\n")
        now = [0.0]

        class Slow:
            def recv(self, most):
                assert most == 1
                now[0] += 0.5
                return b"z"

        monkeypatch.setattr(host, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
        assert host.read_line(Slow()) == b"zzzz", "two seconds"
        theirs.close()
        host.read_line(ours)
        assert host.read_line(ours) == b""
    assert host.proof("word", "nonce") == hmac.new(b"word", b"nonce", "sha256").hexdigest().encode()
