"""Learner: turns what was lived into a better world model, one gradient step at a time.

Decisions: every robot step is followed by at least one update on the newest window and replayed ones; all
frames of a window are shifted by the same random distance, which shows a thing at places where it never was
without changing what an action does; acting and scoring use an average of the weights, which is steadier than
any one of them; one optimiser holds every parameter once. While surprised (surprise.py) all windows but one are recent, the average
follows sooner, and a step is followed by twice as many updates, where the gate's budget allows it. All chance comes from the learner's
own generator, so with the gate's clock switched off (max_seconds=inf) and the same number of threads it repeats exactly. Where torch.distributed
is initialised every process draws the numbers of the whole batch and keeps its share, so several see what one would see.

Levels of prediction above single actions are created and retired here, as levels.py counts, and learn in the same gradient steps.

What it is between two updates: trained weights, averaged weights, optimizer, levels, surprise, updates, samples, seconds, rng (and replay).
"""

import copy
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Observation, Study, Window
from motorbabble.learning.gate import GateConfig, QualityGate
from motorbabble.learning.gauges import Gauge
from motorbabble.learning.heap import give_back, keep_memory
from motorbabble.learning.levels import Levels, LevelsConfig
from motorbabble.learning.nearby import NearbyFrames, shifted_means
from motorbabble.learning.replay import Replay, ReplayConfig
from motorbabble.learning.schedule import ScheduleConfig, decay_groups
from motorbabble.learning.surprise import Surprise, SurpriseConfig
from motorbabble.models.compiling import check_compiler, uncompiled
from motorbabble.models.precision import Precision, check_precision, precision_for
from motorbabble.world_models.base import Batch, WorldModel, over_processes, this_process


@dataclass(frozen=True)
class LearnerConfig:
    batch_size: int = 4  # windows per update, of all processes together
    updates_per_step: int = 1
    beside_updates: int = 4  # after each look, at most, of one that learns beside the robot (beside.py); then it rests until the next
    shift: tuple[int, int] = (16, 16)  # pixels down and right, at most, either way; pixels go around the edges
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.98  # of the averaged weights that act and are scored; 0: the trained ones do
    precision: Precision = "auto"  # of products of matrices: auto is bfloat16 on CUDA devices that have it, float32 elsewhere
    compile: bool = False  # losses and imagining, by torch's compiler: the first of each shape take minutes, all later ones less
    gauge_every: int = 100  # updates from one look at gradients and weights, layer by layer, to the next; 0: none
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    levels: LevelsConfig = field(default_factory=LevelsConfig)
    surprise: SurpriseConfig = field(default_factory=SurpriseConfig)

    def __post_init__(self):
        if min(self.batch_size, self.updates_per_step, self.beside_updates) < 1:
            raise ConfigurationError(
                f"{self.batch_size} windows and {self.updates_per_step} or {self.beside_updates} updates per step cannot teach anything; "
                "give at least 1 of each"
            )
        check_precision(self.precision)
        if self.gauge_every < 0:
            raise ConfigurationError(f"gauge_every is {self.gauge_every}; give a number of updates, or 0 for no gauges")
        if len(self.shift) != 2 or min(self.shift) < 0 or not self.clip_norm > 0 or not 0 <= self.ema_decay < 1:
            raise ConfigurationError(
                f"shift {self.shift}, clip_norm {self.clip_norm} and ema_decay {self.ema_decay} cannot work; "
                "keep shifts at least 0, clip_norm positive and ema_decay in 0..1"
            )


# What a short life of some hundred steps needs: a higher rate, sooner reached, than the mission's numbers, which the config classes hold.
ONLINE = LearnerConfig(schedule=ScheduleConfig(learning_rate=2e-3, warmup_steps=15))


