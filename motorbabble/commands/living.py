"""demo, run, replay: a life to watch. Ctrl+C stops at the next step, the robot first; what was lived is on disk."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any, Literal

from rich.console import Console
from rich.padding import Padding

from motorbabble import __version__
from motorbabble.agents import Run, learn
from motorbabble.analysis.card import Card
from motorbabble.birth import born
from motorbabble.commands.flags import parse, words_and_flags
from motorbabble.display import Display, shown
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Action, ActionSpace, Step, Study
from motorbabble.learning.checkpoint import newest_in, put_aside
from motorbabble.learning.gate import stale
from motorbabble.learning.learner import ONLINE, LearnerConfig
from motorbabble.learning.state import flat, model_from
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.recipes import RECIPES, KeepConfig, LearningRecipe, RunnerRecipe, Tracked, robot_from
from motorbabble.recording.shelf import find_sessions
from motorbabble.robots.bodies import BodiesConfig
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.recording_robot import RecordingRobot
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector
from motorbabble.robots.webcam import WebcamRobot
from motorbabble.runner import RobotRunner
from motorbabble.selectors import RandomSelector
from motorbabble.tracking import Terminal, Tracking, TrackingConfig
from motorbabble.watching import tracked


@dataclass(frozen=True)
class Demo:
    """A simulated robot learns, from nothing, what its own movements do, while you watch."""

    world: Literal["dot", "bodies"] = "dot"  # a dot on a ring, or bodies with textures and a distractor
    seed: int = 0  # another seed, another life (and, for bodies, another world)
    steps: int = 300  # of the robot, at most
    seconds: float = 60.0  # of learning, at most
    exam_steps: int = 100  # lived afterwards without learning, for the card
    out: Path = Path("saved/cards")  # where the card goes


@dataclass(frozen=True)
class Replay:
    """Live through recorded sessions with the same loop, and learn from them."""

    filter: str = ""  # learn only from this action: its label, or channel=value; empty: from all
    loop: bool = False  # begin again after the last session, until learning stands still or Ctrl+C
    patience: int = 3  # rounds of a loop that bring nothing before it ends; 0: only Ctrl+C ends it
    name: str = ""  # of the checkpoint to go on with; empty: the newest of this robot type
    fresh: bool = False  # begin anew; what was saved under this name is put aside, not deleted
    model: Literal["latent", "canvas"] = "latent"  # kind of a new model
    preset: Literal["tiny", "base", "large"] = "tiny"  # size of a new model
    learner: LearnerConfig = ONLINE
    keep: KeepConfig = field(default_factory=KeepConfig)
    seed: int = 0
    device: str = "auto"  # auto, cpu or cuda
    threads: int | None = None  # of the CPU; None: as torch finds it
    out: Path = Path("saved/cards")  # where the card and the metrics go, in a folder of their own
    track: Tracked = field(default_factory=TrackingConfig)


class Plateau:
    """Ends a looped replay when `patience` rounds brought no gain in skill: 1 - the model's error / copy-last's, over a round's predictions."""

    def __init__(self, robot: ReplayRobot, patience: int, stop: Event):
        self.robot, self.patience, self.stop = robot, patience, stop
        self.skills: list[float] = []
        self._round, self._error, self._copy = 1, 0.0, 0.0

    def __call__(self, event: Any) -> None:
        if self.robot.rounds > self._round:
            self._round = self.robot.rounds
            if self._copy:
                self.skills.append(1 - self._error / self._copy)
            self._error = self._copy = 0.0
            if self.patience and stale(self.skills, 0.002) >= self.patience:
                self.stop.set()
        if isinstance(event, Study):
            self._error += event.losses.get("fresh_error", 0.0)
            self._copy += event.losses.get("fresh_copy_error", 0.0)


def demo(arguments: Sequence[str]) -> None:
    chosen: Demo = parse(Demo(), arguments, "babble demo")
    recipe = RECIPES["toroidal_dot_latent" if chosen.world == "dot" else "bodies_latent"]
    assert isinstance(recipe, LearningRecipe)
    settings: dict[str, Any] = {name: getattr(chosen, name) for name in ("seed", "steps", "seconds", "exam_steps", "out")}
    if chosen.world == "bodies":
        settings["robot"] = BodiesConfig(seed=chosen.seed)
    _learn(f"{chosen.world}-demo", replace(recipe, **settings), keeps=False)  # from nothing, each time


def run(name: str, flags: Sequence[str]) -> None:
    recipe = parse(RECIPES[name], flags, f"babble run {name}")
    if isinstance(recipe, LearningRecipe):
        _learn(name, recipe)
    else:
        _act(name, recipe)


