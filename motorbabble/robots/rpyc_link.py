"""One connection to a server that speaks RPyC, 4.1 to 6: calls a method by its name, with plain values there and back.

The protocol is RPyC's, and so is the encoding; the connection is not RPyC's own, which builds proxies of whatever the other side offers,
serves what it asks for, and waits without end for the rest of a message. Here a server can answer and nothing else: a text, bytes, a number,
a truth value, None, or a tuple of them, no longer than MOST, before the deadline. Anything else, and the connection is closed for good.
Versions before 6 put a message's kind inside the encoded tuple, 6 before it; neither says which it is, so the first call is tried both ways.
"""

import hashlib
import hmac
import socket
import struct
import threading
import time
import zlib
from typing import Any

from motorbabble.errors import ConfigurationError, RobotError, RobotLost

MOST = 2 * 2**20  # bytes of an answer: a camera picture, many times over
CONNECTS = 1.2  # seconds
ANSWERS = 0.6  # seconds to the first answer, of either kind of protocol
GREETS = 0.2  # seconds for what anybody else would say
GREETING = b"motorbabble-jetbot "
HEADER = struct.Struct("!LB")  # length, whether zlib packed it; a line feed ends each frame
REQUEST, REPLY, FAILURE = 1, 2, 3
VALUE, TUPLE, THEIRS, OURS = 1, 2, 3, 4  # how a value is labelled: itself, a tuple of labelled ones, one of the other side's objects, one of its own
CLOSE, ROOT, CALL = 2, 3, 8
PLAIN = (str, bytes, int, float, bool, type(None))


class CallFailed(RobotError):
    """The server's own error: the connection is as good as before."""

    def __init__(self, kind: str, words: str):
        super().__init__(words)
        self.kind = kind


