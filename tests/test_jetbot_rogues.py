"""Everything a server can answer that is no picture, and a server that wants more than to answer."""

import base64
import io
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager

import pytest
from jetbot_faults import ROOT
from jetbot_sentence import in_a_sentence
from PIL import Image
from rpyc.core import brine

from motorbabble.errors import RobotLost
from motorbabble.robots.jetbot import JetBotInterface, RemoteJetBot
from motorbabble.robots.rpyc_link import MOST


class Rogue(threading.Thread):
    """Says the right things until asked for a picture, then `answer`: bytes to send as they are, or what boxes to send as a reply.

    `motors`: what the motors were told.
    """

    ROOT = (4, ("root", 1, 2))

    def __init__(self, answer, from_the_start=False):
        super().__init__(daemon=True)
        self.answer, self.from_the_start, self.motors = answer, from_the_start, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        try:
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()
        except OSError:
            pass

    def serve(self, client):
        try:
            with client:
                while True:
                    length, _ = struct.unpack("!LB", client.recv(5, socket.MSG_WAITALL))
                    seq, (handler, args) = brine.load(client.recv(length + 1, socket.MSG_WAITALL)[1:-1])
                    name = args[1][1][1] if handler == 8 else ""
                    if handler == 2:
                        return
                    if name == "set_motors":
                        self.motors.append(args[1][2][1])
                    if self.from_the_start or name == "get_camera_frame":
                        self.react(client, seq)
                    elif name == "info":
                        client.sendall(frame(3, seq, (("builtins", "AttributeError"), ("no info",), (), "")))
                    else:
                        client.sendall(frame(2, seq, self.ROOT if handler == 3 else (1, True)))
        except Exception:  # whatever it is given; it only serves the test
            pass

    def react(self, client, seq):
        if callable(self.answer):
            self.answer(client, seq)
        else:
            client.sendall(frame(2, seq, (1, self.answer)))

    def close(self):
        self.listener.close()


def frame(kind, seq, content, pack=False):
    data = bytes([kind]) + brine.dump((seq, content))
    data = zlib.compress(data) if pack else data
    return struct.pack("!LB", len(data), pack) + data + b"\n"


def jpeg(size=(224, 224), shade=100):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def text(data):
    return base64.b64encode(data).decode()


@contextmanager
def rogue(answer, **how):
    server = Rogue(answer, **how)
    try:
        yield server
    finally:
        server.close()


def drips(client, seq):
    for byte in frame(2, seq, (1, text(jpeg()))):
        client.sendall(bytes([byte]))
        time.sleep(0.4)


BAD = {
    "an int": (7, "answered 7 instead of text"),
    "None": (None, "answered None instead of text"),
    "50 MB": (lambda client, seq: client.sendall(struct.pack("!LB", 50_000_000, 0) + bytes(100_000)), "50000000 bytes"),
    "4 GB": (lambda client, seq: client.sendall(struct.pack("!LB", 2**32 - 1, 0)), "4294967295 bytes"),
    "a bomb": (lambda client, seq: client.sendall(frame(2, seq, (1, "A" * 2**26), pack=True)), f"more than {MOST}"),
    "broken base64": ("/9j/4AA*", "no base64"),
    "text beyond ASCII": ("Bild à la carte", "no base64"),
    "nothing": ("", "empty picture"),
    "not a JPEG": (text(b"GIF89a" + bytes(100)), "no whole JPEG"),
    "half a JPEG": (text(jpeg()[:400]), "no whole JPEG"),
    "a picture without end": (text(jpeg((5000, 8))), "5000 x 8"),
    "silence": (lambda client, seq: time.sleep(10), "no answer in time"),
    "an answer after ten seconds": (lambda client, seq: (time.sleep(10), client.sendall(frame(2, seq, (1, text(jpeg()))))), "no answer in time"),
    "a byte now and then": (drips, "no answer in time"),
    "an object": (lambda client, seq: client.sendall(frame(2, seq, Rogue.ROOT)), "an object"),
    "an object in a tuple": (lambda client, seq: client.sendall(frame(2, seq, (2, ((1, "a"), Rogue.ROOT)))), "an object"),
    "somebody else's answer": (lambda client, seq: client.sendall(frame(2, seq - 1, (1, text(jpeg())))), "instead of"),
    "a question": (lambda client, seq: client.sendall(frame(1, seq, (3, (1, ())))), "no reply"),
    "noise": (lambda client, seq: client.sendall(struct.pack("!LB", 9, 0) + b"\x02\xff\x10abcdef\n"), "cannot be read"),
    "the end": (lambda client, seq: client.shutdown(socket.SHUT_RDWR), "closed the connection"),
    "an error": (lambda client, seq: client.sendall(frame(3, seq, (("os", "system"), ("rm -rf\n" * 99,), (), ""))), "the robot says: rm -rf rm"),
    "an error of nonsense": (lambda client, seq: client.sendall(frame(3, seq, 17)), "an error without words"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_is_a_sentence_and_a_stop(bad):
    answer, words = BAD[bad]
    with rogue(answer) as server:
        robot = JetBotInterface("127.0.0.1", server.port)
        in_a_sentence(robot.get_observation, words)
        assert server.motors and server.motors[-1] == (0.0, 0.0), "it was stopped before anything was said"
        robot.cleanup()


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad not in ("broken base64", "not a JPEG")])
def test_a_bad_answer_to_the_first_word_is_a_sentence(bad):
    with rogue(BAD[bad][0], from_the_start=True) as server:
        in_a_sentence(lambda: JetBotInterface("127.0.0.1", server.port), kind=RobotLost)


