"""The card: what a world model learned and what it did not, in numbers with floors, in sentences and in pictures.

`test` should be steps the model never learned from; the floors are made from `lived`, the stream it did learn from.
The sentences (verdict.py) and the page (page.py) are made from the numbers alone, so they never say more than card.json.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motorbabble.analysis.attention import Look, attention_numbers, look
from motorbabble.analysis.canvas import Canvases, canvases_of
from motorbabble.analysis.counterfactuals import counterfactual_numbers
from motorbabble.analysis.curiosity import uncertainty_numbers
from motorbabble.analysis.floors import Shift, floors_of, mean_frame
from motorbabble.analysis.levels import level_numbers
from motorbabble.analysis.page import Film, Scene, page
from motorbabble.analysis.scores import (
    BOX_CANDIDATES,
    Journey,
    Predict,
    Tally,
    Trial,
    above,
    candidates_of,
    effective_horizon,
    groups_of,
    horizon_curve,
    journeys_of,
    mse,
    nearest,
    predicted,
    skill,
    tally,
    trials_of,
)
from motorbabble.analysis.verdict import sentences_of
from motorbabble.errors import ConfigurationError
from motorbabble.experience import MOVED, ActionSpace, Step, Window
from motorbabble.figures import to_uint8
from motorbabble.robots.interface import KnowsItsObjects
from motorbabble.world_models.base import WorldModel

FORMAT = 1
_PICTURES = 64  # imagined in one call; more would only cost memory
_FRAMES = 64  # looked at for the reconstruction skill
_SCENES = 6
_LOOKS = 2


@dataclass(frozen=True)
class Card:
    name: str
    numbers: Mapping[str, Any]  # what to_json returns; docs/card.md explains every one
    scenes: Sequence[Scene] = ()
    films: Sequence[Film] = ()
    looks: Sequence[Look] = ()
    canvases: Sequence[Canvases] = ()

    @property
    def model(self) -> Mapping[str, Any]:
        """The model's own scores: `card.model["skill_moved"]`."""
        return self.numbers["scores"]["model"]

    def to_json(self) -> dict:
        return dict(self.numbers)

    def sentences(self) -> list[str]:
        return sentences_of(self.numbers)

    def to_html(self) -> str:
        return page(self.name, self.numbers, self.sentences(), self.scenes, self.films, self.looks, self.canvases)

    def save(self, folder: str | Path) -> Path:
        """Write card.json and card.html there, each whole or not at all; returns the page's path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "card.json", json.dumps(self.to_json(), indent=1, allow_nan=False))
        _write(folder / "card.html", self.to_html())
        return folder / "card.html"


def make_card(
    world_model: WorldModel,
    action_space: ActionSpace,
    lived: Sequence[Step],
    test: Sequence[Step],
    *,
    robot: KnowsItsObjects | Any | None = None,
    name: str = "",
    curve: Sequence[tuple[float, int, float]] = (),
) -> Card:
    """Score a model on `test` beside the four floors made from `lived`.

    robot: measures object errors when it can `locate` things, in frames of its own size; any other robot, or None, leaves them out.
    What passes the model's door is scored, floors included: a model that sees smaller frames is asked for no more than it sees.
    curve: (seconds of learning, robot steps, skill on moved transitions) as it was measured while learning.
    The model is scored in eval mode without gradients and left as it was found.
    """
    lived, test = at_the_door(world_model, lived), at_the_door(world_model, test)
    trials = trials_of(test, action_space, world_model.history)
    if not trials:
        raise ConfigurationError(f"the {len(test)} test steps hold no two consecutive ones of an episode; give at least two steps in a row")
    journeys = journeys_of(test, action_space, world_model.history)
    locates = callable(getattr(robot, "locate", None)) and callable(getattr(robot, "distance", None))
    locator = robot if locates and not world_model.has_door else None  # it points in its own frames only
    floors = floors_of(lived, action_space)
    labels = groups_of(action_space)
    candidates = [action_space.label(action) for action in action_space.candidates(BOX_CANDIDATES)]
    with thinking(world_model):
        imagine = picturing(world_model)
        predicts = {"model": imagine, **floors}
        tallies = {who: tally(predict, trials, action_space, locator) for who, predict in predicts.items()}
        horizons = {who: horizon_curve(predict, journeys) for who, predict in predicts.items()}
        moving = tallies["copy_last"].where(tallies["copy_last"].moved)
        change = float(moving.error.mean()) if len(moving) else None
        scores = {who: _scores(tallies[who], horizons[who], labels, change) for who in tallies}
        stills = [horizons[who] for who in ("copy_last", "mean_frame", "black")]
        scores["model"]["horizon_above_stills"] = effective_horizon(above(horizons["model"], *stills))
        _add_reconstruction(scores, world_model, trials, mean_frame(lived))
        counterfactuals = counterfactual_numbers(predicts, tallies, trials, action_space, change)
        attention = attention_numbers(world_model, trials)
        uncertainty = uncertainty_numbers(world_model, trials, tallies["model"], labels, lived, action_space)
        levels = level_numbers(world_model, test, action_space, horizons["model"])
        telling = _telling(trials, tallies["model"])
        scenes = [_scene(imagine, trial, action_space, candidates) for trial in telling]
        films = _films(imagine, journeys)
        looks = [found for trial in telling if trial.moved and (found := look(world_model, trial))][:_LOOKS]
        canvases = canvases_of(world_model, telling, action_space)
    numbers = {
        "format": FORMAT,
        "name": name,
        "actions": labels,
        "chance": 1 / len(candidates),
        "lived_steps": len(lived),
        "trials": len(trials),
        "trials_moved": sum(trial.moved for trial in trials),
        "horizon_starts": [sum(len(j.plan) >= h for j in journeys) for h in range(1, len(horizons["model"]) + 1)],
        "pixels_changed": _pixels_changed(trials),
        "scores": scores,
        "shifts_px": {label: list(shift) for label, shift in zip(candidates, _shifts(floors), strict=True)},
        "counterfactuals": counterfactuals,
        "attention": attention,
        "levels": levels,
        "uncertainty": uncertainty,
        "curve": [[float(seconds), int(steps), None if value is None or not np.isfinite(value) else float(value)] for seconds, steps, value in curve],
    }
    return Card(name, numbers, scenes, films, looks, canvases)


@contextmanager
def thinking(world_model: WorldModel) -> Iterator[None]:
    """Eval mode and no gradients inside; every part's own mode as it was afterwards."""
    modes = [(part, part.training) for part in world_model.modules()]
    world_model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def at_the_door(world_model: WorldModel, steps: Sequence[Step]) -> Sequence[Step]:
    """The same steps, with frames as the model sees them."""
    if not world_model.has_door:
        return steps
    return [replace(step, observation=replace(step.observation, image=world_model.at_the_door(step.observation.image))) for step in steps]


