#!/usr/bin/env python3
"""The robot's side of a JetBot: camera and motors over RPyC. One file, Python 3.6 to 3.13; needs rpyc, and on a robot the jetbot library.

    python3 jetbot_server.py            on a JetBot; --fake stands in for its hardware, anywhere on Linux

Three processes, so that no single one can leave the wheels turning. The motor owner alone drives: whatever it is told ends
at most 250 ms after it was received, the way down included, and it knows neither network nor camera. The front end knows
both and may hang or die. The supervisor watches the two: it has motors of its own, and zeroes what is overdue or left behind.
docs/jetbot.md names the faults this was tried against, and what remains.
"""

import argparse
import base64
import hashlib
import hmac
import json
import math
import mmap
import os
import random
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib

PROTOCOL = 1  # of the leased calls
PORT = 18861
LEASE = 0.25  # seconds from the receipt of a command until the motors are at zero, whatever happens
STEP = 0.015  # seconds between two values of a ramp
STEPS = 4  # values of a ramp
HOLD = 0.2  # seconds after which the way down begins, which takes 45 ms; 5 are left for a late timer
LONGEST = 5.0  # seconds an action may last, renewed
OVERDUE = 0.015  # seconds after which the supervisor helps
SILENT = 0.2  # seconds without a sign of life from the supervisor until the motor owner refuses to drive
BLIND = 0.2  # seconds without a new picture after which nothing moves
OLDEST = 0.5  # seconds: an older picture is an error, not an answer
DRIVING = 2.0  # seconds after its last command that a driver keeps the wheel
CLOSES = 1.0  # seconds for the camera to let go of its driver, which otherwise may want a restart
CLIENTS = 8
LARGEST = 65536  # bytes of one request

ORDER = struct.Struct("=BIdddd")  # what, lease, received, left, right, seconds
ANSWER = struct.Struct("=BIdd")  # how, lease, left, right
DRIVE, SET, RENEW, HALT, STOP, REARM, ASK = range(1, 8)
REFUSALS = {
    2: "the emergency stop is pressed; look at the robot, then call rearm()",
    3: "the command was received too long ago or from the future; nothing moved",
    4: "the command holds something else than finite numbers and 0 to %g seconds; the motors were stopped" % LONGEST,
    5: "the supervisor of the motors does not answer; restart the server",
}
CURE = "try on the robot: sudo systemctl restart nvargus-daemon"
OUTCOMES = ("unknown", "moving", "done", "cut short", "stopped")


# The motor owner