class Learner:
    """`remember` what is seen, then `study`. `holds_out(observation)` True keeps a moment out of everything learned from."""

    waits = True  # whether the robot waits for `study` until the gate opens

    def __init__(
        self,
        world_model: WorldModel,
        config: LearnerConfig = LearnerConfig(),
        seed: int = 0,
        holds_out: Callable[[Observation], bool] | None = None,
    ):
        keep_memory()
        self.config = config
        self.trained = world_model
        world_model.precision = precision_for(config.precision, world_model.device)
        if config.compile and this_process()[1] > 1:
            raise ConfigurationError(f"compile is true in one of {this_process()[1]} processes that learn together, which cannot be; leave it false")
        if config.compile:
            check_compiler(world_model.device)
        world_model.compiled = config.compile
        self._tie()
        self.world_model = copy.deepcopy(world_model).requires_grad_(False).eval() if config.ema_decay else world_model
        self.replay = Replay(config.replay)
        megabytes = config.replay.device_mb if config.replay.device_mb is not None else 4096 if world_model.device.type == "cuda" else 0
        self._nearby = NearbyFrames(world_model.device, megabytes, config.replay.capacity)
        self.holds_out, self.held_out = holds_out, False  # the rule, and what it said of the newest moment
        self.rng = np.random.default_rng(seed)
        self.optimizer = torch.optim.AdamW(
            decay_groups(world_model, config.weight_decay),
            lr=config.schedule.learning_rate,
            betas=(0.9, 0.99),
            fused=True,  # the small models spend a seventh of an update in an optimiser that goes from weight to weight
        )
        self.levels = Levels(config.levels)
        for _ in world_model.spans[1:]:
            self.levels.grown()
        self.surprise = Surprise(config.surprise)
        self.updates, self.samples, self.seconds = 0, 0, 0.0
        self._unstudied = 0  # looks since the last study

    def remember(self, observation: Observation, led: np.ndarray | None) -> None:
        """One look, and the encoded action that led to it (None: nothing did, an episode begins)."""
        self.held_out = self.holds_out is not None and self.holds_out(observation)
        self.keep(None if self.held_out else self.trained.at_the_door(observation.image), led)

    def keep(self, image: np.ndarray | None, led: np.ndarray | None) -> None:
        """A look as the model sees it, (h, w, 3) uint8; None: it is held out."""
        if image is None:
            self.replay.skip()
        else:
            self.replay.add(image, led)
        self._unstudied += 1

    def study(self) -> Iterator[Study]:
        """Gradient steps until the gate opens; yields a Study after each. Nothing while there is no transition to learn from."""
        usual, most = self.config.updates_per_step, self.config.gate.max_updates
        gate = QualityGate(self.config.gate, max(usual, min(2 * usual, most)) if self.surprise.felt else usual)
        began, outcome = time.monotonic(), "learning"
        foreseen, self._unstudied = self._foreseen(), 0
        while outcome == "learning":
            windows, fresh = self.choose()
            if not windows:
                return
            losses = self.update(windows, fresh and gate.updates == 0, long=self._long())  # a second look at the newest window is no longer fresh
            self.surprise.meet(losses)
            losses, foreseen = losses | foreseen, {}
            notes = self._adjust_levels(losses)
            outcome = gate.judge(losses["total"], losses.get("reconstruction_skill", 1.0), time.monotonic() - began)
            yield Study(self.updates, losses, outcome, self.seconds, self.samples, notes)

    def gather(self) -> None:
        """Before it is saved: let all that it is lie here. Of one that learns beside the robot, some lies in another process."""

    def close(self) -> None:
        """It will not study any more, so memory that was kept for the next update is not needed."""
        give_back()

    def choose(self) -> tuple[list[Window], bool]:
        """Windows for one update, and whether the first of them was never learned from before."""
        length = self.trained.history + 1  # one frame more than the history gives every place in it a target
        newest = self.replay.newest(length)
        fresh = newest is not None and len(newest) == length
        drawn = self.replay.sample(self.config.batch_size - fresh, length, self.rng, self.surprise.config.span if self.surprise.felt else None)
        if not drawn and not fresh:  # early life: learn from whatever run there is
            length = len(newest) if newest is not None else 0
            fresh = length > 1
            drawn = self.replay.sample(self.config.batch_size - fresh, length, self.rng) if fresh else []
        return ([newest] if fresh and newest is not None else []) + drawn, fresh

    def update(
        self, windows: list[Window], fresh: bool = False, background: np.ndarray | None = None, long: tuple[int, list[Window]] | None = None
    ) -> dict[str, float]:
        """One gradient step on windows of equal length, each shifted at random. A step that is not finite changes no weight.

        `long`: a level above 0 and windows for it, which are learned from in the same step.
        `background` (H, W, 3), 0 to 255, is the mean frame; replay's own unless given. Of several processes each gives its
        share of the batch, equally many windows; all get the losses of the whole.
        """
        began = time.monotonic()
        model, config = self.trained, self.config
        model.train()
        mean = self.replay.background() if background is None else background
        with uncompiled(len(windows) < config.batch_size or len(windows[0]) <= model.history):  # an early life's; few are alike
            losses = self._losses(self._batch(windows, mean), *((long[0], self._batch(long[1], mean)) if long else ()))
        self.optimizer.zero_grad()
        losses["total"].backward()
        gauge = Gauge(model) if config.gauge_every and (self.updates + 1) % config.gauge_every == 0 else None
        # Each level on its own: the large gradients of a new one do not hold back what lies below.
        norm, *norms = (float(torch.nn.utils.clip_grad_norm_(part, config.clip_norm)) for part in self._parts())
        rate = config.schedule.at(self.updates)
        values = self._of_all(losses) | {"grad_norm": norm, "learning_rate": rate}
        below = values.pop("below", values["total"])
        if long and math.isfinite(below) and not math.isfinite(values["total"]):  # only the level is lost, not the life
            self.levels.fail(long[0])
            values["total"] = below
        elif not math.isfinite(values["total"]) or not all(map(math.isfinite, (norm, *norms))):
            values["total"] = math.nan
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self._average()
            values |= gauge.read() if gauge else {}
        if not fresh:  # the first window's error says what it would predict unseen only where it is unseen; the last one's is compared with it
            values = {name: value for name, value in values.items() if not name.startswith(("fresh_", "remembered_"))}
        self.updates += 1
        self.samples += len(windows) * this_process()[1]
        self.seconds += time.monotonic() - began
        return values

    # Levels

    def grow(self) -> None:
        """One more level of prediction, trained and averaged alike; the optimiser learns of it, and forgets nothing."""
        seed, before = int(self.rng.integers(2**62)), self.trained.state_dict().keys()
        self.trained.grow(seed)
        if self.world_model is not self.trained:
            self.world_model.grow(seed)
            new = {name: value for name, value in self.trained.state_dict().items() if name not in before}
            self.world_model.load_state_dict(new, strict=False)
            self.world_model.requires_grad_(False).eval()
        new = {id(parameter) for parameter in self._parts()[-1]}
        for group in decay_groups(self.trained, self.config.weight_decay):
            self.optimizer.add_param_group({**group, "params": [parameter for parameter in group["params"] if id(parameter) in new]})
        self.levels.grown()
        self._tie()

    def retire(self) -> None:
        """The highest level goes, from both models and from the optimiser."""
        gone = set(self._parts()[-1])
        for model in {self.trained, self.world_model}:
            model.retire()
        for group in self.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in gone]
        self.optimizer.param_groups[:] = [group for group in self.optimizer.param_groups if group["params"]]
        for parameter in gone & self.optimizer.state.keys():
            del self.optimizer.state[parameter]
        self.levels.retired()
        self._tie()

    def _parts(self) -> list[list[nn.Parameter]]:
        """The trained model's parameters, level by level."""
        parts: list[list[nn.Parameter]] = [[] for _ in self.trained.spans]
        for name, parameter in self.trained.named_parameters():
            parts[self.trained.level_of(name)].append(parameter)
        return parts

    def _adjust_levels(self, losses: Mapping[str, float]) -> tuple[str, ...]:
        """After an update: as many levels as there should be; answers what a person should hear of it."""
        if not self.trained.can_grow or this_process()[1] > 1:
            return ()
        if "fresh_error" in losses:
            self.levels.score(0, losses["fresh_error"], losses["fresh_copy_error"])
        notes, (wanted, why) = [], self.levels.verdict()
        while len(self.levels) > wanted:
            self.retire()
            notes.append(f"Level {len(self.levels)} of prediction was retired after {self.updates} updates: {why}.")
        span = 2 * self.trained.spans[-1]
        if wanted > len(self.levels) and self.replay.longest_run() > span:
            self.grow()
            notes.append(f"Level {wanted - 1} of prediction, {span} actions in one go, was created after {self.updates} updates: {why}.")
        return tuple(notes)

    def _foreseen(self) -> dict[str, float]:
        """Before the newest frame is learned from, a level above 0, each in its turn, predicts it from where its span began."""
        looks, every = self.replay.moments, self.config.levels.evaluate_every
        turn = looks // every
        if len(self.levels) == 1 or turn == (looks - self._unstudied) // every:
            return {}
        level = 1 + turn % (len(self.levels) - 1)
        span = self.world_model.spans[level]
        window = self.replay.newest(self.world_model.history + span)
        if window is None or len(window) <= span:
            return {}
        seen = Window(window.images[:-span], window.actions[:-span])
        images = self.world_model.eval().imagine(seen, window.actions[None, -span:], level=level).images
        assert images is not None
        real, kept = (torch.from_numpy(image).to(images).movedim(-1, 0) / 255 for image in (window.images[-1], seen.images[-1]))
        error, copy = (float((guess - real).square().mean()) for guess in (images[0, 0], kept))
        self.levels.score(level, error, copy)
        return {f"prediction_errors/level_{level}": error, f"copy_errors/level_{level}": copy}

    def _long(self) -> tuple[int, list[Window]] | None:
        """Windows for one of the levels above 0, each in its turn; without context where no run is long enough for it."""
        if len(self.levels) == 1:
            return None
        level = 1 + self.updates % (len(self.levels) - 1)
        span = self.trained.spans[level]
        for length in (self.trained.history + span, 1 + span):
            if drawn := self.replay.sample(self.config.batch_size, length, self.rng):
                return level, drawn
        return None

    def _tie(self) -> None:
        """Several processes become one: from here on each has the first one's weights, and gradients that are the mean of all."""
        self._losses: nn.Module = _Losses(self.trained)
        if this_process()[1] > 1:
            gc.collect()  # the tie before this one, if there was one, would go on averaging
            partly = len(self.trained.spans) > 1 or not self.trained.uses_all_weights  # an update is of one level above 0 at most
            if partly:  # and where one uses all, torch warns, unless there is a weight that none uses
                self._losses.unused = nn.Parameter(torch.zeros(1, device=self.trained.device))
            self._losses = DistributedDataParallel(self._losses, find_unused_parameters=partly)

    def _of_all(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all processes the mean; but the first one has the first window, and the last one the last."""
        rank, processes = this_process()
        whose = {"fresh": 0, "remembered": processes - 1}
        weights = [processes * (rank == whose[part]) if (part := name.partition("_")[0]) in whose else 1 for name in losses]
        mine = [value.detach().float() * weight for value, weight in zip(losses.values(), weights, strict=True)]
        return dict(zip(losses, over_processes(torch.stack(mine)).tolist(), strict=True))

    @torch.no_grad()
    def _average(self) -> None:
        """Weights averaged over the last 1 / (1 - decay) updates; over fewer of them early, when all are fresh, and while surprised."""
        if self.world_model is self.trained:
            return
        decay = min(self.config.ema_decay, self.surprise.config.ema_decay) if self.surprise.felt else self.config.ema_decay
        keep = min(decay, (1 + self.updates) / (10 + self.updates))
        pairs = zip(self.world_model.parameters(), self.trained.parameters(), strict=True)
        taught = [(averaged, trained) for averaged, trained in pairs if trained.requires_grad]  # the rest stays as it is, in both
        if taught:
            averaged, trained = map(list, zip(*taught, strict=True))
            get_ema_multi_avg_fn(keep)(averaged, trained, 0)

    def _batch(self, windows: list[Window], background: np.ndarray) -> Batch:
        """This process's windows, with their share of the numbers drawn for the batch of all processes."""
        rank, processes = this_process()
        count = len(windows)
        most = np.array(self.config.shift)
        moves = self.rng.integers(-most, most + 1, size=(count * processes, 2))[rank * count :][:count]
        seeds = self.rng.integers(2**62, size=count * processes)[rank * count :][:count]
        draw = int(self.rng.integers(2**62))
        if (near := self._nearby.gather(windows, moves)) is not None:
            means = shifted_means(background, moves, self.trained.device)
            return Batch.made(near, np.stack([window.actions for window in windows]), means, seeds, draw)
        moved, backgrounds = zip(*(shifted(*pair, background) for pair in zip(windows, moves, strict=True)), strict=True)
        return Batch.of(moved, np.stack(backgrounds), self.trained.device, seeds, draw)


def shifted(window: Window, move: np.ndarray, background: np.ndarray) -> tuple[Window, np.ndarray]:
    """The window and the mean frame (H, W, 3), both moved `move` (2,) pixels down and right, around the edges."""
    if not move.any():
        return window, background
    down, right = map(int, move)
    return Window(np.roll(window.images, (down, right), (1, 2)), window.actions), np.roll(background, (down, right), (0, 1))


class _Losses(nn.Module):
    """The losses as a module's forward, which is what DistributedDataParallel can wrap."""

    def __init__(self, model: WorldModel):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, level: int = 0, long: Batch | None = None) -> dict[str, Tensor]:
        with self.model.computing():
            losses = self.model.losses(batch)
            if long is None:
                return losses
            above = self.model.level_losses(level, long)
        total = losses["total"] + above.pop("total")
        return {**losses, "below": losses["total"], "total": total, **{f"level_{level}/{name}": value for name, value in above.items()}}
