"""A learner in a process of its own: it learns what one in the loop learns, nobody waits for it, nothing of it is left behind."""

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from brief_lives import BriefConfig, BriefMind, brief, dot, ended
from counting import Counting
from test_life import ADD, Watched
from torch import nn

from motorbabble.agents import Run, learn
from motorbabble.errors import ConfigurationError, Diverged, FrameError, LearningError
from motorbabble.experience import Step, Study
from motorbabble.learning import beside
from motorbabble.learning.beside import Beside
from motorbabble.learning.board import Board
from motorbabble.learning.gate import GateConfig
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.levels import LevelsConfig
from motorbabble.life import live
from motorbabble.recording.reader import RecordingReader

ROOT = Path(__file__).parent.parent
CALM = LearnerConfig(batch_size=2, gate=GateConfig(max_seconds=20.0))


class Slow(BriefMind):
    """Thinks for `naps` seconds about every update, and spoils it after `good` of them, in a way that `how` names."""

    naps, good, how = 0.1, math.inf, ""

    def losses(self, batch):
        time.sleep(self.naps)
        self.good -= 1
        if self.good < 0 and self.how == "raises":
            raise RuntimeError("the weights\nare upside down")
        losses = super().losses(batch)
        return losses | {"total": losses["total"] * math.nan} if self.good < 0 else losses


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(process: int, seconds: float = 5.0) -> bool:
    late = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < late:
        time.sleep(0.01)
    return not is_running(process)


def slow(robot=None, gate: Any = "act", steps: int | None = None, mind: Any = None, **settings) -> Any:
    mind = mind or Slow(1)
    return learn(robot or Counting(), mind, ADD, steps, beside=True, gate=gate, holds_out=lambda seen: False, learner=CALM, **settings)


def until_it_learns(run: Run) -> None:
    for event in run:
        time.sleep(0.01)
        if isinstance(event, Study):
            return


# Learning


def test_the_dot_is_learned_beside_it_as_in_the_loop():
    skills = []
    for apart in (False, True):
        run = learn(
            dot(), "latent", steps=40, seed=0, beside=apart, gate="wait", patch_size=8, width=32, shift=(4, 4), beside_updates=2, batch_size=2
        )
        with run:
            ended(run)
        skills.append(run.progress.skill)
        assert run.learner.updates >= 30
    assert min(skills) > 0.5, skills


def test_a_level_that_appears_reaches_the_one_who_acts():
    eager = LearnerConfig(
        batch_size=2, beside_updates=1, levels=LevelsConfig(most_levels=2, level_skill=-99.0, retire_skill=-100.0, level_evaluations=3)
    )
    run = learn(dot(), "latent", steps=20, beside=True, gate="wait", learner=eager, holds_out=lambda seen: False, patch_size=8, width=32)
    told, spans = [], []
    for event in run:
        told += event.notes if isinstance(event, Study) else []
        spans.append(run.world_model.spans)
        assert run.lookahead in (0, 1, 2)
    assert any("Level 1" in note for note in told) and spans[-1] == (1, 2) == run.learner.trained.spans
    window, plans = run.window, run.action_space.encode(run.action_space.rest)[None, None].repeat(2, 1)
    images = run.world_model.imagine(window, plans, level=1).images
    assert images is not None and torch.isfinite(images).all()
    assert run.learner.optimizer.state_dict()["state"], "what was gathered at the end holds the optimiser's state"


# Weights


class Unguarded:
    """No lock at all."""

    def acquire(self, timeout: float = 0.0) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def torn_sets(board: Board, mind: BriefMind, takes: int = 200) -> int:
    """How many of the sets that were taken, while others were posted, held weights of two. Every weight of set n is n."""
    done, seen = threading.Event(), BriefMind(1, BriefConfig(width=64))

    def post() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            for weight in mind.parameters():
                nn.init.constant_(weight, number)
            board.post(mind, {"number": number})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = threading.Thread(target=post)
    writer.start()
    torn = taken = 0
    try:
        while taken < takes:
            told: list[int] = []
            try:
                if not board.take(lambda news, told=told: told.append(news["number"]) or seen):
                    continue
                torn += {x for weight in seen.state_dict().values() for x in weight.unique().tolist()} != {told[0]}
            except ValueError:  # what belongs to the set was half of one
                torn += 1
            taken += 1
    finally:
        done.set()
        writer.join()
        sys.setswitchinterval(interval)
    return torn


def board_of(mind: BriefMind) -> Board:
    import multiprocessing

    return Board(multiprocessing.get_context("spawn"), mind, 1)


def test_a_set_of_weights_is_never_half_of_one_and_half_of_another():
    mind = BriefMind(1, BriefConfig(width=64)).requires_grad_(False)
    assert torn_sets(board_of(mind), mind) == 0
    broken = board_of(mind)
    broken.lock = Unguarded()  # type: ignore[assignment]
    assert torn_sets(broken, mind) > 0


def test_who_does_not_get_the_weights_at_once_keeps_what_it_has():
    mind = BriefMind(1)
    board = board_of(mind)
    board.post(mind, {})
    with board.lock:
        began = time.monotonic()
        assert not board.take(lambda news: pytest.fail("it was being written"))
        assert time.monotonic() - began < 0.5
    assert board.take(lambda news: mind) and not board.take(lambda news: pytest.fail("there is nothing newer"))