class Motors:
    """What the motors may do, and when it ends. Clock and board are passed in, so an hour passes in no time in a test."""

    def __init__(self, board, limit, announce=lambda until: None):
        self.board, self.limit, self.announce = board, limit, announce
        self.slew = limit / STEPS  # at most from one value to the next
        self.held = (0.0, 0.0)
        self.emergency = False
        self.lease, self.outcome = 0, "done"
        self.zero("done")

    def zero(self, outcome):
        self.board.zero()
        self.announce(0.0)
        self.held = self.target = (0.0, 0.0)
        self.resting, self.falling = True, False
        if self.outcome == "moving":
            self.outcome = outcome

    def obey(self, order, now):
        """One order in bytes; the answer in bytes. What cannot be read stops the motors."""
        try:
            what, lease, received, left, right, seconds = ORDER.unpack(order)
        except struct.error:
            what, lease, received, left, right, seconds = 0, 0, now, 0.0, 0.0, 0.0
        how = 1
        if what == ASK:
            how = 10 + OUTCOMES.index(self.outcome if lease == self.lease else "unknown")
        elif what == HALT:
            self.zero("stopped")
        elif what == STOP:
            self.emergency = True
            self.zero("stopped")
        elif what == REARM:
            self.zero("stopped")
            self.emergency = False
        elif not all(map(math.isfinite, (received, left, right, seconds))) or what not in (DRIVE, SET, RENEW) or not 0 <= seconds <= LONGEST:
            self.zero("stopped")
            how = 4
        elif self.emergency:
            how = 2
        elif not -STEP <= now - received <= LEASE:
            how = 3
        elif what == RENEW:
            how = 1 if lease == self.lease and not self.resting and not self.falling else 0
            if how:
                self.heard = max(self.heard, received)
                self.announce(self.heard + LEASE)
        else:
            self.begin(left, right, seconds if what == DRIVE else None, received, now)
        return ANSWER.pack(how, self.lease, self.target[0], self.target[1])

    def begin(self, left, right, seconds, received, now):
        """`seconds` None: the plain call, which does its own ramps and names no end."""
        self.lease = (self.lease + 1) % 2**32
        if seconds is None and left == right == 0:
            self.zero("stopped")
            return
        self.target = tuple(min(max(value, -self.limit), self.limit) for value in (left, right))
        rise = max(abs(target - held) for target, held in zip(self.target, self.held)) / STEPS
        self.most = self.slew if seconds is None else min(self.slew, rise)
        self.heard, self.ends = received, math.inf if seconds is None else received + seconds
        self.next = now if self.resting else self.next
        self.resting, self.falling, self.outcome = False, False, "moving"
        self.tick(now)

    def tick(self, now):
        """Does what is due; seconds until something is again, None at rest."""
        if self.resting:
            return None
        if now >= self.heard + LEASE:
            self.zero("done" if self.ends <= self.heard + HOLD else "cut short")
            return None
        if not self.falling and now >= min(self.ends, self.heard + HOLD):
            self.falling, self.outcome_then = True, "done" if self.ends <= self.heard + HOLD else "cut short"
            self.target, self.most = (0.0, 0.0), max(map(abs, self.held)) / STEPS
        if self.falling and self.held == (0.0, 0.0):
            self.zero(self.outcome_then)
            return None
        if self.held != self.target and now >= self.next:
            value = tuple(self.towards(held, target) for held, target in zip(self.held, self.target))
            if self.falling and value == (0.0, 0.0):
                self.zero(self.outcome_then)
                return None
            self.announce(self.heard + LEASE)
            self.board.write(*value)
            self.held, self.next = value, now + STEP
        due = [self.heard + LEASE] if self.falling else [self.heard + LEASE, self.ends, self.heard + HOLD]
        return max(0.0, min(due + ([self.next] if self.held != self.target else [])) - now)

    def towards(self, held, target):
        step = target - held
        return target if abs(step) <= self.most * (1 + 1e-9) else held + math.copysign(self.most, step)


def own_the_motors(board, limit, orders, page, parent):
    """The motor owner's life. It ends at zero: when the front end or the supervisor is gone, at SIGTERM, at any error."""
    terminated = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the supervisor, who tells us
    hurry()
    try:
        motors = Motors(board, limit, lambda until: page.set(UNTIL, until))
        while not terminated and os.getppid() == parent:
            due = motors.tick(time.monotonic())
            ready, _, _ = select.select([orders], [], [], 0.05 if due is None else min(due, 0.01))
            watched = time.monotonic() - page.get(BEAT) < SILENT
            if not watched:
                motors.zero("stopped")
            if ready:
                order = orders.recv(4096)
                if not order:
                    break
                orders.send(motors.obey(order, time.monotonic()) if watched or order[0] in (HALT, STOP, ASK) else ANSWER.pack(5, 0, 0.0, 0.0))
    finally:
        board.zero()
        page.set(UNTIL, 0.0)


# The supervisor

BEAT, UNTIL = 0, 1  # places in the page: its own last sign of life; when the motors are at zero at the latest, 0 at rest


class Page:
    """Two numbers in memory that supervisor and motor owner share. Each is written in one piece, and read until two looks agree."""

    def __init__(self):
        self.memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def get(self, place):
        value = None
        while value != self.memory[place]:
            value = self.memory[place]
        return value

    def set(self, place, value):
        self.memory[place] = value


