"""One connection to a robot, against a server of a few lines that answers what a test says: what is sent, what is taken, and when it is given up."""

import hashlib
import hmac
import socket
import struct
import threading
import time
import types
import zlib
from contextlib import suppress

import pytest
from rpyc.core import brine

from motorbabble.errors import RobotError, RobotLost
from motorbabble.robots import rpyc_link
from motorbabble.robots.rpyc_link import MOST, CallFailed, Link, _line, _told, _unboxed, _words

REQUEST, REPLY, FAILURE = 1, 2, 3
ROOT = (4, ("root", 1, 2))


class Server(threading.Thread):
    """Answers calls with what `answers` holds by their name, (kind, content), bytes, or a function of (client, number); greets whom `greets` says.

    `requests`: (number, handler, boxed arguments) of all that it was asked, and the frames themselves.
    """

    def __init__(self, answers=None, legacy=False, root=ROOT, greets=None):
        super().__init__(daemon=True)
        self.answers, self.legacy, self.root, self.greets = answers or {}, legacy, root, greets
        self.requests, self.frames, self.ended = [], [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        with suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client):
        with suppress(Exception), client:
            if self.greets and not self.greets(client):
                return
            while head := client.recv(5, socket.MSG_WAITALL):
                length, packed = struct.unpack("!LB", head)
                data = client.recv(length + 1, socket.MSG_WAITALL)
                self.frames.append((packed, data[-1:]))
                if self.legacy:
                    kind, number, (handler, boxed) = brine.load(data[:-1])
                else:
                    kind, (number, (handler, boxed)) = data[0], brine.load(data[1:-1])
                self.requests.append((kind, number, handler, boxed))
                if handler == 2:
                    self.ended.set()
                    return
                answer = (REPLY, self.root) if handler == 3 else self.answers[boxed[1][1][1]]
                if callable(answer):
                    answer(client, number)
                else:
                    client.sendall(answer if isinstance(answer, bytes) else self.frame(answer[0], number, answer[1]))

    def frame(self, kind, number, content, pack=False):
        data = brine.dump((kind, number, content)) if self.legacy else bytes([kind]) + brine.dump((number, content))
        data = zlib.compress(data) if pack else data
        return struct.pack("!LB", len(data), pack) + data + b"\n"

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def serve():
    servers = []

    def make(*arguments, **named):
        servers.append(Server(*arguments, **named))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A test need not wait as long as a robot may; what it connected is closed."""
    monkeypatch.setattr(rpyc_link, "ANSWERS", 0.4)
    yield
    while LINKS:
        LINKS.pop().close()


LINKS: list[Link] = []


def connect(server, **named):
    LINKS.append(Link("127.0.0.1", server.port, **{"timeout": 0.4, **named}))
    return LINKS[-1]


def lost(act, words):
    begun = time.monotonic()
    with pytest.raises(RobotLost) as raised:
        act()
    assert words in str(raised.value) and time.monotonic() - begun < 3.0, raised.value
    return raised.value


# Speaking


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_both_ways_of_speaking_are_spoken(legacy, known, serve):
    server = serve({"add": (REPLY, (1, 7))}, legacy=legacy)
    link = connect(server, legacy=legacy if known else None)
    assert link.legacy is legacy and not link.closed and (link.host, link.port) == ("127.0.0.1", server.port)
    assert link.call("add", 3.5, "x") == 7 and link.call("add") == 7
    asked = server.requests[-3:]
    first = asked[0][1]
    assert first == (1 if known or not legacy else 2)
    assert [request[:3] for request in asked] == [(1, first, 3), (1, first + 1, 8), (1, first + 2, 8)]
    assert asked[0][3] == (1, ()) and asked[1][3] == (2, ((3, ROOT[1]), (1, "add"), (1, (3.5, "x")), (1, ())))
    assert set(server.frames) == {(0, b"\n")}
    link.close()
    assert server.ended.wait(1) and server.requests[-1][:3] == (1, first + 3, 2), "it says goodbye"
    link.close()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ((1, "text"), "text"),
        ((1, b"bytes"), b"bytes"),
        ((1, 0.5), 0.5),
        ((1, None), None),
        ((1, True), True),
        ((1, (1, 2.0, b"x")), (1, 2.0, b"x")),
        ((2, ((1, "a"), (1, 3))), ("a", 3)),
        ((2, ()), ()),
    ],
    ids=str,
)
def test_plain_values_are_taken(content, value):
    assert _unboxed(content) == value and type(_unboxed(content)) is type(value)


@pytest.mark.parametrize(
    "content",
    [(3, "x"), (4, ("a", 1, 2)), (1, ((1,), 2)), (1, [1]), (1, 2j), (1, ([],)), (2, "ab"), (2, [(1, "a")])]
    + [(2, ((1, "a"), (4, "b"))), (2, ((1, (1, 2)),)), (2, ([1, "a"],)), (2, (("x", "a"),))],
    ids=str,
)
def test_objects_are_not(content):
    with pytest.raises(RobotError, match="an object, where only plain values are taken"):
        _unboxed(content)


def test_a_packed_answer_is_unpacked(serve):
    server = serve()
    server.answers["look"] = lambda client, number: client.sendall(server.frame(REPLY, number, (1, "A" * 10000), pack=True))
    assert connect(server, legacy=False).call("look") == "A" * 10000


def test_an_answer_may_be_large_and_no_larger(serve):
    server = serve()
    server.answers["look"] = lambda client, number: client.sendall(server.frame(REPLY, number, (1, b"A" * (MOST - 200))))
    assert len(connect(server, legacy=False, timeout=2.0).call("look")) == MOST - 200
    exactly = struct.pack("!LB", MOST, 0)
    server.answers["look"] = lambda client, number: client.sendall(exactly + bytes(MOST + 1))
    lost(lambda: connect(server, legacy=False, timeout=2.0).call("look"), "cannot be read")


# Errors of theirs leave it as good as before


def test_an_error_of_theirs_is_told_in_their_words_and_the_link_lives(serve):
    server = serve({"bad": (FAILURE, (("builtins", "ValueError"), ("too  fast\nby far",), (), "")), "good": (REPLY, (1, 1))})
    link = connect(server)
    with pytest.raises(CallFailed) as failed:
        link.call("bad")
    assert str(failed.value) == "too fast by far" and failed.value.kind == "ValueError" and not isinstance(failed.value, RobotLost)
    assert link.call("good") == 1 and not link.closed


def test_what_they_say_is_a_line_at_most():
    assert _told((("m", "Kind"), (), (), "")) == ("Kind", "Kind")
    assert _told((("m", "Kind"), (3, "a", "b"), (), "")) == ("Kind", "a")
    kind, words = _told((("m", "K" * 99), ("w" * 999,), (), ""))
    assert kind == "K" * 60 and words == "w" * 200
    assert _told((("m", "K" * 99), (), (), ""))[1] == "K" * 60
    for nonsense in (17, None, (), ("a",), (1, 2, 3, 4), "abcd"):
        assert _told(nonsense) == ("error", "an error without words")


# Whatever else is answered, it is closed for good


BAD = {
    "silence": (lambda client, number: None, "no answer in time"),
    "the end": (lambda client, number: client.shutdown(socket.SHUT_RDWR), "it closed the connection"),
    "too much": (struct.pack("!LB", MOST + 1, 0), f"it sends {MOST + 1} bytes, more than {MOST}"),
    "another way of packing": (struct.pack("!LB", 3, 2) + b"abc\n", "it does not speak RPyC"),
    "noise": (struct.pack("!LB", 3, 0) + b"\xff\xff\xff\n", "its answer cannot be read"),
    "noise, packed": (struct.pack("!LB", 3, 1) + b"\xff\xff\xff\n", "its answer cannot be read"),
    "nothing": (struct.pack("!LB", 0, 0) + b"\n", "its answer cannot be read"),
    "a request": ((REQUEST, (3, (1, ()))), "its answer is no reply"),
    "one part": ((REPLY, (1,)), "its answer is no reply"),
    "no tuple": ((REPLY, "ab"), "its answer is no reply"),
    "an object": ((REPLY, ROOT), "an object"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_closes_it(bad, serve):
    server = serve({"look": BAD[bad][0], "good": (REPLY, (1, 1))})
    link = connect(server)
    error = lost(lambda: link.call("look"), BAD[bad][1])
    assert f"the robot at 127.0.0.1:{server.port} did not answer look (" in str(error)
    assert link.closed
    asked = len([request for request in server.requests if request[2] == 8])
    lost(lambda: link.call("good"), f"the connection to 127.0.0.1:{server.port} is closed; make a new one")
    assert len([request for request in server.requests if request[2] == 8]) == asked, "and asks nothing any more"


def test_a_bomb_is_not_unpacked(serve):
    server = serve()
    bomb = zlib.compress(bytes(MOST + 1))
    server.answers["look"] = struct.pack("!LB", len(bomb), 1) + bomb + b"\n"
    lost(lambda: connect(server, timeout=1.0).call("look"), f"unpacks to more than {MOST} bytes")


@pytest.mark.parametrize("by", [-1, 1])
def test_the_answer_to_another_call_is_none(by, serve):
    server = serve()
    server.answers["look"] = lambda client, number: client.sendall(server.frame(REPLY, number + by, (1, 1)))
    link = connect(server)
    lost(lambda: link.call("look"), f"it answered call {link._number + by + 1} instead of {link._number + 1}")


@pytest.mark.parametrize(("patience", "given"), [(0.4, None), (5.0, 0.4)])
def test_all_of_an_answer_comes_before_its_time_is_out(patience, given, serve):
    def drips(client, number):
        for byte in server.frame(REPLY, number, (1, "x")):
            client.sendall(bytes([byte]))
            time.sleep(0.06)

    server = serve({"look": drips})
    link, begun = connect(server, timeout=patience), time.monotonic()
    lost(lambda: link.call("look", timeout=given), "did not answer look (no answer in time)")
    assert 0.39 < time.monotonic() - begun < 2.0


def test_close_from_another_thread_ends_a_call(serve):
    server = serve({"look": lambda client, number: None})
    link = connect(server, timeout=5.0)
    threading.Timer(0.05, link.close).start()
    lost(lambda: link.call("look"), "did not answer look")


# Beginning


@pytest.mark.parametrize("root", [(1, "x"), (4, "root"), (4, ("a", None)), (4, ("a", 1.5)), (3, ("a", 1, 2))], ids=str)
def test_who_offers_nothing_is_no_robot(root, serve):
    server = serve(root=root)
    lost(lambda: connect(server), "does not answer as a JetBot's server does; check the address, and restart the server (")


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lost(lambda: Link("127.0.0.1", port), f"nobody answers at 127.0.0.1:{port} (connection refused); is the robot on")


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is a web server, not a robot; check the address and the port"),
        (lambda client: client.recv(99) and client.sendall(b"HTTP/1.0 200 OK\r\n\r\n"), "is a web server"),
        (lambda client: client.sendall(b"motorbabble-jetbot 1 abc\n"), "asks for a token; give the one the server was started with"),
        (lambda client: client.sendall(b"SSH-2.0-OpenSSH\r\n"), "does not answer as a JetBot's server does"),
        (lambda client: client.recv(999) and client.recv(999), "does not answer as a JetBot's server does"),
    ],
    ids=["a web server", "a polite one", "ours", "ssh", "silent"],
)
def test_who_is_there_is_said(says, words, serve, monkeypatch):
    monkeypatch.setattr(rpyc_link, "GREETS", 0.4)
    server = serve(greets=lambda client: says(client) and False)
    error = lost(lambda: connect(server), words)
    assert str(error).startswith(f"127.0.0.1:{server.port} ")


def test_a_token_is_proved_and_not_sent(serve):
    told = []

    def greets(client):
        time.sleep(0.03)
        client.sendall(b"motorbabble-jetbot 1 f00d\n")
        told.append(client.recv(200))
        right = told[-1] == hmac.new(b"a word", b"f00d", hashlib.sha256).hexdigest().encode() + b"\n"
        client.sendall(b"welcome\n" if right else b"no\n")
        return right

    server = serve({"add": (REPLY, (1, 7))}, greets=greets)
    assert connect(server, token="a word").call("add") == 7 and b"a word" not in told[0]
    lost(lambda: connect(server, token="another"), "did not take the token (it knows another one); compare it with the server's")
    before = len(told)
    lost(lambda: connect(server, token="another"), "did not take the token")
    assert len(told) == before + 1, "and does not try again"
    strange = serve(greets=lambda client: client.sendall(b"hello\n") and False)
    lost(lambda: connect(strange, token="a word"), f"the robot at 127.0.0.1:{strange.port} did not take the token (it asks for no token)")
    silent = serve(greets=lambda client: time.sleep(1.5))
    begun = time.monotonic()
    lost(lambda: connect(silent, token="a word"), "did not take the token (no answer in time)")
    assert time.monotonic() - begun < 1.4


def test_a_line_is_short_and_in_time():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b" one \ntwo" + b"x" * 300)
        soon = time.monotonic() + 0.05
        assert _line(ours, soon) == b"one" and len(_line(ours, soon)) == 200
        with pytest.raises(TimeoutError):
            _line(ours, soon), _line(ours, soon)
        theirs.close()
        assert _line(ours, time.monotonic() + 1) == b""


def test_reasons_are_words():
    assert _words(TimeoutError("x")) == "no answer in time" and _words(ConnectionRefusedError(1, "x")) == "connection refused"
    assert _words(OSError(5, "Input/output error")) == "Input/output error" and _words(OSError("it ends.")) == "it ends"
    assert _words(EOFError()) == "EOFError" and _words(RobotError("why.")) == "why"


def test_a_small_word_is_sent_at_once(serve):
    link = connect(serve())
    assert link._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert isinstance(link.lock, type(threading.Lock())) and isinstance(link._brine, types.ModuleType)
