"""The experiments behind docs/checkpoint-format.md: each does something terrible many times and counts what it broke.

tests/test_checkpoint.py and tests/test_resume.py run them in small, on ours and on broken ones, which they must notice;
benchmarks/memory.py runs them whole. A toy generation is made from its number alone, so a mixture of two is seen at once; a life is
compared with one that was never interrupted, part by part and step by step.
"""

import hashlib
import json
import math
import os
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from brief_lives import BriefMind, Slippery, Wavering, dot
from counting import Counting
from crashes import Model, crashes_of, scratch
from disks import InterruptDisk, KillDisk, Op, TraceDisk
from kills import Acknowledge, killed, random_instants

from motorbabble import memory
from motorbabble.agents import Run, learn
from motorbabble.errors import CheckpointError
from motorbabble.experience import Step
from motorbabble.learning.checkpoint import Checkpoints, Identity, Loaded, Saved
from motorbabble.memory import MemoryConfig
from motorbabble.recording.recorder import Recorder
from motorbabble.robots.bodies import BodiesRobot
from motorbabble.robots.interface import RobotInterface

IDENTITY = Identity("counting", Counting().action_space, {"model": "Toy", "width": 4, "history": [1, 2]})
SIZES = {"autoencoder": 40, "predictor_0": 90, "optimizer": 300, "memory": 7}  # numbers per file

Saver = Callable[..., Checkpoints]


def saved_of(number: int) -> Saved:
    """Generation `number` of every life here: each file and the state say it."""
    tensors = {stem: {"trained/w": torch.full((size,), float(number)), "n": torch.tensor([number])} for stem, size in SIZES.items()}
    return Saved(IDENTITY, tensors, {"number": number, "again": [number] * 20})


def number_in(loaded: Loaded) -> int | None:
    """Which generation this is, whole; None for a mixture."""
    number = loaded.state.get("number", -1)
    expected = saved_of(number) if type(number) is int else None
    return number if expected and loaded.state == expected.state and _hash(loaded.tensors) == _hash(expected.tensors) else None


# Kills


def kill_saves(count: int, seed: int, saver: Saver = Checkpoints, each: int = 3) -> dict[str, int]:
    """SIGKILL at `count` random instants of endless saving, and before every single file operation of `each` saves.

    `kills` happened; `lost`: what was said to be saved was not there; `mixed`: two generations in one; `unbacked`: there was no second
    whole one; `hindered`: the next save did not work, or left something lying about.
    """
    found = Counter(kills=0, lost=0, mixed=0, unbacked=0, hindered=0)
    with scratch() as place:
        folder, promised = Path(place), 0
        for trial, instant in enumerate(random_instants(count, 0.05, seed)):
            if trial % 10 == 0:  # ten in a row happen to one folder
                folder, promised = Path(place) / f"life{trial}", 0
            life = killed(lambda say, folder=folder: _save_on(saver(folder), say), instant)
            promised = max([promised, *life.acknowledged])
            promised = examined(saver, folder, promised, found)
            found["kills"] += 1
        for torn in (True, False)[:each]:
            _kill_each_operation(Path(place) / f"each{torn}", saver, each, torn, found)
    return dict(found)


def _save_on(checkpoints: Checkpoints, say: Acknowledge, most: int = 10**6) -> None:
    with checkpoints:
        for number in range(max(checkpoints.generations(), default=0) + 1, most):
            checkpoints.save(number, saved_of(number))
            say(number)


def _kill_each_operation(root: Path, saver: Saver, saves: int, torn: bool, found: Counter) -> None:
    template = root / "template"
    with saver(template) as checkpoints:
        for number in (1, 2):
            checkpoints.save(number, saved_of(number))
    for name in (".new-0123456789ab", ".trash-1-abcdef"):  # what earlier kills left
        (template / name).mkdir()
        (template / name / "state.json").write_bytes(b"{")
    n, finished = 0, False
    while not finished:
        n += 1
        folder = root / str(n)
        shutil.copytree(template, folder)
        life = killed(lambda say, folder=folder, n=n: _save_on(saver(folder, KillDisk(n, torn)), say, 3 + saves))
        finished = not life.killed
        examined(saver, folder, max([2, *life.acknowledged]), found)
        shutil.rmtree(folder)
        found["kills"] += life.killed