class Link:
    """Connected from the beginning; RobotLost, in one sentence, when that is not possible within about two and a half seconds.

    `call` may come from several threads, one after the other. `legacy`: known from an earlier link, else it is found out.
    """

    def __init__(self, host: str, port: int, token: str = "", timeout: float = 1.0, legacy: bool | None = None):
        try:
            from rpyc.core import brine
        except ImportError as missing:
            raise ConfigurationError("a JetBot is reached through rpyc, which is not installed; pip install 'motorbabble[jetbot]'") from missing
        self.host, self.port, self.timeout, self._brine = host, port, timeout, brine
        self.lock, self.closed, self._number = threading.Lock(), False, 0
        reason: BaseException = EOFError()
        for attempt in (False, True) if legacy is None else (legacy,):
            self.legacy = attempt
            self._socket = self._connected(token)
            try:
                self._root = self._exchange(ROOT, (VALUE, ()), ANSWERS, raw=True)
                return
            except (RobotError, OSError, EOFError) as error:
                self._socket.close()
                reason = error
        self.closed = True
        raise RobotLost(f"{host}:{port} {self._what_is_there()} ({_words(reason)})") from reason

    def call(self, name: str, *values: float | str, timeout: float | None = None) -> Any:
        """The method's answer. CallFailed with the server's own words; RobotLost when there is none in time, or not a plain one."""
        boxed = (TUPLE, ((THEIRS, self._root), (VALUE, name), (VALUE, values), (VALUE, ())))
        with self.lock:
            if self.closed:
                raise RobotLost(f"the connection to {self.host}:{self.port} is closed; make a new one")
            try:
                return self._exchange(CALL, boxed, self.timeout if timeout is None else timeout)
            except CallFailed:
                raise
            except (RobotError, OSError, EOFError) as error:  # after that nobody knows which answer would come next
                self.close()
                raise RobotLost(f"the robot at {self.host}:{self.port} did not answer {name} ({_words(error)})") from error

    def close(self) -> None:
        """Also from another thread, which ends a call under way."""
        if not self.closed:
            self.closed = True
            try:
                self._socket.settimeout(0.2)
                self._send(REQUEST, CLOSE, (VALUE, ()))
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._socket.close()

    # Parts

    def _connected(self, token: str) -> socket.socket:
        try:
            connected = socket.create_connection((self.host, self.port), CONNECTS)
        except OSError as error:
            self.closed = True
            raise RobotLost(
                f"nobody answers at {self.host}:{self.port} ({_words(error)}); is the robot on, and its server or the tunnel to it running?"
            ) from error
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if token:
            self._prove(connected, token)
        return connected

    def _prove(self, connected: socket.socket, token: str) -> None:
        deadline = time.monotonic() + ANSWERS
        try:
            greeting = _line(connected, deadline)
            if not greeting.startswith(GREETING):
                raise OSError("it asks for no token")
            proof = hmac.new(token.encode(), greeting.split()[-1], hashlib.sha256).hexdigest()
            connected.sendall(proof.encode() + b"\n")
            if _line(connected, deadline) != b"welcome":
                raise OSError("it knows another one")
        except OSError as error:
            connected.close()
            self.closed = True
            raise RobotLost(f"the robot at {self.host}:{self.port} did not take the token ({_words(error)}); compare it with the server's") from error

    def _exchange(self, handler: int, boxed: tuple, timeout: float, raw: bool = False) -> Any:
        deadline = time.monotonic() + timeout
        self._socket.settimeout(timeout)
        self._send(REQUEST, handler, boxed)
        kind, number, content = self._receive(deadline)
        if number != self._number:
            raise RobotError(f"it answered call {number!r:.20} instead of {self._number}")
        if kind == FAILURE:
            raise CallFailed(*_told(content))
        if kind != REPLY or type(content) is not tuple or len(content) != 2:
            raise RobotError("its answer is no reply")
        if not raw:
            return _unboxed(content)
        label, root = content
        if label != OURS or type(root) is not tuple or not all(type(part) in (str, int) for part in root):
            raise RobotError("it offers no service")
        return root

    def _send(self, kind: int, handler: int, boxed: tuple) -> None:
        self._number += 1
        if self.legacy:
            data = self._brine.dump((kind, self._number, (handler, boxed)))
        else:
            data = bytes([kind]) + self._brine.dump((self._number, (handler, boxed)))
        self._socket.sendall(HEADER.pack(len(data), 0) + data + b"\n")

    def _receive(self, deadline: float) -> tuple[Any, Any, Any]:
        length, packed = HEADER.unpack(self._read(HEADER.size, deadline))
        if length > MOST or packed not in (0, 1):
            raise RobotError(f"it sends {length} bytes, more than {MOST}" if length > MOST else "it does not speak RPyC")
        data = self._read(length + 1, deadline)[:-1]
        try:
            if packed:
                unpacking = zlib.decompressobj()
                data = unpacking.decompress(data, MOST)
                if unpacking.unconsumed_tail:
                    raise RobotError(f"its answer unpacks to more than {MOST} bytes")
            kind, number, content = self._brine.load(data) if self.legacy else (data[0], *self._brine.load(data[1:]))
        except RobotError:
            raise
        except Exception as error:  # whatever comes of bytes that mean nothing
            raise RobotError("its answer cannot be read") from error
        return kind, number, content

    def _read(self, length: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            more = self._socket.recv(min(65536, length - len(data)))
            if not more:
                raise EOFError("it closed the connection")
            data += more
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(data)

    def _what_is_there(self) -> str:
        """In words, after both ways of speaking RPyC have failed: does it greet, or answer what any web server would?"""
        try:
            with socket.create_connection((self.host, self.port), 0.3) as probe:
                probe.settimeout(GREETS)
                try:
                    said = probe.recv(64)
                except TimeoutError:
                    probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    said = probe.recv(64)
        except OSError:
            said = b""
        if said.startswith(GREETING):
            return "asks for a token; give the one the server was started with"
        if said.startswith(b"HTTP/"):
            return "is a web server, not a robot; check the address and the port"
        return "does not answer as a JetBot's server does; check the address, and restart the server"


def _unboxed(content: Any) -> Any:
    """A value that is really one of PLAIN, or a tuple of them; nothing that would have to be asked back."""
    label, value = content
    if label == VALUE and type(value) is tuple:
        if all(type(part) in PLAIN for part in value):
            return value
    elif label == VALUE and type(value) in PLAIN:
        return value
    elif label == TUPLE and type(value) is tuple and all(type(part) is tuple and part[0] == VALUE and type(part[1]) in PLAIN for part in value):
        return tuple(part[1] for part in value)
    raise RobotError("it answered with an object, where only plain values are taken")


def _told(content: Any) -> tuple[str, str]:
    """Kind and words of an error of theirs, at most a line of it."""
    try:
        (_, kind), arguments, _, _ = content
        words = next((argument for argument in arguments if type(argument) is str), "")
        return str(kind)[:60], (" ".join(words.split())[:200] if words else str(kind)[:60])
    except (TypeError, ValueError):
        return "error", "an error without words"


def _line(connected: socket.socket, deadline: float) -> bytes:
    said = b""
    while not said.endswith(b"\n") and len(said) < 200:
        connected.settimeout(max(0.001, deadline - time.monotonic()))
        more = connected.recv(1)
        if not more:
            break
        said += more
    return said.strip()


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    words = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip()
    return (words or type(error).__name__).rstrip(".")
