"""Fleet: several robots live, one learner learns from all of them, and whoever is killed is replaced.

    for beat in Fleet("toroidal_dot_latent", robots=4): ...

Decisions: a step counts when its robot's beat was heard here, and it was on disk before. A robot whose actor is killed goes on in another one, in
a new session; one that fails by itself (a RobotError) leaves the others alone. The learner's actor is begun anew by Ray, from its checkpoint.
Where nobody lives any more, or the learner failed, the fleet ends with that error.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Event as Flag
from typing import Any, Self

import torch

from motorbabble.errors import ConfigurationError, LearningError, MotorbabbleError, RobotError
from motorbabble.exchange.extras import extra
from motorbabble.experience import Observation
from motorbabble.fleet.body import Beat, Body, Place
from motorbabble.fleet.cluster import cluster
from motorbabble.fleet.pupil import SILENT
from motorbabble.fleet.teacher import Course, Mind, Teacher
from motorbabble.learning.beside import as_error
from motorbabble.learning.checkpoint import Checkpoints, put_aside
from motorbabble.recipes import RECIPES, LearningRecipe, RobotConfig
from motorbabble.recording.format import check_name
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.kinds import CLASSES

BEAT = 0.5  # seconds that a robot lives before it is heard of again
IN_VAIN = 3  # actors of one robot that may be killed in a row without a step in between


@dataclass
class _Robot:
    """One robot, as it is known here."""

    place: Place
    actor: Any = None
    lives: int = 0  # actors it has had
    in_vain: int = 0
    beat: Beat | None = None  # the newest that was heard of
    why: str = ""  # it lives no more


class Fleet:
    """Iterate it for its Beats; a closed one says in `result` what became of it. `recipe`: a name, or a recipe of yours.

    `robots`: how many, all as the recipe's; or the configuration of each. `holds_out` keeps moments out of everything learned from, and must be
    a function of the Observation alone. `address`: of a Ray cluster that is there already; its machines must reach the recipe's folders.
    `devices`: of one machine, that the learner spreads each batch over; where there are no GPUs, processes on its cores. `settings` are those of
    the model and the learner, as `learn` takes them. `stop` ends it at the next beat.
    """

    def __init__(
        self,
        recipe: str | LearningRecipe,
        robots: int | Sequence[RobotConfig] = 4,
        *,
        name: str = "",
        stop: Flag | None = None,
        holds_out: Callable[[Observation], bool] | None = None,
        address: str | None = None,
        cpus: int | None = None,
        devices: int = 1,
        **settings: Any,
    ):
        found = RECIPES.get(recipe) if isinstance(recipe, str) else recipe
        if not isinstance(found, LearningRecipe):
            learning = [name for name, one in RECIPES.items() if isinstance(one, LearningRecipe)]
            raise ConfigurationError(f"{recipe!r} is no recipe of one that learns; choose one of {', '.join(learning)}")
        configs = [found.robot] * robots if isinstance(robots, int) else list(robots)
        if not configs or devices < 1:
            raise ConfigurationError(f"{len(configs)} robots and {devices} devices are no fleet; give at least 1 of each")
        if not found.record or found.keep.checkpoints is None:
            raise ConfigurationError("a fleet is kept alive by what it records and saves; leave record on, and give a folder for checkpoints")
        keep = replace(found.keep, sessions=found.keep.sessions.absolute(), checkpoints=found.keep.checkpoints.absolute())  # actors stand elsewhere
        self.recipe, self.configs = replace(found, keep=keep), configs
        self.name = check_name(name or found.name or f"{recipe if isinstance(recipe, str) else 'recipe'}-fleet")
        self.stop, self.holds_out, self.settings = stop or Flag(), holds_out, settings
        self.notes: list[str] = []  # sentences a person should hear
        self.robots: list[_Robot] = []
        self.folder: Path | None = None  # of the checkpoint, once it is known
        self.result: dict[str, Any] = {}
        self._address, self._cpus, self._devices = address, cpus, devices
        self._held, self._began = ExitStack(), time.monotonic()
        self.teacher: Any = None

    def __enter__(self) -> Self:
        """Start Ray, take hold of the robots, begin the learner. Whatever fails, all that was begun ends."""
        try:
            self._ray = self._held.enter_context(cluster(self._address, self._cpus))
            self._begin()
        except BaseException:
            for robot in self.robots:
                if robot.actor:
                    self._ray.kill(robot.actor)
            self._held.close()
            raise
        return self

    def __exit__(self, *exc_info) -> None:
        try:
            self.close()
        finally:
            self._held.close()

    def __iter__(self) -> Iterator[Beat]:
        if self.teacher is None:
            with self:
                yield from self
            return
        self._began = time.monotonic()
        self._pending = {robot.actor.live.remote(BEAT): robot for robot in self.robots}
        while self._pending and not self.stop.is_set() and (self.recipe.seconds is None or self.seconds < self.recipe.seconds):
            ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=BEAT)
            for answer in ready:
                robot = self._pending.pop(answer)
                beat = self._heard(robot, answer)
                if beat:
                    if not beat.over:
                        self._pending[robot.actor.live.remote(BEAT)] = robot
                    yield beat
        if self.robots and all(robot.why for robot in self.robots):
            raise RobotError(f"no robot of this fleet is left: {self.robots[-1].why}")

    @property
    def seconds(self) -> float:
        """Since the robots began to live."""
        return time.monotonic() - self._began

    def told(self) -> str:
        """All robots in a line: how many steps each has done, and how well it predicts."""
        heard = [robot.beat for robot in self.robots if robot.beat]
        each = ", ".join(f"{beat.steps} steps at skill {beat.skill:.2f}" for beat in heard)
        return f"{self.seconds:.0f} s, {max((beat.updates for beat in heard), default=0)} updates: {each}"

    def world_model(self) -> WorldModel:
        """A copy of what the learner knows by now."""
        weights, levels = self._of_the_teacher("taught")
        model = CLASSES[self._mind.kind].make(self._mind.image_shape, self._mind.action_size, self._mind.settings)
        for _ in range(levels - 1):
            model.grow(0)
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        return model.eval()

    def run(self) -> dict[str, Any]:
        """Live it to its end; answers `result`."""
        with self:
            for _ in self:
                pass
        return self.result

    def exam(self, steps: int, folder: Path) -> tuple[Path, list[str], dict[str, Any]]:
        """The lives are over; one of the robots does so many steps more, with random actions, that nobody learns from.

        Answers the page of the card in that folder, its sentences, and its scores.
        """
        self._rest(stop=self.stop.is_set())
        fit = next(robot for robot in self.robots if not robot.why)
        return self._asked(fit.actor.exam.remote(steps, folder))

    def close(self) -> None:
        """The robots first; then what was learned is saved. May be called twice."""
        if self.teacher is None:
            return
        self._rest(stop=True)
        for robot in self.robots:
            with suppress(self._ray.exceptions.RayError):  # one that was killed holds nothing
                self._ray.get(robot.actor.release.remote())
            self._ray.kill(robot.actor)
        failed = self._of_the_teacher("close")
        self._ray.kill(self.teacher)
        self.teacher = None
        if failed:
            raise as_error(*failed)

    # Parts

    def _begin(self) -> None:
        ray, recipe = self._ray, self.recipe
        self._body = ray.remote(num_cpus=0)(Body)
        for number, config in enumerate(self.configs):
            self.robots.append(_Robot(Place(self.name, recipe, number, config, self.settings, self.holds_out)))
        kinds = [self._asked(answer) for answer in [self._new_actor(robot).hold.remote(0) for robot in self.robots]]
        if len(set(kinds)) > 1:
            raise ConfigurationError(f"the robots are of several types, {' and '.join(sorted(set(kinds)))}; one learner takes one type")
        assert recipe.keep.checkpoints
        folder = self.folder = recipe.keep.checkpoints / kinds[0] / self.name
        if recipe.fresh and (aside := put_aside(folder)):
            self.notes.append(f"What was saved as {self.name} is now {aside}.")
        loaded = Checkpoints(folder).load()
        self.fleet = str(loaded.state.get("training", {}).get("fleet", "")) if loaded else token_hex(8)
        begun: list[tuple[int, Mind]] = [self._asked(answer) for answer in [robot.actor.begin.remote(self.fleet) for robot in self.robots]]
        self._until = recipe.steps * (1 + min(steps for steps, _ in begun) // recipe.steps)  # the same again finishes, or asks for as many more
        self._mind = begun[0][1]
        self.teacher = self._taught(self._mind, kinds[0])
        failed, notes = self._asked(self.teacher.begun.remote())
        if failed:
            raise as_error(*failed)
        self.notes += notes
        for robot in self.robots:
            self._asked(robot.actor.meet.remote(self.teacher, self._until))

    def _taught(self, mind: Mind, kind: str) -> Any:
        """The learner's actor, which Ray begins anew whenever it is killed."""
        assert self.folder
        recipe, gpus = self.recipe, self._gpus()
        course = Course(
            **vars(mind),
            seed=recipe.seed,
            robots=len(self.robots),
            fleet=self.fleet,
            folder=self.folder.absolute(),
            sessions=(recipe.keep.sessions / kind).absolute(),
            save_updates=recipe.keep.save_updates,
            save_seconds=recipe.keep.save_seconds,
            device="auto" if gpus else "cpu",
            devices=self._devices,
            threads=recipe.threads or max(1, ((os.cpu_count() or 1) - 1) // self._devices),
            holds_out=self.holds_out,
        )
        groups = {"news": len(self.robots) + 1}
        actor = self._ray.remote(num_cpus=0, num_gpus=gpus, max_restarts=-1, concurrency_groups=groups)(Teacher)
        return actor.remote(course, _was_killed, _shared, partial(os._exit, 1))

    def _gpus(self) -> int:
        """As many as the learner takes, all of one machine; 0 where there are none, or none are wanted."""
        most = max((int(node["Resources"].get("GPU", 0)) for node in self._ray.nodes() if node["Alive"]), default=0)
        if not most or self.recipe.device == "cpu":
            return 0
        if most < self._devices:
            raise ConfigurationError(f"no machine of this cluster has {self._devices} GPUs, one has {most}; give as many devices, or device cpu")
        return self._devices

    def _new_actor(self, robot: _Robot) -> Any:
        robot.actor, robot.lives = self._body.remote(robot.place), robot.lives + 1
        return robot.actor

    def _heard(self, robot: _Robot, answer: Any) -> Beat | None:
        """What it says; None where it was killed, and another one begins, or where it failed."""
        try:
            beat = self._asked(answer)
        except RobotError as error:
            robot.why = str(error)
            self.notes.append(f"Robot {robot.place.robot} lives no more: {error}.")
            return None
        except self._ray.exceptions.RayActorError:
            self._replace(robot)
            return None
        if robot.beat is None or beat.steps > robot.beat.steps:
            robot.in_vain = 0
        robot.beat = beat
        self.notes += beat.notes
        return beat

    def _replace(self, robot: _Robot) -> None:
        """Another actor; nobody waits for it."""
        robot.in_vain += 1
        if robot.in_vain >= IN_VAIN:
            raise RobotError(f"the actor of robot {robot.place.robot} was killed {robot.in_vain} times without a step; look at its machine")
        begins = self._new_actor(robot).again.remote(robot.lives - 1, self.fleet, self.teacher, self._until)
        self._pending[begins] = robot
        self.notes.append(f"The actor of robot {robot.place.robot} was killed; another one goes on where its recordings end.")

    def _rest(self, stop: bool) -> None:
        """The robots stop, and what they lived is closed."""
        if self.result:
            return
        seconds = self.seconds
        for answer, robot in [(robot.actor.close.remote(stop), robot) for robot in self.robots]:  # all at once; each ends its beat first
            try:
                robot.beat = self._asked(answer)
            except self._ray.exceptions.RayActorError:
                robot.why = robot.why or "its actor was killed"
        heard = [robot.beat for robot in self.robots if robot.beat]
        facts = self._of_the_teacher("facts")
        self.result = {
            "fleet": self.name,
            "seconds": seconds,
            "steps": sum(beat.steps for beat in heard),
            "updates": facts["updates"],
            "samples": facts["samples"],
            "robots": [
                {"robot": robot.place.robot, "steps": beat.steps, "skill": beat.skill, "actors": robot.lives, "why": robot.why}
                for robot in self.robots
                if (beat := robot.beat)
            ],
        }

    def _of_the_teacher(self, method: str) -> Any:
        """What it answers, also where it was killed just now and begins anew."""
        late = time.monotonic() + SILENT
        while True:
            try:
                return self._asked(getattr(self.teacher, method).remote())
            except self._ray.exceptions.RayActorError as error:
                if time.monotonic() > late:
                    raise LearningError(
                        f"the learner of this fleet has not answered for {SILENT:g} s; look at its machine, then start again"
                    ) from error
                time.sleep(BEAT)

    def _asked(self, answer: Any) -> Any:
        """What an actor answers; what it raises, as it was raised there. RayActorError where the actor was killed."""
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MotorbabbleError):
                raise error.cause from error
            raise


def _was_killed() -> bool:
    """Asked in an actor: whether it is not the first of its kind."""
    return extra("ray", "fleet").get_runtime_context().was_current_actor_reconstructed


def _shared(weights: Any) -> Any:
    """One copy in each machine's shared memory, whoever asks."""
    return extra("ray", "fleet").put(weights)