def supervise(board, arguments, token):
    """Begin and end at zero; in between, watch. Answers the exit status."""
    board.zero()
    page, stopping, mine, starter = Page(), [], os.getpid(), os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.append(True))
    page.set(BEAT, time.monotonic())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def owner():
        theirs.close()
        own_the_motors(board, arguments.limit, ours, page, mine)

    def front():
        ours.close()
        serve(arguments, token, Orders(theirs), page, mine, motors)

    motors = fork(owner)
    face = fork(front)
    ours.close()
    theirs.close()
    hurry()
    overdue, ended = 0.0, 0
    while not stopping and not ended:
        time.sleep(0.01)
        now = time.monotonic()
        page.set(BEAT, now)
        tell_systemd()
        if arguments.fake and os.getppid() != starter:  # a stand-in ends with whoever started it
            stopping.append(True)
        until = page.get(UNTIL)
        if until and now > until + OVERDUE:
            board.zero()
            overdue = overdue or now
            if now > overdue + 0.1:  # not late: frozen
                say("the motor owner does not answer; the motors were stopped")
                break
        else:
            overdue = 0.0
        ended = os.waitpid(-1, os.WNOHANG)[0]
    if ended:
        board.zero()
        say("the %s ended; the motors were stopped" % ("motor owner" if ended == motors else "front end"))
    end(motors, patience=0.0 if ended else 0.1)
    board.zero()
    end(face, patience=CLOSES)  # the camera last
    board.zero()
    return 0 if stopping else 1


def outlived(life):
    """In a container we are process 1, with whom all others end at once: another one supervises, and we stay until its motor owner has noticed."""
    child = fork(life)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    ended, status = os.waitpid(-1, 0)
    while ended != child:
        ended, status = os.waitpid(-1, 0)
    time.sleep(0.5)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def fork(life):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        status = life() or 0
    except SystemExit:
        pass
    except BaseException as error:  # nothing of this process goes on
        say("%s: %s" % (type(error).__name__, error))
    finally:
        sys.stdout.flush()
        os._exit(status)


def end(child, patience):
    """SIGTERM, some seconds to obey, then SIGKILL, which a frozen process obeys too."""
    try:
        os.kill(child, signal.SIGTERM if patience else signal.SIGKILL)
        late = time.monotonic() + patience
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if patience and time.monotonic() > late:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
    except (ProcessLookupError, ChildProcessError):
        pass


def hurry():
    """Before everybody else, where we may."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (OSError, AttributeError):
        pass


def tell_systemd():
    """A sign of life, for WatchdogSec= in the unit."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as there:
            try:
                there.sendto(b"READY=1\nWATCHDOG=1", "\0" + place[1:] if place.startswith("@") else place)
            except OSError:
                pass


def say(words):
    sys.stderr.write("jetbot_server: %s\n" % words)
    sys.stderr.flush()


# The front end


class Orders:
    """From any thread to the motor owner, and its answer."""

    def __init__(self, link):
        self.link, self.lock = link, threading.Lock()
        link.settimeout(1.0)

    def give(self, what, lease=0, left=0.0, right=0.0, seconds=0.0, received=None):
        order = ORDER.pack(what, lease, time.monotonic() if received is None else received, left, right, seconds)
        with self.lock:
            try:
                self.link.send(order)
                how, lease, left, right = ANSWER.unpack(self.link.recv(4096))
            except (OSError, struct.error):  # never the answer to another question
                os._exit(1)
        if how in REFUSALS:
            raise (TimeoutError if how == 3 else RuntimeError)(REFUSALS[how])
        return how, lease, left, right