def examined(saver: Saver, folder: Path, promised: int, found: Counter) -> int:
    """Load what a crash left and save once more; answers what is promised from now on."""
    try:
        with saver(folder) as checkpoints:
            loaded = checkpoints.load(IDENTITY)
            number = number_in(loaded) if loaded else 0
            found["mixed"] += number is None
            found["lost"] += number is not None and not promised <= number <= promised + 1
            found["unbacked"] += promised > 1 and sum(map(checkpoints._is_whole, checkpoints.generations())) < 2
    except CheckpointError:
        found["lost"] += 1
    try:
        with saver(folder) as checkpoints:
            following = max([promised, *checkpoints.generations()]) + 1
            checkpoints.save(following, saved_of(following))
            loaded = checkpoints.load(IDENTITY)
            left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
            found["hindered"] += loaded is None or number_in(loaded) != following or bool(left)
            return following
    except CheckpointError:
        found["hindered"] += 1
    return promised


# Power cuts


def cut_power(most: int, seed: int, saver: Saver = Checkpoints) -> dict[str, int]:
    """Crash states of four saves, up to `most`; see tests/crashes.py. Whoever was told that it is saved must find it."""
    found = Counter(states=0, lost=0, mixed=0, unbacked=0, hindered=0)
    with scratch() as place:
        base, built = Path(place) / "disk", Path(place) / "state"
        base.mkdir()
        begin, trace = Model(base), TraceDisk()
        with saver(base / "counting" / "life", trace) as checkpoints:
            for number in range(1, 5):
                checkpoints.save(number, saved_of(number))
                trace.note("saved", number)
        crashes = list(crashes_of(trace.ops, base, begin, 40, seed))
        for crash in random.Random(seed).sample(crashes, min(most, len(crashes))):
            promised = max((op.data for op in trace.ops[: crash.before] if op.what == "saved"), default=0)
            examined(saver, crash.built(built) / "counting" / "life", promised, found)
            found["states"] += 1
    return dict(found)


# Bytes that rot


