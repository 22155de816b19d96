"""A client to which something happens while it drives: python jetbot_driver.py HOW PORT

`leased` renews one long action after another, `plain` is the original's client (one connection, pictures and speeds in turn), `robot` acts as our
interface does, and `selector` lives with a selector that fails in the second step; it tells when.
"""

import signal
import sys
import time

from motorbabble.robots.rpyc_link import Link

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in what it runs in the background
HOW, PORT = sys.argv[1], int(sys.argv[2])


def leased() -> None:
    from motorbabble.robots.jetbot import RemoteJetBot

    robot = RemoteJetBot("127.0.0.1", PORT)
    while True:
        lease = robot.drive(0.0, 0.12, 5.0)[0]
        while robot.renew(lease):
            time.sleep(0.08)


def plain() -> None:
    link = Link("127.0.0.1", PORT, timeout=30.0)
    while True:
        link.call("set_motors", 0.0, 0.12)
        link.call("get_camera_frame")
        time.sleep(0.1)


def robot() -> None:
    from motorbabble.robots.jetbot import JetBotInterface

    with JetBotInterface("127.0.0.1", PORT) as robot:
        while True:
            robot.execute_action(robot.action_space.actions[1])


def selector() -> None:
    from motorbabble.life import live
    from motorbabble.robots.jetbot import JetBotInterface

    def fails(situation):
        if situation.step == 1:
            print(time.monotonic(), flush=True)
            raise ZeroDivisionError
        return situation.action_space.actions[1]

    with JetBotInterface("127.0.0.1", PORT) as robot:
        for _ in live(robot, fails):
            pass


{"leased": leased, "plain": plain, "robot": robot, "selector": selector}[HOW]()
