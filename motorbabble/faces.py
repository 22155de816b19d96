"""The mission's faces: for each world model a constructor and a few methods, thin over `learn`, whose loop is the only one."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from typing import Any, Self

import numpy as np

from motorbabble.agents import learn
from motorbabble.analysis.canvas import canvas_of, frames_on, predicted_canvas, reconstructed_canvas
from motorbabble.analysis.card import thinking
from motorbabble.display import DisplayConfig, shown
from motorbabble.errors import ActionError, ConfigurationError, Diverged, FrameError
from motorbabble.experience import Action, Choice, Event, Selector, Situation, Step, Study, Window, as_choice
from motorbabble.memory import MemoryConfig
from motorbabble.models.canvas import separator_color
from motorbabble.robots.interface import RobotInterface
from motorbabble.tracking import Tracking, TrackingConfig
from motorbabble.watching import tracked
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.canvas import CanvasWorldModel


class Face:
    """What both have in common. `action_selector` is any function of a Situation, or a name; further keywords as in `learn`.

    `model`: one to go on with, which is trained in place; a new one unless given.
    With a `checkpoint_dir` it is saved there now and then and whenever its loop ends, and resumed; every step is recorded in `session_dir`,
    or in the checkpoint's folder `sessions`. What a person should hear of that is printed.
    `wandb_project` names a project at Weights & Biases; `tracking` says how often what is logged, and where else.
    What it sees and imagines is drawn every `display_interval` steps (0: never), in a window or else in a file view.png; `interactive`
    asks a person before every action, draws before each question, and ends the run when the answer is stop. `ask` is like `input`.
    """

    kind: str

    def __init__(
        self,
        robot_interface: RobotInterface,
        checkpoint_dir: Path | str | None = None,
        *,
        action_selector: str | Selector,
        session_dir: Path | str | None = None,
        seed: int = 0,
        model: WorldModel | None = None,
        wandb_project: str | None = None,
        tracking: TrackingConfig = TrackingConfig(),
        interactive: bool = False,
        display_interval: int = 0,
        ask: Callable[[str], str] = input,
        **settings: Any,
    ):
        self.robot, self.display = robot_interface, None
        if checkpoint_dir is not None:
            settings["memory"] = MemoryConfig(Path(checkpoint_dir), Path(session_dir or Path(checkpoint_dir) / "sessions"))
        elif session_dir is not None:
            settings["memory"] = MemoryConfig(session_dir=Path(session_dir))
        self.life = learn(robot_interface, model or self.kind, action_selector, None, seed, **settings)
        tracking = replace(tracking, wandb=wandb_project) if wandb_project is not None else tracking
        self.tracking = self._tracking(tracking, checkpoint_dir, {"seed": seed, "selector": str(action_selector)})
        view = Path(checkpoint_dir or Path("saved/cards") / robot_interface.robot_type / "main_loop") / "view.png"
        try:
            self.display = shown(self.life, view, DisplayConfig(interactive, display_interval != 0, display_interval or 10), ask)
        except BaseException:
            self.close()
            raise

    @property
    def world_model(self) -> WorldModel:
        return self.life.world_model

    def close(self) -> None:
        """Save, close the session and end the trackers; after that it lives no further. The robot is left to whoever made it."""
        self.life.close()
        self.tracking.close()
        if self.display:
            self.display.close()
        self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _live(self, steps: int | None, on_event: Callable[[Event], None], stop: Flag | None = None) -> None:
        """So many steps more, or until the life ends or `stop` is set. Whatever goes wrong, the robot stops before anything else is done."""
        target = None if steps is None else self.life.steps_done + steps
        try:
            for event in self.life:
                self.tracking(event, relived=self.life.catching_up)
                self._say()
                on_event(event)
                if self.display and not self.life.catching_up:
                    self.display(event, self.life.situation)
                if (stop and stop.is_set()) or (isinstance(event, Step) and target is not None and event.index + 1 >= target):
                    return
        except BaseException:
            self.robot.stop()
            raise
        finally:
            self.life.save()
            self.tracking.flush()
            self._say()

    def _tracking(self, config: TrackingConfig, checkpoint_dir: Path | str | None, settings: dict[str, Any]) -> Tracking:
        """Metrics go where it is saved; where it is not, nothing is written unless somebody else is told."""
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        if folder is None and (config.wandb or config.rerun):
            folder = Path("saved/cards") / self.robot.robot_type / "main_loop"
        try:
            return tracked(self.life, folder, config, **settings)
        except BaseException:
            self.life.close()
            raise

    def _say(self) -> None:
        for notes in (self.life.notes, self.tracking.notes):
            while notes:
                print(notes.pop(0))


class AutoencoderLatentPredictorWorldModel(Face):
    """The mission's face of the latent world model: give it a robot, call `main_loop`. Curiosity selects unless told otherwise."""

    kind = "latent"

    def __init__(
        self,
        robot_interface: RobotInterface,
        checkpoint_dir: Path | str | None = None,
        *,
        action_selector: str | Selector = "uncertainty",
        **more: Any,
    ):
        super().__init__(robot_interface, checkpoint_dir, action_selector=action_selector, **more)

    def main_loop(self, max_steps: int | None = None, on_event: Callable[[Event], None] | None = None) -> None:
        """Look, learn, choose, act; until `max_steps`, the end of a recording, or Ctrl+C. Called again, life goes on."""
        if max_steps is not None and max_steps < 1:
            raise ConfigurationError(f"max_steps is {max_steps}; give a positive number of steps, or None for no limit")
        self._live(max_steps, on_event or (lambda event: None))