# Time


def test_a_robot_that_acts_keeps_its_pace_whatever_its_learner_does(monkeypatch):
    with slow(action_period=0.05) as run:
        until_it_learns(run)
        starts, updates = [], run.learner.updates
        for event in run:
            starts += [event.monotonic_ns / 1e9] if isinstance(event, Step) else []
            if len(starts) == 20:
                os.kill(run.learner.process, signal.SIGSTOP)
            if len(starts) == 40:
                break
        intervals = sorted(after - start for start, after in itertools.pairwise(starts))
        assert intervals[0] > 0.049 and intervals[-3] < 0.07, intervals  # an update takes 0.1 s
        assert run.learner.updates > updates
        monkeypatch.setattr(beside, "SILENT", 0.3)
        with pytest.raises(LearningError, match=r"said nothing for 0\.3 s"):
            ended(run)
        assert run.robot._stopped.is_set()
    assert gone(run.learner.process)


def test_a_robot_that_waits_does_so_within_its_budget(monkeypatch):
    with slow(gate="wait", mind=Slow(1), reconstruction_skill=0.99) as run:
        until_it_learns(run)
        studies, gates = 0, []
        for event in run:
            if isinstance(event, Study) and event.gate != "beside":
                studies, gates = studies + 1, [*gates, event.gate]
            elif isinstance(event, Step):
                assert studies or not gates, "it acted on what it had not yet learned from"
                studies = 0
            if run.steps_done > 6:
                break
        assert set(gates) <= {"learning", "budget", "passed"} and "budget" in gates
        os.kill(run.learner.process, signal.SIGSTOP)
        threading.Timer(0.5, run.stop.set).start()
        monkeypatch.setattr(beside, "LEAVING", 0.3)
        began = time.monotonic()
        ended(run)  # Ctrl+C while it waits for nothing
        assert 0.3 < time.monotonic() - began < 5


def test_a_pace_that_cannot_be_kept_is_told_once():
    class Late(Counting):
        def execute_action(self, action):
            time.sleep(0.02)
            return super().execute_action(action)

    run = learn(Late(), BriefMind(1), ADD, steps=20, action_period=0.01, learner=CALM)
    notes = []
    for _ in run:
        notes += [run.notes.pop(0)] if run.notes else []
    assert len(notes) == 1 and "cannot keep a period of 0.01 s: the last 5 began 0.0" in notes[0]


def test_an_action_that_would_come_early_waits_until_it_is_due():
    starts = [event.monotonic_ns for event in live(Counting(), ADD, steps=8, action_period=0.03) if isinstance(event, Step)]
    intervals = [(after - start) / 1e9 for start, after in itertools.pairwise(starts)]
    assert min(intervals) >= 0.03 and sorted(intervals)[3] < 0.04
    robot, stop = Counting(), threading.Event()
    for _ in live(robot, ADD, stop=stop, action_period=60.0):
        threading.Timer(0.05, stop.set).start()
    assert robot.steps == 1, "a stop ends the wait, and nothing is done any more"


@pytest.mark.parametrize("period", [0.0, -1.0, math.nan, math.inf])
def test_a_period_that_cannot_be_is_refused(period):
    with pytest.raises(ConfigurationError, match="action_period is"):
        learn(Counting(), BriefMind(1), ADD, action_period=period)


# What goes wrong


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("raises", LearningError, r"failed with RuntimeError \(the weights are upside down\)"),
        ("spoils", Diverged, "learning diverged at update 4"),
    ],
)
def test_what_goes_wrong_beside_the_robot_stops_it_and_is_one_sentence(how, error, says):
    robot, mind = Watched(), Slow(1)
    mind.naps, mind.good, mind.how = 0.0, 3, how
    run = slow(robot, "wait", mind=mind)
    with pytest.raises(error, match=says) as caught:
        ended(run)
    assert "\n" not in str(caught.value) and robot.stops
    assert gone(run.learner.process)


def test_a_refusal_of_ours_comes_as_what_it_is():
    ours, theirs = beside.as_error("FrameError", "the frame is odd; send another one", "line 7"), beside.as_error("KeyError", "'x'", "line 8")
    assert type(ours) is FrameError and str(ours) == "the frame is odd; send another one" and ours.__notes__ == ["line 7"]
    assert type(theirs) is LearningError and "failed with KeyError ('x')" in str(theirs)


def test_a_process_that_is_killed_is_missed():
    robot = Watched()
    run = slow(robot)
    until_it_learns(run)
    os.kill(run.learner.process, signal.SIGKILL)
    with pytest.raises(LearningError, match=r"is gone \(killed by signal 9; the machine may be out of memory"):
        for _ in run:
            time.sleep(0.02)
    assert robot.stops