def replay(arguments: Sequence[str]) -> None:
    sessions, flags = words_and_flags(arguments)
    chosen: Replay = parse(Replay(), flags, "babble replay SESSION...")
    if not sessions:
        raise ConfigurationError("no session was named; give names, paths, latest, all or ROBOT/all (babble sessions list shows them)")
    folders = find_sessions(sessions, chosen.keep.sessions)
    robot = ReplayRobot(*folders, loop=chosen.loop)
    robot = ReplayRobot(*robot.sessions, loop=chosen.loop, action_filter=_filter(chosen.filter, robot.action_space))
    if not robot.left():
        raise ConfigurationError(
            f"these sessions hold no moment to replay{' with --filter ' + chosen.filter if chosen.filter else ''}; choose others"
        )
    name = chosen.name or newest_in((chosen.keep.checkpoints or Path("saved/checkpoints")) / robot.robot_type) or "replay"
    memory = chosen.keep.memory(robot.robot_type, name, record=False)
    console = Console()
    with _stopping() as (stop, interrupted), robot:
        _put_aside(memory, chosen.fresh, console)
        run = learn(
            robot,
            model_from(memory.checkpoint_dir, robot.robot_type, robot.action_space) or chosen.model,
            create_recorded_action_selector(robot),
            steps=None,
            seed=chosen.seed,
            preset=chosen.preset,
            device=chosen.device,
            threads=chosen.threads,
            learner=chosen.learner,
            stop=stop,
            memory=memory,
            about={"recipe": "replay", "version": __version__},
        )
        folder = chosen.out / robot.robot_type / name
        moments = None if chosen.loop else run.steps_done + robot.left()
        known = chosen.loop or run.has_learned_from(session.name for session in robot.sessions)
        plateau = Plateau(robot, chosen.patience, stop)
        tracking = tracked(run, folder, chosen.track, name, seed=chosen.seed, sessions=", ".join(sessions))
        _watch(run, f"replay into {name}", tracking, console, memory, steps=moments, also=plateau)
        if plateau.skills and stop.is_set() and not interrupted:
            rounds = "a further round" if chosen.patience == 1 else f"{chosen.patience} further rounds"
            console.print(f"Learning stands still: {rounds} brought nothing more; the skill is {plateau.skills[-1]:.3f}.", highlight=False)
        if robot.skipped:
            console.print(f"{robot.skipped} moments were damaged and left out.", highlight=False)
        if interrupted:
            _rest(run, memory, console, interrupted)
        if known:
            console.print("There is no card: it had learned from these moments before, so nothing was held out; replay other sessions for one.")
            return
        try:
            card = run.card(name=name)
        except ConfigurationError as few:
            console.print(f"There is no card: {few}.", highlight=False)
        else:
            _show(card, folder, console)


def _learn(name: str, recipe: LearningRecipe, keeps: bool = True) -> None:
    """Live with a panel to watch, then a card. After Ctrl+C no exam is lived, since that would move the robot again."""
    console = Console()
    with _stopping() as (stop, interrupted), robot_from(recipe.robot, recipe.seed) as robot:
        memory = recipe.keep.memory(robot.robot_type, recipe.name or name, recipe.record) if keeps else None
        asks = _asks_a_person(robot, stop)
        _put_aside(memory, recipe.fresh, console)
        # The exam below is lived afterwards, so nothing need be kept back.
        run = born(name, recipe, robot, memory, stop, holds_out=lambda observation: False)
        folder = recipe.out / robot.robot_type / f"{recipe.name or name}-seed{recipe.seed}"
        settings = {"seed": recipe.seed, "selector": recipe.selector, **flat(recipe.robot, "robot.")}
        tracking = tracked(run, folder, recipe.track, name, **settings)
        with shown(run, folder / "view.png", recipe.show, _ask, lambda text: console.print(text, highlight=False, markup=False)) as display:
            _watch(run, name, tracking, console, memory, steps=run.until, seconds=recipe.seconds, display=display, asks=asks)
        if stop.is_set():
            _rest(run, memory, console, interrupted)
        console.print(f"Now {recipe.exam_steps} steps it will not learn from, with random actions ...", highlight=False)
        exam: list[Step] = []
        for event in live(robot, RandomSelector(recipe.seed + 1), steps=recipe.exam_steps, stop=stop):
            exam += [event] if isinstance(event, Step) else []
            run.heed(event)
        _say(run.notes, console)
        if stop.is_set():
            _rest(run, memory, console, interrupted)
        _show(run.card(exam, name=name), folder, console)


def _act(name: str, recipe: RunnerRecipe) -> None:
    robot: RobotInterface = robot_from(recipe.robot, recipe.seed)
    if recipe.record:
        robot = RecordingRobot(robot, recipe.sessions, quota=recipe.max_disk_gb * 1e9, about={"recipe": name})
    with _stopping() as (stop, interrupted), robot:
        view = recipe.out / robot.robot_type / name / "view.png"
        interval = recipe.display_interval if recipe.display else 0
        runner = RobotRunner(robot, recipe.selector(), recipe.interactive, interval, recipe.action_delay, view=view, ask=_ask, bounds=recipe.bounds)
        for key, value in runner.run(recipe.steps, stop).items():
            print(f"  {key:32}{value:.6g}")
        if isinstance(robot, RecordingRobot):
            print(f"  recorded in {robot.session}")
    if interrupted:
        raise SystemExit(128 + interrupted[0])


# Parts


