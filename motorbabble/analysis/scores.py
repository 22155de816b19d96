"""Numbers for predictions: the same code scores the model and the floors, through one face, `Predict`.

Everything is relative to copy-last (the raw last frame, not its reconstruction) and split into transitions that moved
and transitions that stayed, because a black picture passes any absolute threshold. Errors are sums over all trials
before they are divided (pooled), so that a trial where little changed cannot dominate by a small denominator.
The formulas, and the traps behind them, are in docs/card.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motorbabble.errors import Diverged
from motorbabble.experience import MOVED, ActionSpace, Step, Window, has_moved
from motorbabble.figures import to_uint8
from motorbabble.robots.interface import KnowsItsObjects

# (window, plans (N, H, C) encoded) -> images (N, H, height, width, 3) float in [0, 1]
Predict = Callable[[Window, np.ndarray], np.ndarray]

NEAR = 2.0  # pixels within which a thing counts as put in the right place
BOX_CANDIDATES = 8
_TIE = 1e-6  # relative: pictures that differ by less than rounding are the same picture


@dataclass(frozen=True)
class Trial:
    """One lived transition, kept to be predicted. `window` ends in the frame from which `action` (C,) led to `truth` (H, W, 3) uint8."""

    window: Window
    action: np.ndarray
    truth: np.ndarray
    objects: np.ndarray | None  # (n, 2) x, y in truth, px
    moved: bool


@dataclass(frozen=True)
class Journey:
    """A stretch to be imagined blind: from the end of `window` along `plan` (H, C); `truth` (H, height, width, 3) uint8 came of it."""

    window: Window
    plan: np.ndarray
    truth: np.ndarray


def stretches(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps, cut wherever an episode ends or a step is missing."""
    runs: list[list[Step]] = []
    for step in steps:
        before = runs[-1][-1] if runs else None
        if before and step.index == before.index + 1 and step.observation.episode == before.observation.episode:
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def trials_of(steps: Sequence[Step], space: ActionSpace, history: int) -> list[Trial]:
    """Every transition between consecutive steps of an episode; the first ones of an episode have fewer than `history` frames."""
    trials = []
    for run in stretches(steps):
        images, actions = _frames_and_actions(run, space)
        for now in range(len(run) - 1):
            after = run[now + 1].observation
            objects = after.state.get("objects")
            trials.append(Trial(_window(images, actions, now, history), actions[now], after.image, objects, has_moved(images[now], after.image)))
    return trials


def journeys_of(steps: Sequence[Step], space: ActionSpace, history: int, longest: int = 32, most: int = 8) -> list[Journey]:
    """Up to `most` starts, spread evenly, each as long as the data goes but at least half as long as the longest possible."""
    runs = [run for run in stretches(steps) if len(run) > 1]
    reach = min(longest, max((len(run) - 1 for run in runs), default=0))
    starts = [(run, now) for run in runs for now in range(len(run) - 1) if 2 * (len(run) - 1 - now) >= reach]
    journeys = []
    for pick in np.unique(np.linspace(0, len(starts) - 1, most).round().astype(int)) if starts else ():
        run, now = starts[pick]
        images, actions = _frames_and_actions(run, space)
        end = min(now + longest, len(run) - 1)
        journeys.append(Journey(_window(images, actions, now, history), actions[now:end], np.stack(images[now + 1 : end + 1])))
    return journeys


def _frames_and_actions(run: Sequence[Step], space: ActionSpace) -> tuple[list[np.ndarray], np.ndarray]:
    return [step.observation.image for step in run], np.stack([space.encode(step.executed) for step in run])


def _window(images: list[np.ndarray], actions: np.ndarray, now: int, history: int) -> Window:
    first = max(0, now + 1 - history)
    return Window(np.stack(images[first : now + 1]), actions[first:now])


def candidates_of(space: ActionSpace) -> np.ndarray:
    """(A, C): every action of a list, or eight of a box, encoded."""
    return np.stack([space.encode(action) for action in space.candidates(BOX_CANDIDATES)])