def imagined(world_model: WorldModel, window: Window, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What plans (N, H, C) would lead to: pictures (N, H, h, w, 3) float, and uncertainty (N, H) in nats; not all at once where there are many."""
    at_once = max(1, _PICTURES // plans.shape[1])
    parts = [world_model.imagine(window, plans[first : first + at_once]) for first in range(0, len(plans), at_once)]
    pictures = np.concatenate([part.images.float().cpu().numpy() for part in parts if part.images is not None])
    return pictures.transpose(0, 1, 3, 4, 2), np.concatenate([part.uncertainty.float().cpu().numpy() for part in parts])


def picturing(world_model: WorldModel) -> Predict:
    """The model wearing the face that the floors wear."""
    return lambda window, plans: imagined(world_model, window, plans)[0]


def _scores(scored: Tally, horizon: list[float | None], labels: Sequence[str], change: float | None) -> dict:
    return {
        **scored.to_json(change),
        "moved": scored.where(scored.moved).to_json(change),
        "stayed": scored.where(~scored.moved).to_json(change),
        "by_action": {label: scored.where(scored.action == index).to_json(change) for index, label in enumerate(labels)},
        "horizon": horizon,
        "skill_horizon_8": horizon[7] if len(horizon) > 7 else None,
        "effective_horizon": effective_horizon(horizon),
        "reconstruction_skill": None,
    }


def _add_reconstruction(scores: dict, world_model: WorldModel, trials: Sequence[Trial], mean: np.ndarray) -> None:
    """Against the mean frame. Copy-last and the shift floor reconstruct nothing, so they keep None."""
    picks = np.unique(np.linspace(0, len(trials) - 1, _FRAMES).round().astype(int))
    seen = reference = dark = 0.0
    for frame in (trials[pick].truth for pick in picks):
        seen += float(mse(world_model.reconstruct(frame[None])[0].float().cpu().numpy().transpose(1, 2, 0).clip(0, 1), frame))
        reference += float(mse(mean, frame))
        dark += float(mse(np.zeros_like(mean), frame))
    for who, error in {"model": seen, "mean_frame": reference, "black": dark}.items():
        scores[who]["reconstruction_skill"] = skill(error, reference)


def _pixels_changed(trials: Sequence[Trial]) -> float | None:
    """Mean share of pixels that really changed, where anything did."""
    shares = [float((np.abs(t.window.images[-1].astype(np.int16) - t.truth) > MOVED).any(-1).mean()) for t in trials if t.moved]
    return sum(shares) / len(shares) if shares else None


def _shifts(floors: Mapping[str, Predict]) -> Sequence[tuple[int, int]]:
    shift = floors["shift"]
    assert isinstance(shift, Shift)
    return shift.shifts


def _telling(trials: Sequence[Trial], scored: Tally) -> list[Trial]:
    """Six trials worth looking at: every action in turn, those that moved first, spread over the test, good and bad as they come."""
    queues = []
    for moved in (True, False):
        for action in np.unique(scored.action):
            mine = np.flatnonzero((scored.moved == moved) & (scored.action == action))
            if len(mine):
                queues.append(list(dict.fromkeys(mine[np.linspace(0, len(mine) - 1, _SCENES).round().astype(int)])))
    chosen: list[int] = []
    while any(queues) and len(chosen) < _SCENES:
        for queue in queues:
            if queue and len(chosen) < _SCENES:
                # from both ends and the middle: one trial per round, not the first six neighbours
                chosen.append(queue.pop(len(queue) // 2))
    return [trials[index] for index in sorted(chosen, key=lambda index: (not scored.moved[index], index))]


def _scene(imagine: Predict, trial: Trial, space: ActionSpace, labels: Sequence[str]) -> Scene:
    candidates = candidates_of(space)
    taken = nearest(candidates, trial.action)
    candidates[taken] = trial.action
    images = predicted(imagine, trial.window, candidates[:, None])[:, 0]
    return Scene(
        now=trial.window.images[-1],
        imagined=tuple(to_uint8(image) for image in images),
        labels=tuple(space.label(space.decode(trial.action)) if i == taken else label for i, label in enumerate(labels)),
        taken=taken,
        closest=int(np.argmin(mse(images, trial.truth))),
        truth=trial.truth,
        moved=trial.moved,
    )


def _films(imagine: Predict, journeys: Sequence[Journey], most: int = 2) -> list[Film]:
    longest = sorted(journeys, key=lambda journey: -len(journey.plan))[:most]
    films = []
    for journey in longest:
        shown = [h for h in (1, 2, 4, 8, 16, 32) if h <= len(journey.plan)]
        images = predicted(imagine, journey.window, journey.plan[None])[0]
        imagined, truth = [to_uint8(images[h - 1]) for h in shown], [journey.truth[h - 1] for h in shown]
        films.append(Film(journey.window.images[-1], shown, imagined, truth))
    return films


def _write(path: Path, text: str) -> None:
    """All of it or nothing: a reader never meets half a file."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)  # mkstemp makes it unreadable for others, but a page is there to be shown
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