def _watch(
    run: Run,
    title: str,
    tracking: Tracking,
    console: Console,
    memory: MemoryConfig | None,
    steps: int | None,
    seconds: float | None = None,
    also: Callable[[Any], None] = lambda event: None,
    display: Display | None = None,
    asks: bool = False,
) -> None:
    """Live it to its end, with a panel, or lines where a person is asked (`asks`: by the robot). `also` hears of every event."""
    console.print(run.robot.describe(), highlight=False)
    sent = " but for metrics and pictures, which go to W&B where it is online" if tracking.config.wandb else ""
    console.print(f"{_what_is_kept(run, memory)} All of it stays on this machine{sent}.", highlight=False)
    panel = not (asks or (display and display.config.interactive))  # it would be drawn over the question
    with tracking, run, Terminal(title, run.action_space, steps, seconds, console, panel) as terminal:
        _say(run.notes, console)
        for event in run:
            tracking(event, relived=run.catching_up)
            terminal(event, run.progress.skill)
            also(event)
            if display and not run.catching_up:
                display(event, run.situation)
            _say(run.notes, console)
            _say(tracking.notes, console)
    _say(tracking.notes, console)


def _what_is_kept(run: Run, memory: MemoryConfig | None) -> str:
    if memory is None:
        return "It starts from random weights; what it sees and does is not recorded."
    start = "" if run.resumed else "It starts from random weights. "
    recorded = f"Every step is recorded in {memory.session_dir}; " if memory.record else ""
    saved = f"what it learns is saved in {memory.checkpoint_dir}" if memory.checkpoint_dir else "what it learns is not saved"
    said = recorded + saved
    return f"{start}{said[0].upper()}{said[1:]}."


def _say(notes: list[str], console: Console) -> None:
    while notes:
        console.print(notes.pop(0), highlight=False, markup=False, emoji=False, soft_wrap=True)  # a command in it can be copied


def _rest(run: Run, memory: MemoryConfig | None, console: Console, interrupted: Sequence[int]) -> None:
    """The end after Ctrl+C, or after a bound or somebody who was asked said stop, which is no failure."""
    kept = f" It is saved in {memory.checkpoint_dir}; the same command goes on from here." if memory and memory.checkpoint_dir else ""
    console.print(f"The robot is at rest after {run.steps_done} steps.{kept}", highlight=False)
    raise SystemExit(128 + interrupted[0] if interrupted else 0)


def _show(card: Card, folder: Path, console: Console) -> None:
    page = card.save(folder)
    console.print()
    for sentence in card.sentences():
        console.print(Padding(sentence, (0, 2)), highlight=False)
    console.print(f"\nOpen {page} to see what it imagines.", highlight=False)


def _put_aside(memory: MemoryConfig | None, fresh: bool, console: Console) -> None:
    if fresh and memory and memory.checkpoint_dir and (aside := put_aside(memory.checkpoint_dir)):
        console.print(f"What was saved as {memory.checkpoint_dir.name} is now {aside}.", highlight=False)


def _filter(text: str, space: ActionSpace) -> Any:
    """Which executed actions are meant: a label, or channel=value, several with commas between."""
    if not text:
        return None
    known = {space.label(action): dict(action) for action in space.actions or ()}
    if text in known:
        return lambda action: dict(action) == known[text]
    try:
        wanted = {name.strip(): float(value) for name, value in (pair.split("=") for pair in text.split(","))}
    except ValueError:
        wanted = {}
    if not wanted or not set(wanted) <= {channel.name for channel in space.channels}:
        raise ConfigurationError(f"--filter {text!r} is no action of {space}; give {' or '.join(known) or 'channel=value'}, or channel=value")

    def accepts(action: Action) -> bool:
        return all(action[name] == value for name, value in wanted.items())

    return accepts


def _ask(question: str) -> str:
    """`input`, but Ctrl+C or a polite kill ends the question at once: it is heard by whoever heard it before, and there is no answer."""
    if current_thread() is not main_thread():
        return input(question)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def at_signal(number: int, frame: Any) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        if callable(heard := before[number]):
            heard(number, frame)
        raise EOFError

    for number in before:
        signal.signal(number, at_signal)
    try:
        return input(question)
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is at_signal:
                signal.signal(number, handler)


def _asks_a_person(robot: RobotInterface, stop: Event) -> bool:
    """Whether a person does the robot's actions. If so it asks as `_ask` does, and whoever answers stop, or nothing any more, ends the life."""
    if not isinstance(robot, WebcamRobot) or robot.board:
        return False

    def ask(question: str) -> str:
        try:
            answer = _ask(question)
        except EOFError:
            answer = "stop"
        if answer.strip().lower() == "stop":
            stop.set()
        return answer

    robot.ask = ask
    return True


@contextmanager
def _stopping() -> Iterator[tuple[Event, list[int]]]:
    """A flag that the first Ctrl+C (or a polite kill) sets, and which signal it was; the second one breaks off at once."""
    stop, interrupted = Event(), []

    def at_signal(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        interrupted.append(number)
        stop.set()

    before = {}
    if current_thread() is main_thread():
        before = {number: signal.signal(number, at_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