def test_a_web_server_is_recognised():
    web = socket.create_server(("127.0.0.1", 0))

    def serve():
        try:
            while True:
                client = web.accept()[0]
                client.recv(100)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                client.close()
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    in_a_sentence(lambda: JetBotInterface("127.0.0.1", web.getsockname()[1]), "is a web server", kind=RobotLost)
    web.close()


def test_a_picture_of_another_size_is_an_error():
    sizes = iter([(224, 224), (224, 224), (320, 240)])
    with rogue(lambda client, seq: client.sendall(frame(2, seq, (1, text(jpeg(next(sizes))))))) as server:
        robot = JetBotInterface("127.0.0.1", server.port)
        robot.get_observation(), robot.get_observation()
        in_a_sentence(robot.get_observation, "320 x 240", "224 x 224")
        robot.cleanup()


def test_a_frozen_camera_is_noticed_without_a_clock():
    with rogue(text(jpeg())) as server:
        robot = JetBotInterface("127.0.0.1", server.port)
        for _ in range(15):  # at rest nothing changes
            robot.get_observation()
        for _ in range(10):
            robot.get_observation()
            robot.execute_action(robot.action_space.actions[1])
        in_a_sentence(robot.get_observation, "the same picture after 10 movements")
        robot.cleanup()


ATTACK = """
import sys, threading
import rpyc
from rpyc.utils.server import ThreadedServer

class Attacker(rpyc.Service):
    def on_connect(self, conn):
        self.conn = conn
    def exposed_info(self):
        raise AttributeError("none")
    def exposed_get_camera_frame(self):
        me = self.conn.root
        world = me.get_service_name.__func__.__globals__["__builtins__"]
        world["__import__"]("os").mkdir(sys.argv[1])
        return "AAAA"

server = ThreadedServer(Attacker, "127.0.0.1", port=0, protocol_config={"allow_all_attrs": True})
server.listener.listen(8)
print(server.port, flush=True)
server.start()
"""


def test_a_rogue_server_runs_nothing_here(folder):
    import rpyc

    marker = folder / "marker"
    process = subprocess.Popen([sys.executable, "-c", ATTACK, str(marker)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    port = int(process.stdout.readline())
    try:
        robot = RemoteJetBot("127.0.0.1", port)
        with pytest.raises(RobotLost):
            robot.look()
        robot.cleanup()
        assert not marker.exists()
        original = rpyc.connect("127.0.0.1", port, config={"allow_all_attrs": True})  # as the original connects
        original.root.get_camera_frame()
        assert marker.is_dir(), "the attack works where it is let"
        original.close()
    finally:
        process.kill()
        process.communicate()


def test_no_code_of_ours_opens_itself_to_the_other_side():
    for file in [*(ROOT / "motorbabble").rglob("*.py"), ROOT / "robot_host" / "jetbot_server.py"]:
        source = file.read_text()
        for open_door in ("allow_all_attrs", "allow_public_attrs", "allow_setattr", '"allow_pickle": True', "import pickle", "SlaveService"):
            assert open_door not in source, f"{file.name} says {open_door}"
