"""The design our JetBot server was made against, in miniature: motors keep what they were told, and a client's end is the only stop.

python original_server.py LATCH: the two plain calls over RPyC, 5 or 6; everything may be touched; when a client leaves, first the camera is stopped,
then the motors. The latch is written as jetbot_server.py writes it, the picture turns a little with every movement. Tests show that the
faults it fails are noticed, and that our client can use it.
"""

import base64
import os
import struct
import sys
import time

import rpyc
from rpyc.utils.server import ThreadedServer

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "robot_host"))

from jetbot_server import ACROSS, COLUMNS, mosaic, room

LATCH = sys.argv[1]
ROOM = room(0)


class OriginalService(rpyc.Service):
    movements, moves = 0, False

    def exposed_set_motors(self, left, right):
        with open(LATCH, "ab") as latch:
            latch.write(struct.pack("=ddd", time.monotonic(), left, right))
        self.movements += self.moves and not (left or right)
        self.moves = bool(left or right)
        return True

    def exposed_get_camera_frame(self):
        self.camera()
        place = 3 * self.movements
        return base64.b64encode(mosaic([[row[(place + x) % COLUMNS] for x in range(ACROSS)] for row in ROOM])).decode()

    def on_disconnect(self, conn):
        self.camera()
        self.exposed_set_motors(0.0, 0.0)

    def camera(self):
        while os.path.exists(LATCH + ".hang"):
            time.sleep(0.01)


if __name__ == "__main__":
    server = ThreadedServer(OriginalService(), "127.0.0.1", port=0, protocol_config={"allow_all_attrs": True, "allow_pickle": True})
    server.listener.listen(8)
    print("the original at 127.0.0.1:%d, processes %d %d %d" % (server.port, os.getpid(), os.getpid(), os.getpid()))  # noqa: UP031 - Python 3.6
    sys.stdout.flush()
    server.start()
