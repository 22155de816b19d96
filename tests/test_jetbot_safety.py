"""Our side of a JetBot by a simulated clock: what it asks of the motors and when, and that it stops them before it says that something failed."""

import base64
import json
import math

import numpy as np
import pytest
from jetbot_clock import check_board, host
from jetbot_simulated import AHEAD, World, picture

from motorbabble.errors import ConfigurationError, RobotError, RobotLost
from motorbabble.robots import jetbot
from motorbabble.robots.jetbot import JetBotConfig, JetBotInterface, RemoteJetBot, decoded, from_base64
from motorbabble.robots.rpyc_link import CallFailed

WHOLE = 0.245  # seconds of an action, the way down included


@pytest.fixture(params=[False, True], ids=["our server", "plain server"])
def world(request, monkeypatch):
    return World(monkeypatch, plain=request.param)


@pytest.fixture
def ours(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def plain(monkeypatch):
    return World(monkeypatch, plain=True)


def robot(port=18861):
    return JetBotInterface("127.0.0.1", port, "word")


def forward(robot):
    return robot.execute_action(robot.action_space.actions[1])


def names(link):
    return [call[0] for call in link.calls]


# An action


def test_an_action_rises_lasts_and_falls_and_is_over_when_it_is_over(world):
    one, begun = robot(), world.now
    assert forward(one) == {"motor_left": 0.0, "motor_right": 0.12, "duration": 0.2}
    ((first, last),) = world.turning()
    assert begun < first < begun + 0.01 and last - first == pytest.approx(WHOLE, abs=0.02)
    assert last <= world.now < last + 0.02
    moving = [(when - first, right) for when, left, right in world.board.values if when >= first]
    assert [right for _, right in moving] == pytest.approx([0.03, 0.06, 0.09, 0.12, 0.09, 0.06, 0.03, 0.0])
    assert [when for when, _ in moving[:5]] == pytest.approx([0, 0.015, 0.03, 0.045, 0.2], abs=0.02)
    check_board(world.board.values)


def test_the_plain_server_is_given_its_ramps_by_the_clock(plain):
    plain.latency = 0.0
    one, begun = robot(), plain.now
    forward(one)
    moments = [round(when - begun, 4) for when, *_ in plain.board.values if when >= begun][-8:]
    assert moments == pytest.approx([0, 0.015, 0.03, 0.045, 0.2, 0.215, 0.23, 0.245], abs=1e-6)


def test_rest_lasts_as_long_and_turns_nothing(world):
    one, begun = robot(), world.now
    assert one.execute_action(one.action_space.rest)["motor_right"] == 0.0
    assert not world.turning() and 0.2 < world.now - begun < 0.3


def test_it_says_what_the_robot_really_did(ours):
    ours.simulated.motors.limit = 0.1
    assert forward(robot())["motor_right"] == 0.1


def test_a_longer_action_is_renewed_in_time(ours):
    one, begun = robot(), ours.now
    assert one._leased(0.0, 0.1, 0.6) == (0.0, 0.1)
    ((first, last),) = ours.turning()
    assert last - first == pytest.approx(0.645, abs=0.005) and ours.now - begun < 0.68
    assert 4 <= names(one.remote.motors).count("renew") <= 8, "no more often than needed"
    one.remote.motors.calls.clear()
    one._leased(0.0, 0.1, 0.2)
    assert "renew" not in names(one.remote.motors)


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda world: setattr(world.service, "exposed_renew", lambda *_: True), "the action of 0.6 s did not end by itself: we were heard too late"),
        (lambda world: world.at(0.1, lambda: world.links[0].service.exposed_halt()), "somebody stopped it"),
        (lambda world: world.at(0.1, lambda: world.simulated.send(host.DRIVE, 0.0, 0.05, 0.1)), "somebody else drives"),
    ],
    ids=["deaf", "halted", "taken"],
)
def test_an_action_that_ended_otherwise_is_an_error(happens, words, ours):
    one = robot()
    happens(ours)
    with pytest.raises(RobotError, match=words):
        one._leased(0.0, 0.1, 0.6)