def make_service(rpyc, body, about):
    """The calls a client may make; `body` is the one robot they all share."""

    class JetBotService(rpyc.Service):
        NAMES = ("get_camera_frame", "set_motors", "info", "get_frame", "drive", "renew", "motion", "halt", "emergency_stop", "rearm")

        def on_disconnect(self, conn):
            body.leave(self)

        def _rpyc_getattr(self, name):
            plain = name[len("exposed_") :] if name.startswith("exposed_") else name
            if plain not in self.NAMES:
                raise AttributeError("there is no %r here" % name)
            return getattr(self, "exposed_" + plain)

        # As existing robots answer

        def exposed_get_camera_frame(self):
            """Base64 text of a JPEG."""
            return base64.b64encode(body.look(0.0)[3]).decode("ascii")

        def exposed_set_motors(self, left, right):
            body.drive(self, SET, plain(left), plain(right))
            return True

        # Leased: the robot times what it was told. `sent` is this robot's clock, as the client reckons it.

        def exposed_info(self):
            """JSON text: what this server is, and its battery's charge from 0 to 1, null where nobody knows."""
            return json.dumps(dict(about, battery=body.battery(), now=time.monotonic()))

        def exposed_get_frame(self, after):
            """The newest picture, taken after `after` on this robot's clock: (number, captured, now, JPEG)."""
            return body.look(plain(after))

        def exposed_drive(self, left, right, seconds, sent):
            """(lease, left, right, now): what was begun, after clamping."""
            in_time(plain(sent))
            return body.drive(self, DRIVE, plain(left), plain(right), plain(seconds))[1:] + (time.monotonic(),)

        def exposed_renew(self, lease, sent):
            """Another 250 ms at most for an action that lasts longer; False when it has ended already: it does not begin again."""
            in_time(plain(sent))
            return body.renew(self, whole(lease))

        def exposed_motion(self, lease):
            """(outcome, now): moving, done, cut short, stopped; unknown for a lease that is not the newest."""
            return OUTCOMES[body.orders.give(ASK, whole(lease))[0] - 10], time.monotonic()

        def exposed_halt(self):
            body.orders.give(HALT)
            return True

        def exposed_emergency_stop(self):
            """From anybody; nothing moves until rearm()."""
            body.orders.give(STOP)
            return True

        def exposed_rearm(self):
            body.orders.give(REARM)
            return True

    return JetBotService


def plain(value):
    """A number that is really one, never an object of the other side that pretends."""
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise ValueError("a number is needed, not %s" % (value if type(value) in (int, float) else type(value).__name__))
    return float(value)


def whole(value):
    return int(plain(value)) % 2**32


def in_time(sent):
    late = time.monotonic() - sent
    if not abs(late) <= LEASE:
        raise TimeoutError("the command was sent %.2f s before it was received, more than %.2f s; nothing moved" % (late, LEASE))


class Body:
    """Eyes, motors, battery, and who drives."""

    def __init__(self, eye, orders, battery):
        self.eye, self.orders, self.battery = eye, orders, battery
        self.lock, self.driver, self.drove = threading.Lock(), None, 0.0

    def drive(self, who, what, left, right, seconds=0.0):
        received = time.monotonic()
        if what == SET and left == right == 0:
            return self.orders.give(HALT)  # anybody may stop
        self.take_the_wheel(who)
        return self.orders.give(what, 0, left, right, seconds, received)

    def renew(self, who, lease):
        received = time.monotonic()
        self.take_the_wheel(who)
        return self.orders.give(RENEW, lease, received=received)[0] == 1

    def is_blind(self):
        return time.monotonic() - self.eye.newest()[1] > BLIND

    def take_the_wheel(self, who):
        if self.is_blind():
            raise RuntimeError("the camera has shown no new picture for %g s, and nothing moves blind; %s" % (BLIND, CURE))
        with self.lock:
            now = time.monotonic()
            if self.driver not in (None, who) and now - self.drove < DRIVING:
                raise RuntimeError("another client drives; wait until it has not for %g s, or disconnect it" % DRIVING)
            self.driver, self.drove = who, now

    def leave(self, who):
        with self.lock:
            if self.driver is who:
                self.driver = None
                self.orders.give(HALT)

    def look(self, after):
        """Waits for a picture taken after `after`; never an old one."""
        late = time.monotonic() + OLDEST
        while True:
            number, captured, jpeg = self.eye.newest()
            now = time.monotonic()
            if captured > after and now - captured <= OLDEST:
                return number, captured, now, jpeg()
            if now > late:
                raise RuntimeError("the camera has shown no new picture for %.1f s; %s" % (now - captured, CURE))
            time.sleep(0.002)