def corrupt(count: int, seed: int, saver: Saver = Checkpoints) -> dict[str, int]:
    """Flip a bit of, cut, lengthen or remove a file of the newest generation: the one before is used, and one sentence says so."""
    rng, found = random.Random(seed), Counter(corruptions=0, clean_fallbacks=0, wrong=0)
    with scratch() as place:
        checkpoints = saver(Path(place) / "life")
        with checkpoints:
            for number in (1, 2):
                checkpoints.save(number, saved_of(number))
        files = sorted(checkpoints.path(2).iterdir())
        for trial in range(count):
            path = files[trial % len(files)]
            good = path.read_bytes()
            _damage(path, good, rng, trial // len(files))
            found["corruptions"] += 1
            found["clean_fallbacks" if _falls_back(checkpoints, path.parent.name) else "wrong"] += 1
            path.write_bytes(good)
    return dict(found)


def _damage(path: Path, good: bytes, rng: random.Random, how: int) -> None:
    at = rng.randrange(len(good))
    if how % 4 in (0, 1):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
    elif how % 8 == 3:
        path.unlink()
    else:
        path.write_bytes(good[:at] if how % 4 == 2 else good + bytes(rng.randrange(1, 9)))


def _falls_back(checkpoints: Checkpoints, damaged: str) -> bool:
    try:
        loaded = checkpoints.load(IDENTITY)
    except CheckpointError:
        return False
    return loaded is not None and number_in(loaded) == 1 and len(loaded.notes) == 1 and damaged in loaded.notes[0]


# Lives


@dataclass(frozen=True)
class Kind:
    """One kind of life whose course is known in advance."""

    robot: Callable[[], RobotInterface]
    record: bool = True
    sessions: bool = True  # whether those of earlier lives are there to be read
    capacity: int = 5000
    steps: int = 14
    save_updates: int = 7
    model: str = ""  # latent or canvas: a real one instead of the brief one
    settings: Mapping[str, Any] = field(default_factory=dict)

    def learn(self, folder: Path | None, steps: int | None = None) -> Run:
        keeps = (
            MemoryConfig(folder / "checkpoint", folder / "sessions" if self.sessions else None, self.record, self.save_updates) if folder else None
        )
        robot, shared = self.robot(), {"steps": steps or self.steps, "memory": keeps, "max_seconds": math.inf, "capacity": self.capacity}
        if self.model:
            return learn(robot, self.model, Wavering(), **shared, **SMALL[self.model], **self.settings)
        torch.manual_seed(0)  # before its weights are drawn, as `learn` does for a model of its own
        return learn(robot, BriefMind(robot.action_space.size), Wavering(), batch_size=2, **shared)


_SMALL = {"patch_size": 8, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "moved_layers": 1, "ensemble_heads": 2, "batch_size": 2}
SMALL: dict[str, dict[str, Any]] = {
    "latent": {**_SMALL, "action_embed_dim": 8, "film_hidden_dim": 8},
    "canvas": {**_SMALL, "separator_width": 8, "decoder_depth": 1},
}


KINDS = {
    "dot": Kind(dot),
    "latent": Kind(dot, model="latent"),
    "canvas": Kind(dot, model="canvas"),
    "levels": Kind(dot, model="latent", settings={"level_skill": -50.0, "retire_skill": -60.0, "level_evaluations": 1, "evaluate_every": 1}),
    "not recorded": Kind(dot, sessions=False),
    "bodies": Kind(lambda: BodiesRobot(seed=3, image_size=32, episode_steps=5)),
    "slippery": Kind(lambda: Slippery(last_frames=True)),
    "forgetful": Kind(lambda: Slippery(episode_steps=6), capacity=5),
}
PARTS = (
    *("weights", "averaged", "optimizer", "counters", "learner's generator", "python's", "numpy's", "torch's", "replay", "sum"),
    *("selector", "history", "robot", "progress", "levels", "surprise", "step"),
)


def parts_of(run: Run, step: Step) -> dict[str, str]:
    """A hash of each part of a life, just after `step`; what only the clock decides is left out."""
    mind, replay, history = run.learner, run.learner.replay, run._history
    return {
        "weights": _hash(mind.trained.state_dict()),
        "averaged": _hash(mind.world_model.state_dict()),
        "optimizer": _hash([[name, mind.optimizer.state[weight]] for name, weight in mind.trained.named_parameters()]),
        "counters": _hash(
            [mind.updates, mind.samples, mind.config.schedule.at(mind.updates), [group["lr"] for group in mind.optimizer.param_groups]]
        ),
        "learner's generator": _hash(mind.rng.bit_generator.state),
        "python's": _hash(random.getstate()),
        "numpy's": _hash(np.random.get_state()),
        "torch's": _hash(torch.get_rng_state()),
        "replay": _hash([replay._frames, replay._led, replay._runs, replay._moments, replay.moments, replay._broken]),
        "sum": _hash([replay._sum, replay._seen]),
        "selector": _hash(run.select.state_dict()),  # type: ignore[attr-defined]
        "history": _hash([[seen.image for seen in history.seen], list(history.actions), history.led, history.over, len(history.seen)]),
        "robot": _hash(run.robot.state_dict()),  # type: ignore[attr-defined]
        "progress": _hash([*vars(run.progress).values()][:3] + [[entry[1:] for entry in run.progress.curve], run.steps_done, sorted(run._held_out)]),
        "levels": _hash([mind.levels.state_dict(), list(mind.trained.spans), list(mind.world_model.spans)]),
        "surprise": _hash(mind.surprise.state_dict()),
        "step": _hash([step.index, step.requested, step.executed, step.observation.image, step.observation.state]),
    }


def _hash(thing: Any) -> str:
    digest = hashlib.sha256()

    def feed(part: Any) -> None:
        if isinstance(part, Mapping):
            part = [[name, part[name]] for name in sorted(part)]
        if isinstance(part, torch.Tensor):
            part = part.detach().numpy()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + part.tobytes())
        elif isinstance(part, list | tuple) and not all(type(inner) is int for inner in part):
            digest.update(f"({len(part)}".encode())
            for inner in part:
                feed(inner)
        else:
            digest.update(f"{type(part).__name__} {part!r};".encode())

    feed(thing)
    return digest.hexdigest()[:16]


class InterruptMain(InterruptDisk):
    """Ctrl+C reaches the main thread only."""

    def met(self, op: Op) -> None:
        if threading.current_thread() is threading.main_thread():
            super().met(op)


