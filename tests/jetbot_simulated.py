"""A whole JetBot by one simulated clock: our client, the server's front end and motor owner, and its wheels, in one thread and no time.

What is replaced: the clock of both sides (the robot's is ahead by AHEAD), the sockets between them, the camera. `World.at` lets something
happen at a moment, in the middle of whatever waits then. World(plain=True) has only the two plain calls, and motors that keep what they were told.
"""

import base64
import functools
import io
import types

import pytest
from jetbot_clock import LIMIT, Simulated, Tape, host
from PIL import Image

from motorbabble.errors import RobotLost
from motorbabble.robots import jetbot
from motorbabble.robots.rpyc_link import CallFailed

AHEAD = 5000.0  # seconds
PICTURE = 0.033  # seconds from one to the next


@functools.cache
def picture(shade: int, size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, plain: bool = False, late: float = 0.0):
        self.plain, self.latency, self.dead, self.hung, self.size = plain, 0.001, False, False, (16, 16)
        self.simulated = Simulated(late)
        self.board = Tape() if plain else self.simulated.board
        self.events: list[tuple[float, object]] = []
        self.links: list[SimulatedLink] = []
        self.charge, self.about = None, {"protocol": 1, "fake": False, "limit": LIMIT, "lease": host.LEASE}
        self.body = host.Body(self, host.Orders(self), lambda: self.charge)
        self.service = host.make_service(types.SimpleNamespace(Service=object), self.body, self.about)
        self.answer, self.looked, self.moved = b"", 0, 0
        robots = types.SimpleNamespace(monotonic=lambda: self.board.now + AHEAD, sleep=self.sleep)
        ours = types.SimpleNamespace(monotonic=lambda: self.board.now, sleep=self.sleep, time_ns=lambda: round(self.board.now * 1e9))
        monkeypatch.setattr(host, "time", robots)
        monkeypatch.setattr(jetbot, "time", ours)
        monkeypatch.setattr(jetbot, "threading", types.SimpleNamespace(Event=lambda: SimulatedFlag(self)))
        monkeypatch.setattr(jetbot, "Link", lambda *arguments, **named: SimulatedLink(self, *arguments, **named))

    # Time

    @property
    def now(self) -> float:
        return self.board.now

    def at(self, seconds: float, happens) -> None:
        """So many seconds from now."""
        self.events.append((self.board.now + seconds, happens))
        self.events.sort(key=lambda event: event[0])

    def sleep(self, seconds: float) -> None:
        end = self.board.now + seconds
        while self.events and self.events[0][0] <= end:
            moment, happens = self.events.pop(0)
            self.wait(max(0.0, moment - self.board.now))
            happens()  # type: ignore[operator]
        self.wait(max(0.0, end - self.board.now))

    def wait(self, seconds: float) -> None:
        if self.plain:
            self.board.now += seconds
        else:
            self.simulated.wait(seconds)

    # The line to the motor owner, whose clock is the robot's

    def settimeout(self, seconds):
        pass

    def send(self, order):
        what, lease, received, *rest = host.ORDER.unpack(order)
        received = min(received - AHEAD, self.board.now) if received - AHEAD < self.board.now + 1e-9 else received - AHEAD  # of rounding
        self.answer = self.simulated.motors.obey(host.ORDER.pack(what, lease, received, *rest), self.board.now)

    def recv(self, most):
        return self.answer

    # The camera

    def newest(self):
        if not self.hung:
            self.number = int(self.board.now / PICTURE)
        values = self.board.values
        while self.looked < len(values) - 1:
            self.looked += 1
            self.moved += any(values[self.looked - 1][1:]) and not any(values[self.looked][1:])
        shade = 20 * (self.moved % 12)
        return self.number, self.number * PICTURE + AHEAD, lambda: picture(shade, self.size)

    # What was seen of it

    def turning(self) -> list[tuple[float, float]]:
        """From when until when the wheels were told to turn; infinity where they still are."""
        spans, begun = [], None
        for when, left, right in self.board.values:
            if (left or right) and begun is None:
                begun = when
            elif not (left or right) and begun is not None:
                spans.append((begun, when))
                begun = None
        return spans + ([(begun, float("inf"))] if begun is not None else [])


class SimulatedFlag:
    """threading.Event, by that clock."""

    def __init__(self, world: World):
        self.world, self.flag = world, False

    def set(self):
        self.flag = True

    def is_set(self):
        return self.flag

    def wait(self, seconds):
        end = self.world.now + seconds
        while not self.flag and self.world.now < end:
            self.world.sleep(min(0.005, end - self.world.now))
        return self.flag


class SimulatedLink:
    """A Link whose other end is a service in this process. A dead world lets it wait until its time is out."""

    def __init__(self, world: World, host_name, port, token="", timeout=1.0, legacy=None):
        self.world, self.host, self.port, self.token, self.timeout, self.legacy = world, host_name, port, token, timeout, bool(legacy)
        self.closed, self.calls = False, []
        if world.dead:
            raise RobotLost("nobody answers")
        self.service = world.service()
        world.links.append(self)

    def call(self, name, *values, timeout=None):
        if self.closed:
            raise RobotLost("the connection is closed")
        self.calls.append((name, *values))
        self.world.sleep(self.world.latency)
        if self.world.dead:
            self.world.sleep(self.timeout if timeout is None else timeout)
            self.closed = True
            raise RobotLost(f"the robot did not answer {name}")
        if self.world.plain:
            return self.plainly(name, *values)
        try:
            return self.service._rpyc_getattr(name)(*values)
        except Exception as error:  # whatever it raises there arrives here in words
            raise CallFailed(type(error).__name__, str(error)) from None
        finally:
            self.world.sleep(self.world.latency)

    def plainly(self, name, *values):
        if name == "set_motors":
            self.world.board.write(*values)
            return True
        if name == "get_camera_frame":
            return base64.b64encode(self.world.newest()[2]()).decode()
        raise CallFailed("AttributeError", f"no {name}")

    def close(self):
        if not self.closed:
            self.closed = True
            if not self.world.plain:
                self.service.on_disconnect(None)