def test_what_cannot_move_is_said_and_stopped(ours):
    one, other = robot(), RemoteJetBot("127.0.0.1")
    other.emergency_stop()
    with pytest.raises(RobotError, match="the robot says: the emergency stop is pressed") as failed:
        forward(one)
    assert not isinstance(failed.value, RobotLost | CallFailed) and names(one.remote.motors)[-1] == "halt"
    other.rearm()
    ours.sleep(host.DRIVING + 0.1)
    other.set_motors(0.05, 0.0)
    with pytest.raises(RobotError, match="another client drives"):
        forward(one)
    assert not ours.board.moving(), "who cannot drive stops all the same"
    ours.sleep(host.DRIVING + 0.1)
    assert forward(one)["motor_right"] == 0.12


# Stops


@pytest.mark.parametrize("late", [0.01, 0.1, 0.2, 0.23])
def test_a_stop_in_the_middle_of_an_action_ends_it(late, world):
    one, begun = robot(), world.now
    world.at(late, one.stop)
    with pytest.raises(RobotError, match="stopped during an action; make a new robot" if world.plain or late < 0.2 else "stopped"):
        forward(one)
    ((_, last),) = world.turning()
    assert last - begun <= late + 0.02, "at once"
    with pytest.raises(RobotError, match="came after the robot was stopped"):
        forward(one)
    assert len(world.turning()) == 1, "and it latches"
    assert one.get_observation().sequence == 0, "who is stopped may still look"


@pytest.mark.parametrize("late", [0.02, 0.1])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_stops_before_it_travels_on(error, late, world):
    one, begun = robot(), world.now

    def interrupt():
        raise error

    world.at(late, interrupt)
    with pytest.raises(error):
        forward(one)
    assert world.turning()[-1][1] - begun <= late + 0.01


def test_a_link_that_dies_in_an_action_loses_the_robot_which_stops_itself(ours):
    one, begun = robot(), ours.now
    ours.at(0.1, lambda: setattr(ours, "dead", True))
    with pytest.raises(RobotLost, match="did not answer") as lost:
        forward(one)
    assert ours.turning()[-1][1] - begun <= host.LEASE + 0.01
    asked, calls = ours.now, [len(link.calls) for link in ours.links]
    for act in (one.get_observation, lambda: forward(one), lambda: one.execute_action(one.action_space.rest)):
        with pytest.raises(RobotLost) as again:
            act()
        assert str(again.value) == str(lost.value)
    one.stop()
    one.cleanup()
    assert [len(link.calls) for link in ours.links] == calls and ours.now == asked, "who is lost is neither asked nor waited for"
    assert all(link.closed for link in ours.links)


def test_a_link_that_dies_in_an_action_of_the_plain_server_is_stopped_by_another(plain):
    one, begun = robot(), plain.now
    plain.at(0.1, lambda: setattr(plain, "dead", True))
    plain.at(0.1 + jetbot.ANSWERS, lambda: setattr(plain, "dead", False))
    with pytest.raises(RobotLost, match="did not answer set_motors"):
        forward(one)
    last = plain.links[-1]
    assert last.calls == [("set_motors", 0.0, 0.0)] and last.closed and last.timeout == jetbot.ANSWERS and last.port == 18861
    assert plain.turning()[-1][1] - begun < 2.5


def test_a_plain_server_that_is_gone_for_good_is_a_sentence_all_the_same(plain):
    one = robot()
    plain.at(0.1, lambda: setattr(plain, "dead", True))
    with pytest.raises(RobotLost, match="did not answer set_motors"):
        forward(one)


def test_a_robot_that_answers_no_look_is_lost(world):
    one = robot()
    one.get_observation()
    world.dead, asked = True, world.now
    with pytest.raises(RobotLost, match="did not answer get_"):
        one.get_observation()
    assert world.now - asked < 3.0
    with pytest.raises(RobotLost):
        forward(one)