def serve(arguments, token, orders, page, parent, motors):
    """The front end's life. Whatever ends it, the motor owner sees its end of the line close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    import rpyc
    import rpyc.utils.server as servers
    from rpyc.utils.authenticators import AuthenticationError

    servers.Channel = short_of(servers.Channel)
    eye = FakeEye(arguments.latch, arguments.seed) if arguments.fake else JetBotEye()
    body = Body(eye, orders, fake_battery(arguments.battery, arguments.drain) if arguments.fake else JetBotBattery())
    threading.Thread(target=watch, args=(body, page, parent), daemon=True).start()
    about = {
        "protocol": PROTOCOL,
        "rpyc": ".".join(map(str, rpyc.version.version)),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "fake": arguments.fake,
        "limit": arguments.limit,
        "lease": LEASE,
        "longest": LONGEST,
    }

    def greet(sock):
        """Strangers stay outside: with a token, nothing of RPyC is reached before it is known."""
        if len(server.clients) > CLIENTS:
            raise AuthenticationError("too many clients")
        keep_alive(sock)
        if token:
            nonce = os.urandom(16).hex()
            sock.settimeout(2.0)
            try:
                sock.sendall(("motorbabble-jetbot %d %s\n" % (PROTOCOL, nonce)).encode())
                said = read_line(sock)
            except OSError as error:
                raise AuthenticationError("no answer") from error
            if said == b"stop":
                orders.give(STOP)  # anybody may
            if not hmac.compare_digest(said, proof(token, nonce)):
                raise AuthenticationError("wrong token")
            sock.sendall(b"welcome\n")
            sock.settimeout(None)
        return sock, None

    class Server(servers.ThreadedServer):
        def _authenticate_and_serve_client(self, sock):
            try:
                servers.ThreadedServer._authenticate_and_serve_client(self, sock)
            except Exception:  # somebody who speaks another language; the connection is closed already
                pass

    server = Server(
        make_service(rpyc, body, about),
        hostname=arguments.host,
        port=arguments.port,
        authenticator=greet,
        protocol_config={"allow_safe_attrs": False, "include_local_traceback": False, "allow_pickle": False},
        logger=quiet(),
    )
    kind = "a fake robot" if arguments.fake else "the robot"
    server.listener.listen(CLIENTS)
    print("%s at %s:%d, processes %d %d %d" % (kind, arguments.host, server.port, parent, motors, os.getpid()))
    sys.stdout.flush()
    try:
        server.start()
    finally:
        eye.close()


def watch(body, page, parent):
    """Nothing moves blind; and no front end without a supervisor."""
    while os.getppid() == parent:
        if page.get(UNTIL) and body.is_blind():
            body.orders.give(HALT)
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLOSES)
    os._exit(1)


def quiet():
    import logging

    logger = logging.getLogger("jetbot_server")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def keep_alive(sock):
    """A client that is gone without a word is noticed after some ten seconds; its motors stand still long before."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read_line(sock):
    """At most 200 bytes in two seconds."""
    said, late = b"", time.monotonic() + 2.0
    while not said.endswith(b"\n") and len(said) < 200 and time.monotonic() < late:
        more = sock.recv(1)
        if not more:
            break
        said += more
    return said.strip()


def proof(token, nonce):
    return hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest().encode()


def short_of(channel):
    """RPyC's channel, for requests no longer than LARGEST, unpacked or not."""

    class Short(channel):
        def recv(self):
            length, packed = self.FRAME_HEADER.unpack(self.stream.read(self.FRAME_HEADER.size))
            if length > LARGEST:
                self.close()
                raise EOFError("a request of %d bytes" % length)
            data = self.stream.read(length + len(self.FLUSHER))[: -len(self.FLUSHER)]
            return zlib.decompressobj().decompress(data, LARGEST) if packed else data

    return Short


# The hardware


class JetBotBoard:
    """The motor board through the jetbot library, which hands on only values that change."""

    def __init__(self):
        from jetbot import Robot

        self.robot = Robot()
        if not hasattr(self.robot, "set_motors"):
            raise RuntimeError("no motor board was found on the I2C bus; check its cable and power (i2cdetect -y -r 1)")

    def write(self, left, right):
        self.robot.set_motors(left, right)

    def zero(self):
        """Also when the library believes that it is zero already: another process may have written since."""
        for _ in range(5):
            try:
                self.robot.set_motors(1e-6, 1e-6)  # too little to turn anything, but a change
                self.robot.set_motors(0.0, 0.0)
                return
            except OSError as error:  # a disturbed bus
                say("the motor board did not answer (%s)" % error)
                time.sleep(0.005)
        raise RuntimeError("the motor board cannot be written; switch its power off")


