"""A webcam without one: pictures belong to the moment after the action, and whatever breaks is told in a sentence within three seconds."""

import itertools
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from exams import robot_exam
from test_documents import ROOT
from test_interactive import Person
from test_jetbot_commands import fake_opencv

from motorbabble.commands import feed, robots
from motorbabble.errors import ConfigurationError, EndOfSession, RobotError, RobotLost
from motorbabble.experience import Step
from motorbabble.life import live
from motorbabble.robots import camera
from motorbabble.robots.camera import Camera
from motorbabble.robots.webcam import DrawnRoom, WebcamConfig, WebcamRobot
from motorbabble.selectors import RandomSelector

SMALL = {"size": 32, "duration": 0.02}


class Turning:
    """A camera that somebody turns. Its pictures come one late, as a driver's do; `after` pictures it fails as `fails` says."""

    def __init__(self, fails="", after=10**9):
        self.place, self.exposed, self.taken, self.fails, self.after = 0, 0, 0, fails, after
        self.closed = threading.Event()

    def read(self):
        time.sleep(0.004)
        shown, self.exposed = self.exposed, self.place
        self.taken += 1
        failing = self.fails if self.taken > self.after else ""
        if failing == "unplugged":
            return None
        if failing == "hangs":
            self.closed.wait(20)
        if failing == "crashes":
            raise ValueError("no\n buffer")
        image = np.full((24, 40, 3), 90, np.uint8)
        image[:, 8 + shown % 24] = 255
        if failing == "frozen":
            image[0, 0] = 1
        elif failing == "black":
            image[:] = 0
        else:
            image[0, 0] = self.taken % 251  # the sensor's noise
        return image

    def release(self):
        self.closed.set()


def by_hand(eye, *answers, **settings):
    """A robot whose actions are done by a person, who really turns the camera."""
    person = Person(*answers)

    def ask(question):
        answer = person.ask(question)
        label = answer or question.split(": ")[1].split(".")[0]
        eye.place += {"left": -1, "right": 1}.get(label, 0)
        return answer

    robot = WebcamRobot(WebcamConfig(size=24, **settings), ask=ask, say=person.say, opens=lambda: eye)
    return robot, person


def place(image):
    """Where the turning camera's bar is: the middle 24 of 40 columns are seen."""
    return int(np.argmax(image[5, :, 0]))


def places(robot, eye, steps=12):
    """Where the bar was seen after each action, and where it was then."""
    pairs = []
    for action, _ in zip(itertools.cycle(robot.action_space.actions[1:2] * 3 + robot.action_space.actions[2:] * 3), range(steps), strict=False):
        robot.execute_action(action)
        pairs.append((place(robot.get_observation().image), eye.place % 24))
    return pairs


def test_a_picture_is_of_after_the_action(monkeypatch):
    eye = Turning()
    robot, _ = by_hand(eye, *[""] * 100)
    with robot:
        eye.place = 12
        seen = places(robot, eye)
    assert all(where == truth for where, truth in seen) and len({truth for _, truth in seen}) == 4
    monkeypatch.setattr("motorbabble.robots.webcam.EXPOSED", 0)
    robot, _ = by_hand(Turning(), *[""] * 100)
    with robot:
        eye = robot.camera.opens()
        eye.place = 12
        assert any(where != truth for where, truth in places(robot, eye)), "a robot that takes the newest one at once is noticed"


def test_a_person_keeps_the_rules_of_a_robot():
    class Still(Turning):
        def read(self):
            image = super().read()
            image[0, 0] = 0
            return image

    robot_exam(lambda: WebcamRobot(WebcamConfig(size=24, repeats=True), ask=lambda question: "", opens=Still))


def test_what_a_person_did_is_what_was_executed():
    robot, person = by_hand(Turning(), "", "right", " LEFT ", "jump", "stay")
    with robot:
        done = [robot.execute_action({"action": 1})["action"] for _ in range(4)]
        assert done == [1, 2, 1, 0] and "Do this now: left. Then press Enter" in person.questions[0]
        assert person.heard == ["'jump' is none of its actions, which are stay, left, right."]
        assert robot.get_observation().sequence == 4 and "You do its actions" in robot.describe()


@pytest.mark.parametrize("last", [["stop"], []], ids=["stop", "nothing any more"])
def test_a_person_who_has_had_enough_ends_the_life(last):
    robot, _ = by_hand(Turning(), "", "right", *last)
    with robot:
        steps = [event for event in live(robot, RandomSelector(), steps=9) if isinstance(event, Step)]
        assert len(steps) == 2 and steps[1].executed == {"action": 2}
        with pytest.raises(EndOfSession):
            robot.execute_action({"action": 0})


