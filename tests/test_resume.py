"""A life that is killed and started again goes on as if nothing had happened: to the bit in a simulated world, without a lost step in any."""

import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from brief_lives import BriefMind, Slippery, Wavering, dot
from checkpoint_exam import (
    KINDS,
    Kill,
    Kind,
    different,
    lived,
    resume_exactly,
    resumed,
    warm,
)
from counting import Counting, read
from kills import killed, random_instants

from motorbabble import agents, memory
from motorbabble.agents import Run, learn
from motorbabble.experience import Action, ActionSpace, Choice, Observation, Situation, Step, Study
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.levels import Levels
from motorbabble.learning.surprise import Surprise
from motorbabble.memory import MemoryConfig
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.trail import Trail
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector


@pytest.fixture(scope="module", autouse=True)
def warmed() -> None:
    warm()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """By the kind's name: its life without any interruption."""
    cache: dict[str, dict[int, dict]] = {}

    def of(name: str) -> dict[int, dict]:
        if name not in cache:
            cache[name] = lived(KINDS[name], tmp_path_factory.mktemp("straight"))
        return cache[name]

    return of


# To the bit


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_life_goes_on_to_the_bit(name, straight, folder):
    assert len(straight(name)) == KINDS[name].steps
    kills = [Kill("events", 19)] if KINDS[name].model else [Kill("events", 24), Kill("events", 4)]
    assert not resumed(KINDS[name], kills, straight(name), folder)


@pytest.mark.parametrize(
    "kills",
    [
        [Kill("saving", 2)],  # before the first generation is there
        [Kill("saving", 34)],  # in the first one of a life that has begun
        [Kill("events", 0)],
        [Kill("events", 1)],
        [Kill("recording", 4), Kill("recording", 6)],  # before the first step is recorded, twice
        [Kill("events", 9), Kill("events", 0), Kill("events", 0), Kill("recording", 5), Kill("events", 2)],  # again and again before the next save
        [Kill("events", 29), Kill("saving", 40)],
        [Kill("stop", 8), Kill("stop", 2), Kill("stop", 3), Kill("stop", 7)],
        [Kill("saving", 70, interrupt=True), Kill("recording", 11, interrupt=True)],
        [Kill("recording", 36, interrupt=True), Kill("recording", 37, interrupt=True), Kill("saving", 2, interrupt=True)],
    ],
    ids=str,
)
def test_a_killed_life_goes_on_to_the_bit_whenever(kills, straight, folder):
    assert not resumed(KINDS["slippery"], kills, straight("slippery"), folder)


@pytest.mark.parametrize("name", ["dot", "not recorded", "bodies", "slippery"])
def test_a_life_that_ended_well_and_is_prolonged_and_killed_is_the_same(name, straight, folder):
    """Its first 5 steps are a life of their own, closed with a last look; all that follows is what it would have been."""
    first = lived(KINDS[name], folder, steps=5)
    second = lived(KINDS[name], folder, Kill("events", 6), steps=5)
    third = lived(KINDS[name], folder, steps=5)
    fourth = lived(KINDS[name], folder, steps=4)
    assert sorted(first) == list(range(5)) and max(third) == 9 and max(fourth) == 13
    for part in (first, second, third, fourth):
        assert not different(part, straight(name))


@pytest.mark.parametrize("name", ["dot", "bodies", "slippery"])
def test_a_life_that_falls_back_to_its_backup_is_the_same(name, straight, folder):
    """The sessions hold what was lived since, over several of them."""
    seen = [step for kill in (Kill("events", 20), Kill("events", 9)) for step in lived(KINDS[name], folder, kill)]
    flip_newest(folder / "checkpoint")
    assert not resumed(KINDS[name], [], straight(name), folder, reached=max(seen))


def test_a_session_that_begins_with_an_episodes_last_frame_is_caught_up_whole(straight, folder):
    """The first life dies after step 3, whose outcome ends the episode: what it led to is the first thing the next session holds."""
    for kill, reached in ((Kill("events", 11), 3), (Kill("events", 15), 4)):
        assert max(lived(KINDS["slippery"], folder, kill)) == reached
    assert not resumed(KINDS["slippery"], [], straight("slippery"), folder, reached=4)