class JetBotEye:
    """The camera through the jetbot library. Its thread reads on and on, so that no old picture waits in a queue."""

    def __init__(self):
        from jetbot import Camera, bgr8_to_jpeg

        self.encode = bgr8_to_jpeg
        self.seen, self.made = (0, -math.inf, None), (0, b"")
        self.camera = Camera.instance(width=224, height=224)
        self.camera.observe(self.see, names="value")

    def see(self, change):
        self.seen = (self.seen[0] + 1, time.monotonic(), change["new"])

    def newest(self):
        number, captured, value = self.seen

        def jpeg():
            if self.made[0] != number:
                self.made = (number, bytes(self.encode(value)))
            return self.made[1]

        return number, captured, jpeg

    def close(self):
        self.camera.stop()


class JetBotBattery:
    """The charge, from 0 to 1, by the voltage that an INA219 at 0x41 measures (Waveshare's boards, three cells); None where there is none."""

    EMPTY, FULL = 9.0, 12.6  # volts

    def __init__(self):
        try:
            from smbus import SMBus

            self.bus = SMBus(1)
        except (ImportError, OSError):
            self.bus = None

    def __call__(self):
        if self.bus is None:
            return None
        try:
            word = self.bus.read_word_data(0x41, 2)  # the bus voltage: its bytes swapped, in units of 4 mV from the fourth bit on
        except OSError:
            return None
        volts = ((word & 0xFF) << 8 | word >> 8) // 8 * 0.004
        return min(max((volts - self.EMPTY) / (self.FULL - self.EMPTY), 0.0), 1.0)


# The stand-in: a motor board that is a file, a battery that is a clock, and a camera in a drawn room

COLUMNS, ACROSS, BLOCK = 84, 28, 8  # of the room all around; of a picture; pixels of one
TURN = 125.0  # columns per second at speed 1: the action 0.12 for 0.2 s turns it by 3
FRAME = 0.033  # seconds between two pictures
LINE = struct.Struct("=ddd")  # when, left, right


class FakeBoard:
    """Keeps its last value whoever dies: each one is appended to a file, with the time."""

    def __init__(self, latch):
        self.file = os.open(latch, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, left, right):
        os.write(self.file, LINE.pack(time.monotonic(), left, right))

    def zero(self):
        self.write(0.0, 0.0)


def fake_battery(charge, drain):
    """Falls by `drain` a minute; None where no `charge` was given."""
    begun = time.monotonic()
    return lambda: None if charge is None else max(0.0, charge - drain * (time.monotonic() - begun) / 60)


class FakeEye:
    """Turns with the right wheel, as a JetBot does whose left wheel stands still. While a file LATCH.hang exists the camera hangs."""

    def __init__(self, latch, seed):
        self.latch, self.room, self.made = latch, room(seed), {}
        self.read, self.value, self.since, self.place = 0, 0.0, 0.0, 0.0
        self.lock, self.seen = threading.Lock(), (0, -math.inf, 0)

    def look(self):
        with open(self.latch, "rb") as file:
            file.seek(self.read)
            lines = file.read()
        now = time.monotonic()
        for at in range(0, len(lines) - LINE.size + 1, LINE.size):
            when, left, right = LINE.unpack_from(lines, at)
            self.turn(when, right - left)
            self.read += LINE.size
        self.turn(now, self.value)
        self.seen = (self.seen[0] + 1, now, round(self.place) % COLUMNS)

    def turn(self, now, value):
        if self.since:
            self.place += self.value * TURN * (now - self.since)
        if not value and self.value:
            self.place = float(round(self.place))  # at rest it settles, so that milliseconds do not add up
        self.value, self.since = value, now

    def newest(self):
        """Taken when it is asked for, but not more often than thirty times a second: a busy machine does not make it blind."""
        with self.lock:
            if time.monotonic() - self.seen[1] >= FRAME and not os.path.exists(self.latch + ".hang"):
                self.look()
            number, captured, place = self.seen

        def jpeg():
            if place not in self.made:
                self.made[place] = mosaic([[row[(place + x) % COLUMNS] for x in range(ACROSS)] for row in self.room])
            return self.made[place]

        return number, captured, jpeg

    def close(self):
        pass