@pytest.mark.parametrize(
    ("fails", "kind", "says"),
    [
        ("unplugged", RobotLost, "gives no further picture"),
        ("crashes", RobotLost, "failed (no buffer)"),
        ("hangs", RobotError, "it gives none"),
        ("frozen", RobotError, "repeats the last one to the bit"),
        ("black", RobotError, "one colour"),
    ],
)
def test_a_camera_that_fails_is_told_in_a_sentence(fails, kind, says):
    eye = Turning(fails, after=20)
    robot, _ = by_hand(eye, *[""] * 1000)
    with robot:
        began = time.monotonic()
        with pytest.raises(kind) as error:
            while time.monotonic() - began < 5:
                seen = robot.get_observation()
                assert time.time_ns() - seen.captured_ns < 0.6e9, "a picture is never old"
                last = time.monotonic()
                robot.execute_action({"action": 1})
    assert time.monotonic() - last < 3 and says in str(error.value) and ";" in str(error.value) and "\n" not in str(error.value)
    eye.closed.set()


@pytest.mark.parametrize("fails", ["hangs", "frozen", "black"])
def test_an_old_picture_is_none_even_where_nobody_acts(fails):
    eye = Turning(fails, after=20)
    camera = Camera("the camera", lambda: eye)
    time.sleep(0.8)
    with pytest.raises(RobotError, match=r"the camera has shown no new picture for 0\.2 s"):
        camera.newest(patience=0.2)
    camera.close()
    eye.closed.set()


def test_a_camera_that_hands_out_its_last_picture_is_noticed():
    """The broken variant: with equal pictures allowed, a frozen camera is not found."""
    camera = Camera("camera", lambda: Turning("frozen", after=10), repeats=True)
    time.sleep(0.3)
    image, _ = camera.newest()
    assert image[0, 0, 0] == 1, "it would go on and on"
    camera.close()


@pytest.mark.parametrize("fails", ["unplugged", "hangs", "frozen", "black"])
def test_a_camera_that_never_shows_anything_is_not_waited_for_long(fails):
    eye, began = Turning(fails, after=0), time.monotonic()
    with pytest.raises(RobotError):
        WebcamRobot(WebcamConfig(wait=0.3), opens=lambda: eye)
    assert time.monotonic() - began < 2
    eye.closed.set()


@pytest.mark.parametrize("source", ["7", "nothing.mp4", __file__, "http://127.0.0.1:9/video"])
def test_no_such_camera(source, capfd):
    pytest.importorskip("cv2")
    began = time.monotonic()
    with pytest.raises(RobotLost, match="there is no camera"):
        WebcamRobot(WebcamConfig(camera=source))
    assert time.monotonic() - began < 3 and not "".join(capfd.readouterr()), "our sentence is enough"


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'motorbabble[live]'")):
        WebcamRobot()


@pytest.fixture
def video(tmp_path):
    """A video of eight pictures, 48 x 32: red in the middle, and a bar that moves."""
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 20, (48, 32))
    for number in range(8):
        image = np.zeros((32, 48, 3), np.uint8)
        image[:, 8:40, 2] = 200  # BGR
        image[:, 8 + 4 * number : 12 + 4 * number] = 255
        writer.write(image)
    writer.release()
    return file


def test_a_video_is_a_camera_that_begins_again(video):
    with WebcamRobot(WebcamConfig(camera=str(video), size=16), ask=lambda question: "") as robot:
        began, seen = time.monotonic(), set()
        while time.monotonic() - began < 0.9:
            image = robot.get_observation().image
            seen.add(int(image[8, :, 1].argmax()))
            time.sleep(0.01)
    assert image.shape == (16, 16, 3) and len(seen) == 8
    red = image[image[..., 1] < 100]
    assert red[:, 0].mean() > 150 > red[:, 2].mean() + 100, "RGB"