def test_cleanup_stops_and_closes_and_may_be_called_twice(world):
    one = robot()
    one.remote.set_motors(0.0, 0.1)
    one.cleanup()
    assert not world.board.moving() and all(link.closed for link in world.links) and len(world.links) == 2
    one.cleanup()
    bare = RemoteJetBot("127.0.0.1")
    bare.set_motors(0.0, 0.1)
    bare.cleanup()
    assert not world.board.moving() and all(link.closed for link in world.links)
    bare.cleanup()


# Connections


def test_two_connections_with_their_own_patience(world, monkeypatch):
    connect = jetbot.Link
    monkeypatch.setattr(jetbot, "Link", lambda *given, legacy="old": connect(*given, legacy=legacy))
    one = robot(1234)
    assert world.links[1].legacy is True, "how the server speaks is found out once"
    motors, camera = world.links
    assert (motors.host, motors.port, motors.token, motors.timeout) == ("127.0.0.1", 1234, "word", jetbot.ANSWERS)
    assert (camera.host, camera.port, camera.token, camera.timeout) == ("127.0.0.1", 1234, "word", jetbot.LOOKS)
    one.get_observation()
    assert not {"get_frame", "get_camera_frame"} & set(names(motors)) and "set_motors" not in names(camera)
    forward(one)
    assert set(names(camera)) <= {"get_frame", "get_camera_frame", "info"}, "no picture delays a stop"


def test_without_a_camera_connection_the_motors_one_is_closed(world, monkeypatch):
    made, connect = [], jetbot.Link

    def once(*arguments, **named):
        if made:
            raise RobotLost("nobody answers")
        made.append(connect(*arguments, **named))
        return made[0]

    monkeypatch.setattr(jetbot, "Link", once)
    with pytest.raises(RobotLost):
        robot()
    assert made[0].closed


def test_the_kind_of_server_is_found_out(world):
    one = robot()
    assert one.remote.leased == (not world.plain)
    assert ("stops by itself, 0.25 s after the last word" in one.describe()) == (not world.plain)
    assert ("the wheels may turn on" in one.describe()) == world.plain
    assert "jetbot can do: stop, forward." in one.describe() and "stand-in" not in one.describe()
    assert [(channel.name, channel.unit) for channel in one.action_space.channels] == [("motor_left", ""), ("motor_right", ""), ("duration", "s")]
    world.about["fake"] = True
    assert ("Its stand-in stops by itself" in robot().describe()) == (not world.plain)