def room(seed):
    """Rows of colours (Y, Cb, Cr): wall, floor, and a dozen boxes along the wall."""
    draw = random.Random(seed)
    rows = [[(150 - 2 * y, 128, 128) if y < 16 else (60 + 2 * y, 118, 138) for _ in range(COLUMNS)] for y in range(ACROSS)]
    for number in range(12):
        left, wide, top = number * 7 + draw.randrange(3), draw.randrange(2, 5), draw.randrange(4, 14)
        colour = (draw.randrange(60, 230), draw.randrange(40, 216), draw.randrange(40, 216))
        for y in range(top, draw.randrange(16, 22)):
            for x in range(left, left + wide):
                rows[y][x % COLUMNS] = colour
    return rows


def mosaic(rows):
    """A baseline JPEG whose 8 x 8 blocks are flat, so only their mean is coded (ITU-T T.81): no imaging library is needed."""
    size = struct.pack(">HH", len(rows) * BLOCK, len(rows[0]) * BLOCK)
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x08" * 64)  # every coefficient in units of 8: a mean in units of 1
    head += segment(0xC0, b"\x08" + size + b"\3" + b"\1\x11\0" + b"\2\x11\0" + b"\3\x11\0")
    head += segment(0xC4, b"\0" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12)))  # lengths of differences: four bits each
    head += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")  # one bit: nothing but the mean
    head += segment(0xDA, b"\3" + b"\1\0" + b"\2\0" + b"\3\0" + b"\0\x3f\0")
    bits, before = [], [0, 0, 0]
    for row in rows:
        for colour in row:
            for i, value in enumerate(colour):
                change = value - 128 - before[i]
                before[i] = value - 128
                length = abs(change).bit_length()
                bits.append(format(length, "04b"))
                if length:
                    bits.append(format(change if change > 0 else change + 2**length - 1, "0%db" % length))
                bits.append("0")
    joined = "".join(bits)
    joined += "1" * (-len(joined) % 8)
    body = int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\0")
    return head + body + b"\xff\xd9"


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


# From the command line


def main():
    parser = argparse.ArgumentParser(description="The robot's side of a JetBot: camera and motors over RPyC.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; another one than this machine needs a token (default %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="default %(default)s; 0 takes any free one")
    parser.add_argument("--token-file", help="a file with the secret that clients prove to know; else the variable JETBOT_TOKEN")
    parser.add_argument("--limit", type=float, default=0.25, help="no motor ever runs faster; 1 is all it can (default %(default)s)")
    parser.add_argument("--zero", action="store_true", help="only stop the motors")
    parser.add_argument("--fake", action="store_true", help="no hardware: a drawn room, and motors that are a file")
    parser.add_argument("--latch", help="the file for the fake motors' values")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn room")
    parser.add_argument("--battery", type=float, help="the charge, 0 to 1, that the fake robot begins with; else it reports none")
    parser.add_argument("--drain", type=float, default=0.01, help="of it in a minute (default %(default)s)")
    arguments = parser.parse_args()
    if not 0 < arguments.limit <= 1:
        parser.error("--limit is %g; give more than 0, and at most 1" % arguments.limit)
    if arguments.battery is not None and not 0 <= arguments.battery <= 1:
        parser.error("--battery is %g; give 0 to 1, or leave it out" % arguments.battery)
    token = os.environ.get("JETBOT_TOKEN", "").strip()
    try:
        if arguments.token_file:
            with open(arguments.token_file) as file:
                token = file.read().strip()
    except OSError as error:
        parser.error("the token cannot be read (%s)" % error)
    if arguments.token_file and not token:
        parser.error("%s is empty; write a long random word into it" % arguments.token_file)
    if arguments.host not in ("127.0.0.1", "localhost") and not token:
        parser.error("--host %s lets everybody on the network drive; give --token-file, or leave --host out and use an SSH tunnel" % arguments.host)
    place = tempfile.mkdtemp(prefix="jetbot-") if arguments.fake and not arguments.latch else None
    if place:
        arguments.latch = os.path.join(place, "latch")
    try:
        board = FakeBoard(arguments.latch) if arguments.fake else JetBotBoard()
    except Exception as error:  # whatever the library raises
        say("the motors cannot be reached: %s" % error)
        return 1
    if arguments.zero:
        board.zero()
        return 0
    try:
        if os.getpid() == 1:
            return outlived(lambda: supervise(board, arguments, token))
        return supervise(board, arguments, token)
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