# Settings and commands


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": 4}, "size is 4"),
        ({"duration": 0}, "duration is 0"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"wait": -1}, "wait -1"),
        ({"actions": ()}, "the actions are none"),
        ({"actions": ("left", "left")}, "a name of its own"),
        ({"actions": ("stay", "Stop")}, "not stop"),
        ({"actions": ("Left", "left")}, "a name of its own"),
        ({"actions": ("0", "1")}, "no number"),
        ({"actions": ("stay", ":1:1")}, "a name of its own"),
        ({"actions": ("stay", "left"), "board": "http://board"}, "says no speeds"),
        ({"actions": ("stay:0:0", "left:2:0"), "board": "http://board"}, "from -1 to 1"),
        ({"actions": ("stay:0:0", "left:nan:0"), "fake": True}, "from -1 to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        WebcamConfig(**settings)


def test_the_action_that_does_least_is_rest():
    space = WebcamConfig(board="http://board", actions=("left:-0.4:0.4", "crawl:0.1:0", "stay:0:0")).space()
    assert space.label(space.rest) == "stay" and space.actions[0] == {"motor_left": -0.4, "motor_right": 0.4, "duration": 0.25}
    assert WebcamConfig(actions=("nothing", "nod")).space().rest == {"action": 0}


def test_the_camera_is_let_go_in_the_end():
    eye = Turning()
    robot, _ = by_hand(eye)
    assert not eye.closed.is_set()
    with robot:
        pass
    assert eye.closed.wait(1) and not robot.camera._thread.is_alive()


def test_a_drawn_room_turns_by_what_its_motors_did():
    with WebcamRobot(WebcamConfig(fake=True, **SMALL), seed=1) as robot:
        before = robot.get_observation().image
        robot.execute_action(robot.action_space.actions[0])
        assert np.array_equal(robot.get_observation().image, before)
        for _ in range(5):
            robot.execute_action(robot.action_space.actions[2])
        turned = robot.get_observation().image
        room = robot.camera.opens()
        assert isinstance(room, DrawnRoom) and room.angle() == pytest.approx(5 * 0.4 * 0.02 * 200 * 32 / 224)
        assert not np.array_equal(turned, before) and np.array_equal(turned[:, :-1], before[:, 1:]), "by one pixel"


def test_a_stand_in_learns_is_recorded_and_gets_a_card(tmp_path, here):
    small = (
        "--robot.size",
        "32",
        "--robot.duration",
        "0.02",
        "--model.image-size",
        "32",
        "32",
        "--model.patch-size",
        "8",
        "--steps",
        "4",
        "--exam-steps",
        "4",
    )
    done = here("run", "webcam_latent", "--robot.fake", *small)
    assert done.returncode == 0, done.stderr
    assert "a drawn room that turns" in done.stdout and (tmp_path / "saved/cards/webcam_fake/webcam_latent-seed0/card.html").is_file()


def test_a_person_at_the_keyboard_acts_until_they_say_stop(tmp_path, video):
    words = (
        "run",
        "webcam_latent",
        "--robot.camera",
        str(video),
        "--robot.size",
        "32",
        "--model.image-size",
        "32",
        "32",
        "--model.patch-size",
        "8",
        "--steps",
        "9",
    )
    done = subprocess.run(
        [sys.executable, "-m", "motorbabble", *words],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        input="\nleft\nstop\n",
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Do this now") == 3 and "The robot is at rest after 2 steps" in done.stdout


def test_a_feed_tells_the_rate(capsys):
    feed.feed(["webcam", "--robot.fake", "--robot.size", "32", "--headless", "--seconds", "1.2"])
    assert 5 < float(capsys.readouterr().out.split()[0]) < 60
    with pytest.raises(ConfigurationError, match="babble feed webcam"):
        feed.feed(["toaster"])


def test_a_window_shows_what_the_webcam_sees_until_q(monkeypatch):
    shown: list = []
    window = fake_opencv([-1, ord("q")], shown)
    monkeypatch.setitem(sys.modules, "cv2", window)
    feed.feed(["webcam", "--robot.fake", "--robot.size", "32"])
    with WebcamRobot(WebcamConfig(fake=True, **SMALL)) as robot:
        assert shown[0] == "Webcam Live Feed" and np.array_equal(shown[2][..., ::-1], robot.get_observation().image)


def test_a_webcam_is_checked_gently_and_never_switched_on_by_a_list(capsys, monkeypatch):
    robots.robots(["check", "webcam", "--robot.fake", "--robot.size", "32", "--robot.duration", "0.05"])
    assert "refuses to act" in capsys.readouterr().out
    monkeypatch.setattr(camera, "opencv", lambda: pytest.fail("a list opened the camera"))
    robots.robots(["list"])
    assert "babble robots check webcam" in capsys.readouterr().out