def test_what_cannot_be_sent_is_refused_before_anything_moves():
    robot, mind = Watched(), BriefMind(1)
    mind.secret = lambda: None  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="a BriefMind cannot be sent to a process of its own"):
        ended(slow(robot, mind=mind))
    mine = type("Mine", (BriefMind,), {"__module__": "__main__"})
    with pytest.raises(ConfigurationError, match="Mine is written in the program itself"):
        ended(slow(robot, mind=mine(1)))
    with pytest.raises(ConfigurationError, match="gate is 'open'"):
        slow(robot, "open")
    assert robot.count == 0


# Memory

PROGRAM = """
import signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
print("begins", flush=True)
from brief_lives import Step, brief
run = brief(Path({folder!r}), steps=100000, save_updates=40, beside=True, action_period=0.01)
for event in run:
    if isinstance(event, Step):
        print(event.index, run.learner.process, run.learner.updates, flush=True)
"""


def test_a_killed_life_leaves_no_process_and_goes_on_without_a_lost_step(folder):
    (program := folder / "program.py").write_text(PROGRAM.format(paths=[str(ROOT), str(ROOT / "tests")], folder=str(folder)))
    life = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert life.stdout
    told = []
    for line in life.stdout:
        told.append(line.split())
        if len(told) > 60 and int(told[-1][2]) > 60:  # saved at least once, and gone on
            break
    life.kill()
    told += [line.split() for line in life.communicate()[0].splitlines()]
    assert sum(words == ["begins"] for words in told) == 1, "the process that learns ran the program once more"
    lived, process = int(told[-1][0]) + 1, int(told[-1][1])
    assert gone(process)
    run: Any = brief(folder, steps=100000, beside=True)
    saved = run.learner.updates
    assert run.resumed and saved >= 40 and any("goes on where it was saved" in note for note in run.notes)
    relived = [event.index for event in run if isinstance(event, Step) and (event.index < lived or run.stop.set())]
    assert run.steps_done >= lived > run.learner.replay.moments - 3 and relived == list(range(relived[0], lived))
    assert run.learner.updates > saved, "what was recorded after the save was learned from"
    assert gone(run.learner.process)
    again = brief(folder, steps=100000, beside=False)
    assert again.learner.updates == run.learner.updates and again.steps_done == run.steps_done
    for mine, theirs in ((again.learner.trained, run.learner.trained), (again.world_model, run.world_model)):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))
    again.close()
    moments = sum(len(RecordingReader(session)) for session in (folder / "s").iterdir() if session.is_dir())
    assert moments >= run.steps_done


def test_ctrl_c_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "motorbabble", "run", "toroidal_dot_latent", "--beside", "--robot.image-size", "64", "--threads", "1"]
    life = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        late, others = time.monotonic() + 60, set()
        while time.monotonic() < late and len(others) < 2:  # the learner, and what counts its locks
            time.sleep(0.1)
            others = {int(word) for word in children(life.pid)}
        time.sleep(1.0)  # it may be importing, or learning
        os.killpg(life.pid, signal.SIGINT)
        said = life.communicate(timeout=60)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(life.pid, signal.SIGKILL)
    assert life.returncode == 128 + signal.SIGINT and "Traceback" not in said and "at rest after" in said, said
    assert len(others) >= 2 and all(gone(process) for process in others)


def test_a_polite_kill_of_all_is_left_to_the_parent_and_its_threads_come_back():
    torch.set_num_threads(3)
    try:
        with slow() as run:
            until_it_learns(run)
            assert torch.get_num_threads() == 1, "half of three, for each of two"
            os.kill(run.learner.process, signal.SIGTERM)
            time.sleep(0.2)
            assert is_running(run.learner.process)
            updates = run.learner.updates
            until_it_learns(run)
            run.learner.gather()
            assert run.learner.updates > updates
        assert gone(run.learner.process) and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_an_interruption_in_the_middle_of_a_message_ends_without_a_wait_for_more(monkeypatch):
    with pytest.raises(KeyboardInterrupt), slow() as run:
        until_it_learns(run)
        whole = run.learner._pipe.recv

        def interrupted():
            monkeypatch.setattr(run.learner._pipe, "recv", lambda: pytest.fail("what comes is the rest of a message"))
            whole()
            raise KeyboardInterrupt

        monkeypatch.setattr(run.learner._pipe, "recv", interrupted)
        ended(run)
    assert gone(run.learner.process)


ABANDONED = """
import sys
sys.path[:0] = {paths!r}
from test_beside import slow, until_it_learns
until_it_learns(run := slow())
print(run.learner.process)
"""


def test_a_program_that_ends_without_closing_its_run_ends_at_once():
    program = ABANDONED.format(paths=[str(ROOT), str(ROOT / "tests")])
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert gone(int(told.stdout)) and not told.stderr


def children(process: int) -> list[str]:
    return [word for task in Path(f"/proc/{process}/task").glob("*/children") for word in task.read_text().split()]


def test_it_is_a_learner_to_whoever_asks():
    learner = Beside(BriefMind(1), CALM)
    assert isinstance(learner, Learner) and not learner.waits and list(learner.study()) == [] and learner.process is None
    learner.gather()
    learner.close()
    with pytest.raises(ConfigurationError, match="to teach it by hand"):
        learner.update([])
    assert Beside(BriefMind(1), CALM, gate="wait").waits