def test_a_config_says_which_robot(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(" a word\n")
    monkeypatch.setattr(jetbot, "JetBotInterface", lambda *arguments: arguments)
    monkeypatch.setattr(jetbot, "FakeJetBot", lambda seed: ("fake", seed))
    assert jetbot.jetbot(JetBotConfig("10.0.0.1", 1234, tmp_path / "token"), 3) == ("10.0.0.1", 1234, "a word")
    assert jetbot.jetbot(JetBotConfig(fake=True), 3) == ("fake", 3)
    assert JetBotConfig(port=1).port == 1 and JetBotConfig(port=65535).port == 65535
    with pytest.raises(ConfigurationError, match="port is 65536; give 1 to 65535"):
        JetBotConfig(port=65536)
    monkeypatch.setenv("JETBOT_TOKEN", "another")
    assert JetBotConfig().token() == "another"


@pytest.mark.parametrize("told", ["[]", "nonsense", 7, json.dumps({"protocol": 2})], ids=str)
def test_who_says_nothing_we_know_is_a_plain_server(told, ours):
    ours.service.exposed_info = lambda self: told
    assert not robot().remote.leased


@pytest.mark.parametrize("limit", [0.1, "fast", None], ids=str)
def test_a_limit_below_our_speed_is_refused_before_anything_moves(limit, ours):
    ours.about["limit"] = limit
    with pytest.raises(ConfigurationError, match=r"moving forward needs 0\.12; start it with --limit 0\.12"):
        robot()
    assert all(link.closed for link in ours.links) and not ours.turning()
    ours.about["limit"] = 0.12
    robot()


# The robot's clock


def test_the_robots_clock_is_reckoned(ours):
    ours.latency = 0.02
    one = robot()
    assert one.remote.clock() == pytest.approx(ours.now + AHEAD, abs=0.021)
    one.remote._ahead += 0.004
    ours.latency = 0.2  # a slow answer says little
    with pytest.raises(RobotError):
        one.remote.drive(0.0, 0.0, 9.0)
    ours.latency = 0.001
    one.remote.drive(0.0, 0.1, 0.2)
    assert one.remote.clock() == pytest.approx(ours.now + AHEAD, abs=0.002), "a quick one corrects it"


def test_a_clock_that_was_set_is_measured_again(ours):
    one = robot()
    for jump in (30.0, -30.0):
        one.remote._ahead += jump
        forward(one)
        assert one.remote.clock() == pytest.approx(ours.now + AHEAD, abs=0.002)


def test_a_link_that_is_too_slow_moves_nothing(ours):
    one = robot()
    ours.latency = 0.4
    one.remote.motors.calls.clear()
    with pytest.raises(RobotError, match=r"sent 0\.40 s before it was received, more than 0\.25 s; nothing moved"):
        forward(one)
    assert names(one.remote.motors).count("drive") == jetbot.TRIES and not ours.turning()


def test_only_what_was_late_is_tried_again(ours):
    one = robot()
    with pytest.raises(CallFailed, match="finite numbers and 0 to 5 seconds") as failed:
        one.remote.drive(0.0, 0.1, 9.0)
    assert failed.value.kind == "RuntimeError" and names(one.remote.motors).count("drive") == 1


# Pictures


def test_a_picture_is_newer_than_the_action_and_knows_its_moment(ours):
    one = robot()
    before = one.get_observation()
    assert before.sequence == 0 and before.encoded and np.array_equal(decoded(before.encoded), before.image)
    assert 0 <= ours.now * 1e9 - before.captured_ns < 0.05e9
    forward(one)
    ended = ours.now
    after = one.get_observation()
    assert after.sequence == 1 and after.captured_ns > (ended - 0.01) * 1e9 and not np.array_equal(before.image, after.image)
    ours.hung = True
    for latency in (0.004, 0.0005):
        ours.latency = latency
        assert one.get_observation().captured_ns == after.captured_ns, "the same picture was taken at the same moment, however long it took to come"


def test_pictures_of_the_plain_server_have_the_moment_they_came(plain):
    one = robot()
    seen = one.get_observation()
    assert abs(plain.now * 1e9 - seen.captured_ns) < 1e6
    plain.sleep(1.0)
    assert one.get_observation().captured_ns - seen.captured_ns > 0.9e9
    assert one.remote.get_frame().shape == (16, 16, 3)


def test_the_first_picture_of_a_plain_server_may_take_longer(plain, monkeypatch):
    one, asked = robot(), []
    call = one.remote.camera.call
    monkeypatch.setattr(one.remote.camera, "call", lambda name, timeout=None: asked.append(timeout) or call(name))
    one.get_observation(), one.get_observation()
    assert asked == [jetbot.STARTS, jetbot.LOOKS]


def test_nothing_moves_blind(ours):
    one = robot()
    one.get_observation()
    ours.hung = True
    ours.sleep(0.3)
    with pytest.raises(RobotError, match=r"no new picture for 0\.2 s, and nothing moves blind"):
        forward(one)
    ours.sleep(0.3)
    asked = ours.now
    with pytest.raises(RobotError, match="the robot says: the camera has shown no new picture for"):
        one.get_observation()
    assert 0.4 < ours.now - asked < 0.6 and not ours.turning()
    ours.hung = False
    one.get_observation()
    forward(one)


def test_a_picture_of_another_size_is_an_error_after_a_stop(world):
    one = robot()
    one.get_observation()
    one.remote.set_motors(0.0, 0.1)
    world.size = (24, 16)
    with pytest.raises(RobotError, match="the camera's picture is 24 x 16, the ones before were 16 x 16"):
        one.get_observation()
    assert not world.board.moving()


def test_a_frozen_camera_of_a_plain_server_shows_in_its_movements(plain, monkeypatch):
    one = robot()
    monkeypatch.setattr(plain, "newest", lambda: (0, 0.0, lambda: picture(7)))
    for _ in range(jetbot.FROZEN + 3):
        one.get_observation()
        one.execute_action(one.action_space.rest)
    for _ in range(jetbot.FROZEN):
        one.get_observation()
        forward(one)
    with pytest.raises(RobotError, match="the same picture after 10 movements"):
        one.get_observation()


def test_looks_without_a_movement_are_not_counted(plain, monkeypatch):
    one = robot()
    monkeypatch.setattr(plain, "newest", lambda: (0, 0.0, lambda: picture(7)))
    forward(one)
    for _ in range(2 * jetbot.FROZEN):
        one.get_observation()


def test_one_new_picture_begins_the_count_anew(plain, monkeypatch):
    one, shades = robot(), iter([7] * 9 + [8] * 9 + [7] * 9)
    monkeypatch.setattr(plain, "newest", lambda: (0, 0.0, lambda: picture(next(shades))))
    for _ in range(27):
        one.get_observation()
        forward(one)


@pytest.mark.parametrize(
    "answer",
    [None, (1, 2.0, 3.0), (1, 2.0, 3.0, "x"), (1.0, 2.0, 3.0, b"x"), [1, 2.0, 3.0, b"x"], (True, 2.0, 3.0, b"x"), (1, 2, 3.0, b"x")],
    ids=str,
)
def test_an_answer_that_is_no_picture_is_a_sentence(answer, ours):
    one = robot()
    ours.service.exposed_get_frame = lambda self, after: answer
    with pytest.raises(RobotError, match=r"get_frame answered .*; restart the robot's server"):
        one.get_observation()


def test_bytes_that_are_no_jpeg_are_sentences():
    assert from_base64(base64.b64encode(b"abc").decode()) == from_base64(base64.b64encode(b"abc")) == b"abc"
    for answer, words in ((7, "answered 7 instead of text"), (None, "None instead"), ("/9j*", "no base64"), ("", "an empty picture")):
        with pytest.raises(RobotError, match=f"get_camera_frame answered .*{words.split('answered ')[-1]}"):
            from_base64(answer)
    assert decoded(picture(100)).shape == (16, 16, 3) and decoded(picture(100)).dtype == np.uint8
    assert decoded(picture(9, (2048, 8))).shape == (8, 2048, 3)
    for size in ((2049, 8), (8, 2049)):
        with pytest.raises(RobotError, match=f"{size[0]} x {size[1]}, a side longer than 2048; check"):
            decoded(picture(9, size))
    png = b"\x89PNG\r\n\x1a\n"
    for bad in (b"", b"GIF89a", png, picture(100)[:200]):
        with pytest.raises(RobotError, match=f"of {len(bad)} bytes is no whole JPEG; restart its server"):
            decoded(bad)


# The battery


def test_a_battery_is_asked_for_now_and_then_and_told_where_it_is_known(ours):
    one = robot()
    assert one.get_observation().state == {}
    ours.charge = 0.5
    assert one.get_observation().state == {}, "not asked at every look"
    ours.sleep(jetbot.GAUGED)
    seen = one.get_observation().state["battery"]
    assert seen.shape == (1,) and seen.dtype == np.float32 and seen[0] == 0.5
    ours.charge = 0.4
    assert one.get_observation().state["battery"][0] == 0.5
    assert names(one.remote.camera).count("info") == 2
    ours.sleep(jetbot.GAUGED)
    assert one.get_observation().state["battery"][0] == np.float32(0.4)


@pytest.mark.parametrize("told", [True, "full", math.nan, math.inf, -0.1, 1.1, [0.5], None], ids=str)
def test_a_charge_that_is_none_is_not_told(told, ours):
    ours.charge = told
    assert robot().get_observation().state == {}


@pytest.mark.parametrize("told", [0, 1, 0.0, 1.0])
def test_a_charge_is_told_from_empty_to_full(told, ours):
    ours.charge = told
    assert robot().get_observation().state["battery"] == [float(told)]


def test_a_plain_server_is_not_asked_for_its_battery(plain):
    one = robot()
    assert one.get_observation().state == {} and names(one.remote.camera) == ["get_camera_frame"]