LOSSES = 100_000  # of the newest gradient steps that are kept


class AutoencoderConcatPredictorWorldModel(Face):
    """The mission's face of the canvas world model: give it a robot, call `run`. Actions are random unless told otherwise.

    For every observation: get the frame, compare the last prediction with it, train on the canvas until it is good enough or the gate's
    updates are spent (`reconstruction_skill`, `max_updates`), select, predict what that action will show, execute it.
    `training_callback(iteration, loss)` hears of every gradient step; a loss is the squared error of what was hidden, 1 where it is no
    better than showing the mean frame. State for pictures, None as long as there is none:
    """

    kind = "canvas"
    prediction_canvas: np.ndarray | None  # (H, W, 3) uint8, with the predicted frame in its newest slot
    predicted_frame: np.ndarray | None  # (h, w, 3) uint8
    prediction_error: float | None  # of the last prediction against the frame that came: mean squared, of full brightness
    loss_history: deque[float]  # one of every gradient step, the newest last

    def __init__(
        self,
        robot_interface: RobotInterface,
        action_selector: str | Selector | None = None,
        device: str | None = None,
        training_callback: Callable[[int, float], Any] | None = None,
        checkpoint_dir: Path | str | None = None,
        **more: Any,
    ):
        super().__init__(robot_interface, checkpoint_dir, action_selector=action_selector or "random", device=device or "auto", **more)
        self.training_callback = training_callback
        self.life.select = _Foreseeing(self.life.select, self._foresee)
        self._clear()

    def run(self, max_iterations: int | None = None, on_event: Callable[[Event], None] | None = None, stop: Flag | None = None) -> None:
        """So many robot steps, or until a recording ends; or until the event at which `stop` is set, looked at after every gradient step.

        Called again, life goes on; the robot is not cleaned up in between.
        """
        if max_iterations is not None and max_iterations < 1:
            raise ConfigurationError(f"max_iterations is {max_iterations}; give a positive number of robot steps, or None for no limit")

        def hear(event: Event) -> None:
            if isinstance(event, Study):
                self._studied(event)
            if on_event:
                on_event(event)

        self._live(max_iterations, hear, stop)

    @property
    def training_canvas(self) -> np.ndarray | None:
        """The newest canvas (H, W, 3) uint8 that it learned from whole; training moves it at random, and hides what is to be painted."""
        return None if self._learned is None else canvas_of(self._model, self._learned)

    @property
    def training_actions(self) -> np.ndarray | None:
        """The encoded actions (bars, C) that its bars were made from."""
        return None if self._learned is None else self._learned.actions

    @property
    def reconstruction(self) -> np.ndarray | None:
        """That canvas as the model sees it now: earlier frames decoded, the newest one painted from them."""
        updates = self.life.learner.updates
        if self._learned is not None and (self._seen is None or self._seen[0] != updates):
            with thinking(self._model):
                self._seen = updates, reconstructed_canvas(self._model, self._learned)
        return None if self._seen is None else self._seen[1]

    def train_autoencoder(self, canvas: np.ndarray, actions: Sequence[Action | np.ndarray] | None = None) -> float:
        """One gradient step on a canvas (H, W, 3) uint8 as `build_canvas` makes it; returns the loss.

        `actions`: those the bars were made from, plain or encoded; those of `training_canvas` unless given.
        """
        frames, space = frames_on(self._model, canvas), self.life.action_space
        if actions is None and self._learned is None:
            raise ActionError("nothing was learned from yet, so the bars' actions are unknown; give actions, one for each bar")
        given = self._learned.actions if actions is None and self._learned is not None else actions or ()
        led = np.array([space.encode(action) if isinstance(action, Mapping) else action for action in given], np.float32)
        if led.shape != (len(frames) - 1, space.size):
            raise ActionError(f"a canvas of {len(frames)} frames has {len(frames) - 1} bars of {space.size} numbers each, not {led.shape}")
        height, width, bar = *self._model.image_shape, self._model.config.separator_width
        shown = [canvas[height // 2, slot * (width + bar) - 1] for slot in range(1, len(frames))]
        if any((color != separator_color(action)).any() for color, action in zip(shown, led, strict=True)):
            raise ActionError("the bars on this canvas have other colours than these actions give; give the actions that it was built from")
        learner = self.life.learner
        losses = learner.update([Window(frames, led)], background=None if len(learner.replay) else frames.mean(0))
        self._heard(losses["reconstruction"])
        if not np.isfinite(losses["total"]):
            self.robot.stop()
            raise Diverged(f"learning diverged at update {learner.updates}: the loss is not finite; lower the learning rate, or check the canvas")
        return losses["reconstruction"]

    def predict_next_frame(self, action: Action) -> np.ndarray:
        """(h, w, 3) uint8: what the action would show after the newest frame. FrameError while too little was lived to fill a canvas."""
        code, window = self.life.action_space.encode(action), self.life.window
        if len(window) < self._model.history:
            raise FrameError(
                f"{len(window)} of the {self._model.history} frames that a prediction needs were seen in this episode; run some more steps first"
            )
        self._predict(window, code)
        assert self.predicted_frame is not None
        return self.predicted_frame

    def reset_state(self) -> None:
        """Forget the canvases, the errors and the newest frames; what was learned stays. The next frame seen begins a history."""
        self.life.forget()
        self._clear()

    # Parts

    @property
    def _model(self) -> CanvasWorldModel:
        model = self.life.world_model
        assert isinstance(model, CanvasWorldModel)
        return model

    def _clear(self) -> None:
        self.prediction_canvas, self.predicted_frame, self.prediction_error = None, None, None
        self.loss_history = deque(maxlen=LOSSES)
        self._learned: Window | None = None  # the training canvas, before it was built
        self._seen: tuple[int, np.ndarray] | None = None  # its reconstruction after so many updates
        self._due: tuple[tuple[int, int], np.ndarray] | None = None  # the step and episode a frame was predicted for
        self._compared: tuple[int, int] | None = None

    def _studied(self, event: Study) -> None:
        self._compare(self.life.situation)  # made before this gradient step
        newest = self.life.learner.replay.newest(self._model.history + 1)
        if newest is not None and len(newest) > self._model.history:
            self._learned = newest
        self._heard(event.losses["reconstruction"])

    def _heard(self, loss: float) -> None:
        self.loss_history.append(loss)
        if self.training_callback:
            self.training_callback(self.life.learner.updates, loss)

    def _compare(self, situation: Situation) -> None:
        """The prediction that was made for this moment with the frame that came, once."""
        here = (situation.step, situation.episode)
        if here == self._compared:
            return
        self._compared, self.prediction_error = here, None
        if self._due is not None and self._due[0] == here:
            came = self._model.at_the_door(situation.window.images[-1])
            self.prediction_error = float(np.square((self._due[1].astype(float) - came) / 255).mean())

    def _foresee(self, situation: Situation, action: Action) -> None:
        self._compare(situation)  # where nothing could be learned before
        self._due = self.prediction_canvas = self.predicted_frame = None
        if len(situation.window) >= self._model.history:
            self._due = (situation.step + 1, situation.episode), self._predict(situation.window, situation.action_space.encode(action))

    def _predict(self, window: Window, action: np.ndarray) -> np.ndarray:
        with thinking(self._model):
            self.prediction_canvas, self.predicted_frame = predicted_canvas(self._model, window, action)
        return self.predicted_frame


class _Foreseeing:
    """A selector whose choice is predicted before it is executed."""

    def __init__(self, select: Selector, foresee: Callable[[Situation, Action], None]):
        self.select, self.foresee = select, foresee

    def __call__(self, situation: Situation) -> Choice:
        choice = as_choice(self.select(situation), situation.action_space)
        self.foresee(situation, choice.action)
        return choice

    def observe(self, step: Step) -> None:
        if observe := getattr(self.select, "observe", None):
            observe(step)