class Kill(NamedTuple):
    """When a life is killed: after its event of this number, or before the file operation of this number of its saves or of its recorder.

    An `interrupt` is Ctrl+C instead, in the middle of what it does; a stop is asked for, and happens as soon as it may.
    """

    what: str  # events, saving, recording or stop
    at: int
    interrupt: bool = False


def lived(kind: Kind, folder: Path, kill: Kill | None = None, broken: Callable[[], None] = lambda: None, steps: int | None = None) -> dict[int, dict]:
    """{step: its parts} of a life in a process of its own, as far as it came. `broken` is called there first, to leave something out."""
    warm()
    folder.mkdir(exist_ok=True)
    told = folder / "parts.jsonl"
    told.unlink(missing_ok=True)

    def work(say: Acknowledge) -> None:
        torch.set_num_threads(1)
        resumes = bool(Checkpoints(folder / "checkpoint").generations())
        run_seed = os.getpid() if resumes else 0  # whoever goes on must not need the globals as they happen to be
        random.seed(run_seed)
        np.random.seed(run_seed)
        broken()
        disk = (InterruptMain if kill.interrupt else KillDisk)(kill.at) if kill else None
        if kill and kill.what == "saving":
            memory.Checkpoints = partial(Checkpoints, disk=disk)  # type: ignore[misc]
        if kill and kill.what == "recording":
            memory.Recorder = partial(Recorder, disk=disk)  # type: ignore[misc]
        with told.open("a") as file, suppress(KeyboardInterrupt), kind.learn(folder, steps) as run:
            for number, event in enumerate(run):
                if isinstance(event, Step):
                    file.write(json.dumps([event.index, parts_of(run, event)]) + "\n")
                    file.flush()
                if kill and kill.what == "stop" and kill.at == number:
                    run.stop.set()
                if kill and kill.what == "events" and kill.at == number:
                    if kill.interrupt:
                        raise KeyboardInterrupt
                    os.kill(os.getpid(), signal.SIGKILL)

    killed(work, seconds=120)
    return dict(map(json.loads, told.read_text().splitlines()))


@cache
def warm() -> None:
    """Let torch load what it loads with the first gradient step: once, here, and not in every child."""
    for _ in KINDS["dot"].learn(None, 2):
        pass


def resumed(
    kind: Kind, kills: list[Kill], straight: dict[int, dict], folder: Path, broken: Callable[[], None] = lambda: None, reached: int = -1
) -> list[str]:
    """What differs from `straight`, the life without interruption, in one that is killed so often and then comes to its end.

    `reached`: the newest step of a life that is there already.
    """
    wrong = []
    for kill in (*kills, None):
        if reached == kind.steps - 1:
            break
        seen = lived(kind, folder, kill, broken)
        first, last = min(seen, default=reached + 1), max(seen, default=reached)
        if first > reached + 1 or sorted(seen) != list(range(first, last + 1)):
            wrong.append(f"steps {sorted(seen)} were lived, where {reached} was the newest before, {kills}")
        reached = max(reached, last)
        wrong += [f"{what}, {kills}" for what in different(seen, straight)]
    if reached != kind.steps - 1:
        wrong.append(f"it ended with step {reached}, {kills}")
    return wrong


def different(some: dict[int, dict], straight: dict[int, dict]) -> list[str]:
    return [f"{part} at step {step}" for step, parts in some.items() for part in PARTS if parts[part] != straight.get(step, {}).get(part)]


def resume_exactly(points: int, seed: int) -> dict[str, Any]:
    """Kill lives of every kind at `points` points in all, every third life twice, and compare with lives that never were."""
    rng, wrong, straight = random.Random(seed), [], {}
    with scratch() as place:
        for point in range(points):
            name = list(KINDS)[point % len(KINDS)]
            kind = KINDS[name]
            if name not in straight:
                straight[name] = lived(kind, Path(place) / name)
            kills = [_drawn(rng)] + [_drawn(rng, soon=True)] * (point % 3 == 2)
            wrong += [f"{name}: {what}" for what in resumed(kind, kills, straight[name], Path(place) / f"{point}")]
    return {"exact": not wrong, "points": points, "different": wrong}


def _drawn(rng: random.Random, soon: bool = False) -> Kill:
    what = rng.choice(["events", "events", "saving", "recording"])
    return Kill(what, rng.randrange(1, 8 if soon else 30 if what == "events" else 90), what != "events" and rng.random() < 0.3)