def groups_of(space: ActionSpace) -> list[str]:
    """What the card calls the actions it tells apart: the candidates; all as one where there are too many names for any to stand for another."""
    if space.is_long and not space.ordered:
        return [f"any of {len(space.actions or ())} actions"]
    return [space.label(action) for action in space.candidates(BOX_CANDIDATES)]


def nearest(candidates: np.ndarray, action: np.ndarray) -> int:
    return int(np.argmin(np.square(candidates - action).sum(1)))


def predicted(predict: Predict, window: Window, plans: np.ndarray) -> np.ndarray:
    """What `predict` says, clipped to [0, 1] as a screen would; Diverged when it is not a number."""
    return on_screen(predict(window, plans))


def on_screen(images: np.ndarray) -> np.ndarray:
    """Predicted pictures, float, clipped to [0, 1]; Diverged when they hold what is not a number."""
    images = np.asarray(images, np.float32)
    if not np.isfinite(images).all():
        count = int((~np.isfinite(images)).sum())
        raise Diverged(f"a predicted picture holds {count} values that are NaN or infinite; go back to an older checkpoint")
    return images.clip(0, 1)


def mse(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(...,) mean squared error of float images (..., H, W, 3) against uint8 ones, on the scale [0, 1]."""
    return np.square(images - truth.astype(np.float32) / 255).mean((-1, -2, -3), dtype=np.float64)


@dataclass(frozen=True)
class Tally:
    """How one predictor did on T trials, with everything needed to pool it again over some of them."""

    error: np.ndarray  # (T,) MSE of the picture for the action really taken
    copied: np.ndarray  # (T,) MSE of keeping the last frame
    rival: np.ndarray  # (T,) lowest MSE among the pictures of the other actions; NaN where there is no other
    moved: np.ndarray  # (T,) bool
    action: np.ndarray  # (T,) int, which of `groups_of` the action is in: the (nearest) candidate
    errors: np.ndarray  # (T, A) MSE of every candidate's picture; the action taken stands in for its nearest candidate
    taken: np.ndarray  # (T,) int, where in `errors` the action taken stands
    variance: np.ndarray  # (T,) between the candidates' pictures, mean over pixels
    depends: np.ndarray  # (T,) share of pixels that differ between two of them by more than what counts as moved
    pixels: np.ndarray | None  # (T, n) how far each thing stands from where it belongs; NaN: not to be seen in the prediction
    shown: np.ndarray | None  # (T, n) bool: the thing is to be seen in the truth

    def where(self, mask: np.ndarray) -> "Tally":
        fields = {name: value[mask] for name, value in vars(self).items() if value is not None}
        return replace(self, **fields)

    def __len__(self) -> int:
        return len(self.error)

    @property
    def best(self) -> np.ndarray:
        """(T,) bool: the picture for the action taken beat those of all other actions. A tie is a loss."""
        return np.isnan(self.rival) | (self.error < self.rival * (1 - _TIE))

    @property
    def skill_moved(self) -> float | None:
        return skill(self.error[self.moved].sum(), self.copied[self.moved].sum())

    @property
    def db_over_copy(self) -> float | None:
        """Decibels, at most 99 (a perfect prediction would be infinite, which JSON cannot say)."""
        mine, copy = self.error[self.moved].sum(), self.copied[self.moved].sum()
        return None if copy == 0 else 99.0 if mine == 0 else float(min(99.0, 10 * np.log10(copy / mine)))

    def to_json(self, change: float | None = None) -> dict:
        """`change`: what copy-last gets wrong when something moves (MSE); the margin is told in this unit."""
        stayed = self.error[~self.moved]
        low, high = wilson(int(self.best.sum()), len(self))
        return {
            "trials": len(self),
            "trials_moved": int(self.moved.sum()),
            "skill_moved": self.skill_moved,
            "db_over_copy": self.db_over_copy,
            "moved_mse": float(self.error[self.moved].mean()) if self.moved.any() else None,
            "stayed_mse": float(stayed.mean()) if len(stayed) else None,
            "action_advantage": float(self.best.mean()) if len(self) else None,
            "action_advantage_95": [low, high],
            "action_sensitivity": float(self.variance.mean()) if len(self) and self.errors.shape[1] > 1 else None,
            "pixels_by_action": float(self.depends.mean()) if len(self) and self.errors.shape[1] > 1 else None,
            "action_margin": float((self.rival - self.error).mean() / change) if change and len(self) and np.isfinite(self.rival).all() else None,
            "objects": self._objects(),
        }

    def _objects(self) -> dict | None:
        if self.pixels is None or self.shown is None or not self.shown.any():
            return None
        away = self.pixels[self.shown]
        found = away[np.isfinite(away)]
        return {
            "things": len(away),
            "missing": float(np.isnan(away).mean()),
            "within_2px": float((away <= NEAR).mean()),  # a missing thing is NaN, and NaN is not near
            "median_px": float(np.median(found)) if len(found) else None,
            "p95_px": float(np.percentile(found, 95)) if len(found) else None,
        }


def tally(predict: Predict, trials: Sequence[Trial], space: ActionSpace, robot: KnowsItsObjects | None = None) -> Tally:
    """Predict every trial for all candidate actions at once. In a box, the action taken stands in for its nearest candidate."""
    candidates = candidates_of(space)
    grouped = len(groups_of(space)) == 1
    rows, away, shown = [], [], []
    for trial in trials:
        taken = nearest(candidates, trial.action)
        plans = candidates.copy()
        plans[taken] = trial.action
        images = predicted(predict, trial.window, plans[:, None])[:, 0]
        errors = mse(images, trial.truth)
        others = np.delete(errors, taken)
        rival = others.min() if len(others) else np.nan
        copied = mse(trial.window.images[-1].astype(np.float32) / 255, trial.truth)
        depends = float((np.ptp(images, 0) > MOVED / 255).any(-1).mean())
        rows.append((errors[taken], copied, rival, trial.moved, 0 if grouped else taken, errors, taken, images.var(0).mean(), depends))
        if robot is not None and trial.objects is not None:
            away.append(robot.distance(robot.locate(to_uint8(images[taken])), trial.objects))
            shown.append(np.isfinite(trial.objects).all(1))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    known = len(away) == len(rows)
    return Tally(*columns, pixels=np.array(away) if known else None, shown=np.array(shown) if known else None)


def horizon_curve(predict: Predict, journeys: Sequence[Journey]) -> list[float | None]:
    """Open-loop skill at h = 1 .. 32 steps against holding the last real frame, pooled over the journeys that reach h.

    None where the truth is the held frame again in every journey: there is nothing to be better at.
    """
    longest = max((len(journey.plan) for journey in journeys), default=0)
    mine, held = np.zeros(longest), np.zeros(longest)
    for journey in journeys:
        images = predicted(predict, journey.window, journey.plan[None])[0]
        mine[: len(images)] += mse(images, journey.truth)
        held[: len(images)] += mse(journey.window.images[-1].astype(np.float32) / 255, journey.truth)
    return [skill(a, b) for a, b in zip(mine, held, strict=True)]


def above(skills: Sequence[float | None], *others: Sequence[float | None]) -> list[float | None]:
    """By how much each skill exceeds the best of the others'."""
    return [None if mine is None else mine - max(rest) for mine, *rest in zip(skills, *others, strict=True)]


def effective_horizon(skills: Sequence[float | None]) -> int:
    """The largest h such that skill is above 0 at every step up to h; a step without a value decides nothing."""
    reached = 0
    for h, value in enumerate(skills, 1):
        if value is None:
            continue
        if value <= 0:
            break
        reached = h
    return reached


def skill(error: float, reference: float) -> float | None:
    """1 - error / reference: 1 is perfect, 0 as good as the reference, below 0 worse. None where the reference has no error."""
    return None if reference == 0 else float(1 - error / reference)


def wilson(wins: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval for a share: unlike the plain one it does not shrink to nothing at 0 or 1. (Wilson 1927)"""
    if trials == 0:
        return 0.0, 1.0
    share, spread = wins / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation, -1 to 1, equal values sharing their rank; None for fewer than 3 pairs or when one side never varies."""
    if len(a) < 3 or not np.isfinite([a, b]).all() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
