"""What may happen to a robot that drives, and how long its motors then turn: measured at the latch, which keeps its last value whoever dies.

A trial: a server and a client as processes of their own, the client drives, one of FAULTS happens, and the latch is read, each of whose values
carries the monotonic time at which it was written. LATEST is strict. Where the machine did not let a witness run for WITNESSED or longer meanwhile, a
late stop says nothing about us: such a trial is repeated, at most AGAIN times; after that it counts as it came.
"""

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "robot_host" / "jetbot_server.py"
ORIGINAL = Path(__file__).parent / "original_server.py"
DRIVER = Path(__file__).parent / "jetbot_driver.py"
LATEST = 0.3  # seconds from a fault until the motors are at zero
WATCHED = 0.5  # seconds that the latch is watched after a fault
WITNESSED = 0.03
AGAIN = 4
LINE = struct.Struct("=ddd")
ORDER = struct.Struct("=BIdddd")  # jetbot_server.py's: what, lease, received, left, right, seconds
ODD = (0.0, -0.0, 0.12, -0.12, 0.25, 1.0, -1.0, 5.0, 1e-320, 1e308, -1e308, float("inf"), -float("inf"), float("nan"))


class Server:
    """A robot's server, ours unless told otherwise, with fake hardware; `python` may be another one's."""

    def __init__(self, folder: Path, *flags: str, python: str = sys.executable, file: Path = SERVER, env: dict[str, str] | None = None):
        self.latch = folder / f"latch{time.monotonic_ns()}"
        ours = ["--fake", "--latch", str(self.latch), "--port", "0", *flags] if file == SERVER else [str(self.latch)]
        self.process = subprocess.Popen(
            [python, str(file), *ours],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "JETBOT_TOKEN": "", **(env or {})},
        )
        assert self.process.stdout and self.process.stderr
        told = self.process.stdout.readline()
        assert ", processes " in told, self.process.stderr.read()
        self.port = int(told.split(":")[1].split(",")[0])
        self.supervisor, self.motors, self.front = map(int, told.split("processes")[1].split())

    def values(self) -> list[tuple[float, float, float]]:
        """(when, left, right) of every value the motors were given."""
        return list(LINE.iter_unpack(self.latch.read_bytes())) if self.latch.exists() else []

    def is_moving(self) -> bool:
        values = self.values()
        return bool(values) and any(values[-1][1:])

    def wait_until_moving(self, seconds: float = 5.0) -> None:
        late = time.monotonic() + seconds
        while not self.is_moving():
            assert time.monotonic() < late, "it never moved"
            time.sleep(0.002)

    def stopped_after(self, moment: float) -> float:
        """Seconds from `moment` until the motors were at zero to stay; infinity when they still turn."""
        values = self.values()
        moved = max((i for i, (_, left, right) in enumerate(values) if left or right), default=-1)
        if moved == len(values) - 1 and moved >= 0:
            return float("inf")
        return max(0.0, values[moved + 1][0] - moment) if moved >= 0 else 0.0

    def close(self) -> None:
        for process in {self.supervisor, self.motors, self.front}:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Wire(threading.Thread):
    """A proxy in the way of a client; `cut`, and nothing passes any more, though nobody is told."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.to = self.listener.getsockname()[1], port
        self.silent = threading.Event()
        self.ends: list[socket.socket] = []
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                self.ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if self.silent.is_set():
                    continue
                other.sendall(data)
            if not self.silent.is_set():
                other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self.silent.set()

    def close(self) -> None:
        for end in [self.listener, *self.ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Witness(threading.Thread):
    """Sleeps 2 ms again and again, and remembers the longest that it was not woken."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest, self.done = 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        before = time.monotonic()
        while not self.done.is_set():
            time.sleep(0.002)
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before - 0.002), now

    def testimony(self) -> float:
        self.done.set()
        self.join()
        return self.longest


@dataclass
class Scene:
    server: Server
    client: subprocess.Popen
    wire: Wire


def to(who: Callable[[Scene], int], what: signal.Signals) -> Callable[[Scene], None]:
    return lambda scene: os.kill(who(scene), what)


