"""World models that know a world exactly, because they ask it: what planning and dreaming can be held to."""

import threading

import numpy as np
import torch

from motorbabble.errors import RobotError
from motorbabble.experience import Action, ActionSpace, Channel, Observation, Window
from motorbabble.robots.dot_2d import Dot2dRobot
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.world_models.base import Batch, Imagination, WorldModel

SIZE = 32  # pixels, of every world here


class Glider(RobotInterface):
    """A dot that goes up to 4 pixels each way, as its box of ranges says, and stops at the edges."""

    robot_type = "glider"

    def __init__(self):
        self.x, self.y = SIZE // 2, SIZE // 2
        self._space = ActionSpace.box([Channel("right", -4, 4, "px"), Channel("down", -4, 4, "px")], rest={"right": 0, "down": 0})
        self._stopped = threading.Event()

    @property
    def action_space(self) -> ActionSpace:
        return self._space

    def picture(self) -> np.ndarray:
        rows, columns = np.mgrid[:SIZE, :SIZE]
        disc = np.clip(3.5 - np.hypot(columns - self.x, rows - self.y), 0, 1)  # soft, so that it can be between pixels
        return np.repeat((disc * 255).round().astype(np.uint8)[..., None], 3, 2)

    def get_observation(self) -> Observation:
        return Observation(self.picture())

    def execute_action(self, action: Action) -> Action:
        if self._stopped.is_set():
            raise RobotError("the glider was stopped; make a new one")
        action = self._space.check(action)
        self.place(self.x + action["right"], self.y + action["down"])
        return action

    def place(self, x: float, y: float) -> None:
        self.x, self.y = (float(np.clip(value, 4, SIZE - 5)) for value in (x, y))

    def locate(self, image: np.ndarray) -> np.ndarray:
        light = image[..., 0].astype(float)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        return np.array([[(light * columns).sum(), (light * rows).sum()]]) / light.sum()

    def cleanup(self) -> None:
        self._stopped.set()


class PerfectMind(WorldModel):
    """Imagines what a world of its own shows, put where the newest frame shows the dot. `asked`: the plans and level of every call."""

    def __init__(self, world: Dot2dRobot | ToroidalDotRobot | Glider, spans: tuple[int, ...] = (1,)):
        super().__init__()
        self.world, self.told_spans, self.asked = world, spans, []
        self.image_shape, self.action_size, self.history = (SIZE, SIZE), world.action_space.size, 2
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    @property
    def spans(self) -> tuple[int, ...]:
        return self.told_spans

    def reconstruct(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).movedim(-1, 1).float() / 255

    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        plans, span = self.check_plans(plans, self.spans[level]), self.spans[level]
        self.asked.append((plans, level))
        x, y = self.world.locate(window.images[-1])[0]
        if not isinstance(self.world, Glider):
            x, y = round(x), round(y)
        films = []
        for plan in plans:
            self.world.place(x, y)
            films.append([])
            for action in plan:
                self.world.execute_action(self.world.action_space.decode(action))
                films[-1].append(picture_of(self.world))
        images = torch.from_numpy(np.array(films)[:, span - 1 :: span]).movedim(-1, 2).float() / 255
        return Imagination(images, torch.zeros(images.shape[:2]))

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"total": self.nothing.sum()}


class Ignorant(PerfectMind):
    """Believes that nothing ever changes, as an untrained model does."""

    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        held = torch.from_numpy(window.images[-1]).movedim(-1, 0).float() / 255
        return Imagination(held.expand(*plans.shape[:2], -1, -1, -1), torch.zeros(plans.shape[:2]))


def dot_2d(seed: int = 0) -> Dot2dRobot:
    return Dot2dRobot(image_size=SIZE, dot_radius=2, move_pixels=5, seed=seed)


def ring(seed: int = 0) -> ToroidalDotRobot:
    return ToroidalDotRobot(image_size=SIZE, dot_radius=2, move_pixels=5, seed=seed)


def picture_of(robot: RobotInterface) -> np.ndarray:
    seen = robot.get_observation()
    return seen.image if isinstance(seen, Observation) else seen


def seen(robot: RobotInterface) -> Window:
    """All that it sees now, with nothing before it."""
    return Window(picture_of(robot)[None], np.zeros((0, robot.action_space.size), np.float32))