@pytest.mark.parametrize("last_frames", [False, True])
@pytest.mark.parametrize("dies", [False, True])
def test_sessions_that_meet_where_episodes_do_are_not_joined(last_frames, dies, folder):
    """Four steps are an episode, and a session."""
    kind = Kind(lambda: Slippery(episode_steps=None if last_frames else 4, last_frames=last_frames), steps=14)

    def lives(say) -> None:
        for event in kind.learn(folder, 4):
            if isinstance(event, Step):
                say(event.index)
            if dies and isinstance(event, Step) and event.index % 4 == 3 and event.index > reached:
                os.kill(os.getpid(), signal.SIGKILL)

    reached = -1
    while reached < 11:
        reached = max([reached, *killed(lives).acknowledged])
    follows(folder / "sessions")


def flip_newest(checkpoint: Path) -> None:
    checkpoints = Checkpoints(checkpoint)
    state = checkpoints.path(checkpoints.generations()[0]) / "state.json"
    state.write_bytes(state.read_bytes()[:-1])


def test_a_life_that_is_recorded_only_now_and_then_is_the_same(straight, folder):
    silent = Kind(KINDS["slippery"].robot, record=False, save_updates=2)
    seen = lived(KINDS["slippery"], folder, Kill("events", 11))
    seen |= lived(silent, folder, Kill("events", 20))
    seen |= lived(KINDS["slippery"], folder, Kill("events", 7))
    seen |= lived(KINDS["slippery"], folder)
    assert not different(seen, straight("slippery")) and max(seen) == 13
    follows(folder / "sessions")


def follows(sessions: Path) -> None:
    """Whoever replays all sessions of a Counting robot sees no window across what was not recorded."""
    readers = sorted((RecordingReader(path) for path in sessions.glob("session_*")), key=lambda reader: reader.meta.created_ns)
    robot = ReplayRobot(*[reader for reader in readers if len(reader)])
    checks = Checking(create_recorded_action_selector(robot))
    for _ in agents.live(robot, checks, world_model=BriefMind(robot.action_space.size)):
        pass
    assert checks.checked > 3


class Checking:
    """Passes on what it is asked, when the frames it is shown follow each other."""

    def __init__(self, select):
        self.select, self.checked = select, 0

    def __call__(self, situation: Situation) -> Choice:
        window = situation.window
        for before, after, led in zip(window.images, window.images[1:], window.actions, strict=False):
            (count, _), (then, last) = read(before), read(after)
            assert then - count == last == situation.action_space.decode(led)["add"], f"step {situation.step}: {count}, then {then} after {last}"
            self.checked += 1
        return self.select(situation)


# Left out