@dataclass(frozen=True)
class Fault:
    name: str
    happens: Callable[[Scene], None]
    driver: str = "leased"
    original: bool = False  # the original's server keeps turning
    spoils: bool = True  # the server cannot be used again
    more: dict = field(default_factory=dict)


def hang(scene: Scene) -> None:
    Path(f"{scene.server.latch}.hang").touch()


KILL, FREEZE = signal.SIGKILL, signal.SIGSTOP
FAULTS = (
    Fault("client kill -9", to(lambda scene: scene.client.pid, KILL), spoils=False),
    Fault("client frozen", to(lambda scene: scene.client.pid, FREEZE), spoils=False, original=True),
    Fault("silent link", lambda scene: scene.wire.cut(), spoils=False, original=True),
    Fault("server kill -9", to(lambda scene: scene.server.front, KILL), original=True),
    Fault("server frozen", to(lambda scene: scene.server.front, FREEZE), original=True),
    Fault("motor owner kill -9", to(lambda scene: scene.server.motors, KILL), original=True),
    Fault("camera hang", hang, original=True),
    Fault("exception in the selector", lambda scene: None, driver="selector", spoils=False),
    Fault("Ctrl+C", to(lambda scene: scene.client.pid, signal.SIGINT), driver="robot", spoils=False),
    Fault("SIGTERM", to(lambda scene: scene.client.pid, signal.SIGTERM), driver="robot", spoils=False),
)
FURTHER = (
    Fault("supervisor kill -9", to(lambda scene: scene.server.supervisor, KILL)),
    Fault("supervisor frozen", to(lambda scene: scene.server.supervisor, FREEZE)),
    Fault("motor owner frozen", to(lambda scene: scene.server.motors, FREEZE)),
    Fault("front end and link: Ctrl+C on the robot", lambda scene: os.killpg(scene.server.supervisor, signal.SIGINT)),
    Fault("SIGTERM on the robot", to(lambda scene: scene.server.supervisor, signal.SIGTERM)),
)


def trial(fault: Fault, server: Server, driver: str = "") -> tuple[float, float]:
    """Seconds until the motors were at zero, infinity if not within WATCHED, and for how long the machine kept our witness waiting."""
    wire = Wire(server.port)
    driver = driver or fault.driver
    client = subprocess.Popen(
        [sys.executable, str(DRIVER), driver, str(wire.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        server.wait_until_moving()
        if driver == "selector":
            assert client.stdout
            witness = Witness()
            moment = float(client.stdout.readline())
        else:
            time.sleep(random.uniform(0.0, 0.2))
            server.wait_until_moving()
            witness = Witness()
            moment = time.monotonic()
            fault.happens(Scene(server, client, wire))
        time.sleep(max(0.0, moment + WATCHED - time.monotonic()))
        return server.stopped_after(moment), witness.testimony()
    finally:
        client.kill()
        client.communicate()
        wire.close()


def trials(fault: Fault, folder: Path, number: int, python: str = sys.executable) -> list[float]:
    """Seconds until each of `number` stops of our server."""
    lasted: list[float] = []
    server: Server | None = None
    again = 0
    try:
        while len(lasted) < number:
            server = server or Server(folder, python=python)
            seconds, waited = trial(fault, server)
            if fault.spoils:
                server.close()
                server = None
            if seconds > LATEST and waited > WITNESSED and again < AGAIN:
                again += 1
                continue
            lasted.append(seconds)
    finally:
        if server:
            server.close()
    return lasted


def any_order(draw: random.Random, now: float) -> bytes:
    """An order to the motor owner: half of them sensible, the rest odd numbers, old or future ones, unknown kinds, or any bytes."""

    def number() -> float:
        return draw.choice([draw.choice(ODD), draw.uniform(-0.5, 0.5), struct.unpack("=d", draw.randbytes(8))[0]])

    if draw.random() < 0.5:
        return ORDER.pack(draw.choice([1, 1, 2, 3]), draw.randrange(3), now, draw.uniform(-0.6, 0.6), draw.uniform(-0.6, 0.6), draw.uniform(0, 1))
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(64))
    what = draw.choice([1, 2, 3, 3, 4, 6, 6, 7, draw.randrange(256)])
    return ORDER.pack(what, draw.randrange(2**32), draw.choice([now, now - draw.random(), number()]), number(), number(), number())
