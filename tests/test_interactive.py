"""A person decides: every kind of answer, none of which is ever evaluated; and the robot stops before anything else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event as Flag

import pytest
from counting import Counting
from test_life import Watched
from test_selectors import BOX, SPACE, at

from motorbabble.experience import ActionSpace, Choice, Step
from motorbabble.faces import AutoencoderLatentPredictorWorldModel
from motorbabble.life import live
from motorbabble.runner import RobotRunner
from motorbabble.selectors import InteractiveSelector, LeastTriedSelector, create_constant_action_selector, human

ROOT = Path(__file__).parent.parent
STAY = create_constant_action_selector({"action": 0})


class Person:
    """Answers what is on the list, one after the other, and then no more."""

    def __init__(self, *answers: str):
        self.answers, self.questions, self.heard = list(answers), [], []

    def ask(self, question: str) -> str:
        self.questions.append(question)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    def say(self, text: str) -> None:
        self.heard.append(text)


def asked(person: Person, select=STAY, space: ActionSpace = SPACE) -> tuple[Choice, bool]:
    stop = Flag()
    choice = InteractiveSelector(select, stop, person.ask, person.say)(at(3, space))
    return choice, stop.is_set()


@pytest.mark.parametrize("answer", ["", "  ", "stay", "0", '{"action": 0}', "{}"])
def test_what_is_proposed_is_accepted(answer):
    choice, stopped = asked(Person(answer))
    assert choice == Choice({"action": 0.0}, why="always the same action") and not stopped


@pytest.mark.parametrize("answer", ["move", "Move", " 1 ", '{"action": 1}', '{"action": 1.0}', '  {"action":1e0}'])
def test_another_action_replaces_it(answer):
    choice, stopped = asked(Person(answer))
    assert choice == Choice({"action": 1.0}, why="a person chose it") and not stopped


def test_channels_that_are_left_out_stay_as_proposed():
    choice, _ = asked(Person('{"left": 0.5}'), create_constant_action_selector({"left": -1, "right": 0.25}), BOX)
    assert choice.action == {"left": 0.5, "right": 0.25}


REFUSED = {
    "fly": "is no action",
    "__import__('os').system('true')": "is no action",
    "{'action': 1}": "is no action",
    "[1]": "is no action",
    "null": "is no action",
    "true": "is no action",
    "-1": "is no action",
    "0.5": "is no action",
    '"move': "is no action",
    "\x00\x1b[2J": "is no action",
    "[" * 1900: "is no action",
    "٣": "is no action",
    "7": "no action number 7",
    "9" * 1000: "is no action",
    "x" * 2**20: "1,048,576 characters",
    '{"action": NaN}': "NaN is no number",
    '{"action": -Infinity}': "-Infinity is no number",
    '{"action": 1e999}': "no finite number",
    '{"action": 1' + "0" * 400 + "}": "no finite number",
    '{"action": true}': "no finite number",
    '{"action": "1"}': "no finite number",
    '{"action": {"action": 1}}': "no finite number",
    '{"action": 1, "action": 0}': "named twice",
    '{"acton": 1}': "no channel 'acton'",
    '{"action": 7}': "outside 0 to 1",
    '{"action": 0.5}': "none of its 2 actions",
}


@pytest.mark.parametrize("answer", REFUSED, ids=range(len(REFUSED)))
def test_anything_else_is_answered_in_one_sentence_and_asked_again(answer):
    person = Person(answer, "move")
    choice, stopped = asked(person)
    assert choice.action == {"action": 1.0} and not stopped and len(person.questions) == 2
    (said,) = person.heard[2:]  # after the proposal and what may be typed
    assert REFUSED[answer] in said and said.endswith(".") and "\n" not in said and "\x1b" not in said and len(said) < 200


def test_of_ranges_what_lies_outside_is_refused():
    person = Person('{"left": 1.5}', "3", "")
    asked(person, create_constant_action_selector({"left": 0, "right": 0}), BOX)
    assert "left is 1.5, outside -1 to 1" in person.heard[2] and "is no action" in person.heard[3]


def test_nothing_that_is_typed_is_ever_evaluated(tmp_path, monkeypatch):
    trap = tmp_path / "evaluated"
    answers = [f"open({str(trap)!r}, 'w')", f'{{"action": open({str(trap)!r}, "w").close() or 1}}', f"print(open({str(trap)!r}, 'w'))"]
    asked(Person(*answers))
    assert not trap.exists()
    monkeypatch.setattr(human.json, "loads", lambda text, **settings: eval(text))  # what this test is there to notice
    asked(Person(answers[1]))
    assert trap.exists()


@pytest.mark.parametrize(
    "person", [Person("stop"), Person(" STOP "), Person(), Person(*["fly"] * 100, "move")], ids=["stop", "loud", "eof", "babble"]
)
def test_stop_ends_the_run_before_anything_moves(person):
    robot, stop = Watched(), Flag()
    select = InteractiveSelector(create_constant_action_selector({"add": 1}), stop, person.ask, person.say)
    assert list(live(robot, select, stop=stop)) == []
    assert robot.count == 0 and stop.is_set()


def test_the_robot_stops_first():
    robot, order = Watched(), []
    person = Person("", "two", "stop")
    runner = RobotRunner(
        robot, create_constant_action_selector({"add": 1}), interactive=True, ask=person.ask, say=person.say, view="/dev/null/view.png"
    )
    runner.statistics = lambda: order.append(robot.stops)  # what comes after it
    runner.run()
    assert robot.count == 3 and order == [1]


def test_the_selector_inside_hears_what_was_done():
    person, select, stop = Person(*["one"] * 5, "stop"), LeastTriedSelector(0), Flag()
    wrapped = InteractiveSelector(select, stop, person.ask, person.say)
    steps = [event for event in live(Counting(), wrapped, stop=stop) if isinstance(event, Step)]
    assert [step.executed["add"] for step in steps] == [1] * 5
    assert list(select.counts.values()) == [5]
    assert steps[-1].choice.scores == {"one": -4.0, "two": 0.0}, "what the selector thought is kept beside what the person did"


def test_it_says_what_is_proposed_and_why_and_what_else_is_known():
    person = Person("", "")
    select = InteractiveSelector(
        lambda situation: Choice({"action": 1}, {"stay": -3.0, "move": 1.25}, "least sure of it"),
        Flag(),
        person.ask,
        person.say,
        lambda situation, choice: [f"it is step {situation.step}"],
    )
    select(at(3))
    assert person.heard[:3] == ["Step 3: move is proposed, least sure of it.", "  scores: move 1.25, stay -3", "  it is step 3"]
    assert "0 stay, 1 move" in person.heard[3] and '{"action": 1.0}' in person.heard[3] and person.questions[0].startswith("Enter for move")
    select(at(4))
    assert len(person.heard) == 7, "what may be typed is said once"


def test_a_thousand_actions_are_not_all_listed():
    many = ActionSpace.discrete([{"action": i} for i in range(1000)])
    person = Person("1000", '{"action": 3.5}', "999")
    choice, _ = asked(person, create_constant_action_selector({"action": 5}), many)
    assert choice.action == {"action": 999.0} and max(map(len, person.heard)) < 300


def test_a_mind_is_asked_shown_and_resumed_without_asking_again(tmp_path, capsys):
    def life(person: Person, robot: Counting) -> AutoencoderLatentPredictorWorldModel:
        settings = {"patch_size": 8, "batch_size": 1, "max_updates": 1}
        mind = AutoencoderLatentPredictorWorldModel(robot, tmp_path, action_selector="least_tried", interactive=True, ask=person.ask, **settings)
        mind.main_loop()
        mind.close()
        return mind

    person = Person("two", "two", "", "stop")
    first = life(person, robot := Watched(size=32))
    assert first.life.steps_done == 3 and robot.stops and len(person.questions) == 4
    told = capsys.readouterr().out
    assert "last prediction (two) error" in told and "lookahead 0" in told and "scores: " in told
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")
    person = Person("one", "stop")
    second = life(person, Counting(size=32))
    assert second.life.steps_done == 4
    assert len(person.questions) == 2, "what is learned again is not asked again"


def test_a_run_that_is_not_interactive_asks_nobody(tmp_path):
    mind = AutoencoderLatentPredictorWorldModel(Counting(size=32), patch_size=8, batch_size=1, ask=Person().ask)
    mind.main_loop(2)
    assert mind.life.steps_done == 2


RUN = [sys.executable, "-m", "motorbabble", "run", "toroidal_dot_runner", "--robot.image-size", "32", "--interactive"]


def settings() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", "COLUMNS": "160"}


def test_a_person_runs_a_robot_from_the_command_line(tmp_path):
    done = subprocess.run(RUN, cwd=tmp_path, env=settings(), input="\nstay\nfly\nstop\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "count/move                      1" in done.stdout and "count/stay                      1" in done.stdout
    assert "'fly' is no action" in done.stdout
    assert (tmp_path / "saved/cards/toroidal_dot/toroidal_dot_runner/view.png").is_file()


def test_ctrl_c_at_the_question_ends_the_run_at_once(tmp_path):
    life = subprocess.Popen(RUN, cwd=tmp_path, env=settings(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert life.stdout
    said = ""
    until = time.monotonic() + 120
    while "or stop: " not in said and time.monotonic() < until:
        said += life.stdout.read(1)
    time.sleep(0.5)  # a person cannot be quicker than the read that follows the question
    life.send_signal(signal.SIGINT)
    try:
        assert life.wait(60) == 128 + signal.SIGINT
    finally:
        life.kill()
        said, wrong = life.communicate()
    assert "steps                           0" in said and "Traceback" not in wrong