def leave_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part of what was saved is not loaded."""
    old = {part: getattr(memory, part) for part in ("load_weights", "load_generators", "load_replay")}

    def keeping(load, states):
        """As `load`, but what `states` names is as it was before."""

        def loaded(learner, *arguments):
            before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in states(learner)]
            load(learner, *arguments)
            for model, state in zip(states(learner), before, strict=True):
                model.load_state_dict(state)

        return loaded

    def other_generators(learner, states):
        here = memory.generators_of(learner)
        old["load_generators"](learner, {**states, generator: here[generator]})

    def black_frames(learner, tensors, moments, frame):
        return old["load_replay"](learner, tensors, moments, lambda i: np.zeros_like(frame(i)))

    def no_sum(learner, *arguments):
        lost = old["load_replay"](learner, *arguments)
        learner.replay._sum = learner.replay._sum * 0
        return lost

    def no_progress(run, state, steps):
        restore(run, {**state, "progress": {"error": 0.0, "copy": 0.0, "skill": 0.0, "curve": []}}, steps)

    generator, restore = name.removesuffix("'s generator"), Run._restore
    nothing = lambda *arguments, **named: None  # noqa: E731
    (place, attribute), how = {
        "weights": ((memory, "load_weights"), keeping(old["load_weights"], lambda learner: [learner.trained])),
        "averaged weights": ((memory, "load_weights"), keeping(old["load_weights"], lambda learner: [learner.world_model])),
        "optimizer": ((memory, "load_optimizer"), nothing),
        "counters": ((memory, "load_counters"), nothing),
        "surprise": ((Surprise, "load_state_dict"), nothing),
        **{f"{which}'s generator": ((memory, "load_generators"), other_generators) for which in ("learner", "python", "numpy", "torch")},
        "replay": ((memory, "load_replay"), nothing),
        "replay's frames": ((memory, "load_replay"), black_frames),
        "replay's sum": ((memory, "load_replay"), no_sum),
        "selector": ((memory.Memory, "_load_selector"), nothing),
        "history": ((memory, "load_history"), nothing),
        "robot": ((dot().__class__, "load_state_dict"), nothing),
        "progress": ((Run, "_restore"), no_progress),
        "trail": ((Trail, "load"), nothing),
    }[name]
    monkeypatch.setattr(place, attribute, how)


LEFT_OUT = {
    "weights": "weights",
    "averaged weights": "averaged",
    "optimizer": "optimizer",
    "counters": "counters",
    "surprise": "surprise",
    "learner's generator": "learner's generator",
    "python's generator": "python's",
    "numpy's generator": "numpy's",
    "torch's generator": "torch's",
    "replay": "replay",
    "replay's frames": "replay",
    "replay's sum": "sum",
    "selector": "selector",
    "history": "history",
    "robot": "robot",
    "progress": "progress",
    "trail": "replay",
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, int]:
    """A life that was killed two steps after it was saved, and its newest step."""
    place = tmp_path_factory.mktemp("interrupted")
    reached = max(lived(KINDS["dot"], place, Kill("events", 22)))
    loaded = Checkpoints(place / "checkpoint").load()
    assert loaded and 0 < loaded.state["run"]["steps_done"] < reached < KINDS["dot"].steps - 2
    return place, reached


@pytest.mark.parametrize("part", LEFT_OUT)
def test_leaving_out_any_one_part_is_noticed(part, interrupted, straight, folder):
    shutil.copytree(interrupted[0], folder / "life")
    wrong = resumed(KINDS["dot"], [], straight("dot"), folder / "life", lambda: leave_out(part, pytest.MonkeyPatch()), interrupted[1])
    assert any(what.startswith(LEFT_OUT[part] + " at step") for what in wrong), wrong[:5]


def test_nothing_left_out_is_the_same(interrupted, straight, folder):
    shutil.copytree(interrupted[0], folder / "life")
    assert not resumed(KINDS["dot"], [], straight("dot"), folder / "life", reached=interrupted[1])


def forget_levels() -> None:
    memory.grow_as_saved = lambda *arguments: None


def forget_how_good_they_were() -> None:
    Levels.load_state_dict = lambda *arguments: None  # type: ignore[method-assign]


def test_forgetting_the_levels_is_noticed(straight, folder):
    reached = max(lived(KINDS["levels"], folder, Kill("events", 19)))
    loaded = Checkpoints(folder / "checkpoint").load()
    assert loaded and {"predictor_0", "predictor_1"} <= loaded.tensors.keys()
    shutil.copytree(folder, folder / "copy")
    with pytest.raises(AssertionError, match="work raised"):  # in its process: the weights are of another model
        resumed(KINDS["levels"], [], straight("levels"), folder, forget_levels, reached)
    wrong = resumed(KINDS["levels"], [], straight("levels"), folder / "copy", forget_how_good_they_were, reached)
    assert any(what.startswith("levels at step") for what in wrong)


# No acknowledged step is lost


class Real(RobotInterface):
    """A Counting that cannot be put anywhere, and has moved on whenever somebody comes back to it."""

    robot_type = "real"

    def __init__(self):
        self.inner = Counting()
        self.inner.count = int.from_bytes(os.urandom(2), "little") % 10_000

    @property
    def action_space(self) -> ActionSpace:
        return self.inner.action_space

    def get_observation(self) -> Observation:
        return self.inner.get_observation()

    def execute_action(self, action: Action) -> Action:
        return self.inner.execute_action(action)

    def cleanup(self) -> None:
        pass


def life_of(robot: RobotInterface, folder: Path, steps: int | None, record: bool = True) -> Run:
    keeps = MemoryConfig(folder / "checkpoint", folder / "sessions", record, save_updates=9)
    checks = Checking(Wavering())
    checks.state_dict, checks.load_state_dict = checks.select.state_dict, checks.select.load_state_dict  # type: ignore[attr-defined]
    return learn(robot, BriefMind(1), checks, steps, memory=keeps, max_seconds=math.inf, batch_size=1, holds_out=lambda observation: False)


def counts_learned(folder: Path, body: type[RobotInterface], leave_out: str = "") -> list[int]:
    """A last life of one step more: how many steps it has behind it, and what its memories count."""

    def ends(say) -> None:
        if leave_out == "what was recorded since":
            Trail.tail = lambda trail, life: ([], 0)  # type: ignore[method-assign]
        run = life_of(body(), folder, 1)
        for _ in run:
            pass
        assert not [note for note in run.notes if "cannot be read" in note], run.notes
        check_runs(run)
        say(run.steps_done)
        for frame in run.learner.replay._frames:
            say(read(frame)[0])

    return killed(ends).acknowledged


def kill_again_and_again(folder: Path, body: type[RobotInterface], kills: int, seed: int) -> dict[int, int]:
    """{step: its frame's count} of every step that a life acknowledged, over so many deaths of it."""
    told: dict[int, int] = {}
    for number, instant in enumerate(random_instants(kills, 0.3, seed)):

        def lives(say, instant=instant, begins=number % 3 == 0) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which kills, at any instant; begun here, since a busy machine starts slowly
            if begins:
                signal.setitimer(signal.ITIMER_REAL, instant)
            for event in life_of(body(), folder, None):
                if not begins and not signal.getitimer(signal.ITIMER_REAL)[0]:
                    signal.setitimer(signal.ITIMER_REAL, instant)
                if isinstance(event, Step):
                    say(event.index)
                    say(read(event.observation.image)[0])

        said = killed(lives).acknowledged
        for index, count in zip(said[::2], said[1::2], strict=False):
            assert told.setdefault(index, count) == count, f"step {index} was acknowledged twice, as two different ones"
    return told


@pytest.mark.parametrize("body", [Counting, Real])
def test_no_acknowledged_step_is_lost_however_often_it_is_killed(body, folder, kills=8):
    told = kill_again_and_again(folder, body, kills, seed=6)
    assert len(told) > 2
    recorded: dict[int, int] = {}
    done, *learned = counts_learned(folder, body)
    assert done > max(told)
    for path in sorted((folder / "sessions").glob("session_*")):
        reader = RecordingReader(path)
        assert not reader.damaged()
        recorded |= {event.index: read(event.observation.image)[0] for event in reader.events() if isinstance(event, Step)}
    assert sorted(recorded) == list(range(done)), "steps are counted on"
    assert not {(index, count) for index, count in told.items() if recorded.get(index) != count}, "every acknowledged step is recorded"
    assert set(told.values()) <= set(learned), "and is learned from"
    if body is Counting:
        assert learned == sorted(learned), "once each, in order"
    follows(folder / "sessions")


def check_runs(run: Run) -> None:
    """No run in replay crosses what did not happen in a row."""
    replay = run.learner.replay
    for i in range(1, len(replay)):
        if replay._runs[i] > 1:
            (count, _), (then, last) = read(replay._frames[i - 1]), read(replay._frames[i])
            led = replay._led[i]
            assert led is not None and then - count == last == run.action_space.decode(led)["add"]


def test_leaving_out_what_was_recorded_since_is_noticed(folder):
    """In a simulated world it would only be lived again."""

    def lives(say) -> None:
        for event in life_of(Real(), folder, None):
            if isinstance(event, Step):
                say(read(event.observation.image)[0])
                if event.index == 13:
                    os.kill(os.getpid(), signal.SIGKILL)

    told = killed(lives).acknowledged
    shutil.copytree(folder, folder / "again", ignore=lambda place, names: {"again"} & set(names))
    assert not set(told) <= set(counts_learned(folder / "again", Real, leave_out="what was recorded since")[1:])
    assert set(told) <= set(counts_learned(folder, Real)[1:])


@pytest.mark.parametrize("damage", [False, True])
def test_nothing_joins_where_a_real_robot_moved_on(damage, folder):
    """Also when the generation that was saved at its return is damaged, so that the sessions alone tell."""

    def first(say) -> None:
        for event in life_of(Real(), folder, None):
            if isinstance(event, Step) and event.index == 10:
                os.kill(os.getpid(), signal.SIGKILL)

    def second(say) -> None:
        life = life_of(Real(), folder, None)
        for event in life:
            if isinstance(event, Step):
                say(event.index)
            if isinstance(event, Step) and not life.catching_up and event.index >= 12:
                check_runs(life)
                os.kill(os.getpid(), signal.SIGKILL)

    def third(say) -> None:
        run = life_of(Real(), folder, 20)
        for event in run:
            if isinstance(event, Step):
                say(event.index)
        check_runs(run)
        starts = [i for i, length in enumerate(run.learner.replay._runs) if length == 1]
        say(1000 + len(starts))

    killed(first)
    said = killed(second).acknowledged
    if damage:
        flip_newest(folder / "checkpoint")
    *after, starts = killed(third).acknowledged
    assert said[-1] == 12 and after[-1] >= 19 and starts == 1003, "three presences of the robot are three runs"
    follows(folder / "sessions")


def test_damage_behind_the_generation_breaks_the_run(folder):
    """The first moment recorded after it is lost: what comes behind that did not follow from what was remembered."""

    def first(say) -> None:
        for event in life_of(Counting(), folder, None):
            if isinstance(event, Step) and event.index == 14:
                os.kill(os.getpid(), signal.SIGKILL)

    def second(say) -> None:
        run = life_of(Counting(), folder, 20)
        for _ in run:
            pass
        check_runs(run)
        say(len(run.learner.replay))

    killed(first)
    loaded = Checkpoints(folder / "checkpoint").load()
    assert loaded and 2 < loaded.state["trail"]["moments"] < 14
    session = next((folder / "sessions").glob("session_*"))
    lines = (session / "events_shard_000.jsonl").read_bytes().split(b"\n")
    lost = 1 + loaded.state["trail"]["moments"]  # behind the header
    lines[lost] = lines[lost].replace(b'"kind"', b'"kinD"')
    (session / "events_shard_000.jsonl").write_bytes(b"\n".join(lines))
    assert killed(second).acknowledged[0] >= 17


@pytest.mark.parametrize("record", [False, True])
def test_a_look_that_was_studied_but_not_acted_on_is_lived_anew(record, folder):
    run, studies = life_of(Counting(), folder, 30, record), 0
    for event in run:
        studies += isinstance(event, Study)
        if studies == 9:
            run.stop.set()
    assert studies == 9 and len(run.learner.replay) == run.steps_done + 1
    again = life_of(Counting(), folder, 30, record)
    for _ in again:
        pass
    assert len(again.learner.replay) == again.steps_done == 30
    check_runs(again)


# In full


@pytest.mark.soak
def test_ten_points_of_every_kind():
    found = resume_exactly(10 * len(KINDS), seed=7)
    assert found["exact"], found["different"][:20]


@pytest.mark.soak
@pytest.mark.parametrize("body", [Counting, Real])
def test_no_acknowledged_step_is_lost_in_200_deaths(body, folder):
    test_no_acknowledged_step_is_lost_however_often_it_is_killed(body, folder, kills=200)
