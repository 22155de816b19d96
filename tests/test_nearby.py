"""Frames in the memory of the device that learns: the same batches to the bit, within bounds, and nothing saved knows of it."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from exams import squares
from test_latent import SMALL

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Observation, Window
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.nearby import NearbyFrames, Slots
from motorbabble.learning.replay import Remembered, Replay, ReplayConfig
from motorbabble.world_models.base import Batch
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

CPU = torch.device("cpu")
FRAME_MB = 32 * 32 * 3 / 1e6


def learner(device_mb: float | None, capacity: int = 5000, frames: int = 20) -> Learner:
    torch.manual_seed(0)
    config = LearnerConfig(batch_size=3, shift=(8, 8), replay=ReplayConfig(capacity, device_mb=device_mb))
    made = Learner(LatentWorldModel((32, 32), 2, AutoencoderLatentPredictorWorldModelConfig(*SMALL)), config, seed=0)
    lived(made, frames)
    return made


def lived(made: Learner, frames: int, seed: int = 0) -> None:
    seen = squares(frames, seed)
    for i, image in enumerate(seen.images):
        made.remember(Observation(image), seen.actions[i - 1] if i else None)


def batch(made: Learner) -> Batch:
    windows, _ = made.choose()
    return made._batch(windows, made.replay.background())


def assert_same(one: Batch, other: Batch) -> None:
    for name in ("images", "actions", "background"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype and ours.is_contiguous() == theirs.is_contiguous(), name
    assert np.array_equal(one.seeds, other.seeds) and one.draw == other.draw  # type: ignore[arg-type]


# Four slots are fewer than a batch's frames, so that it goes by the host; 13 hold a batch, and give way to each other.
@pytest.mark.parametrize(("slots", "used"), [(1000, 20), (13, 13), (4, 0)])
def test_batches_are_the_same_to_the_bit(slots, used):
    near, far = learner(device_mb=slots * FRAME_MB + 1e-6, capacity=slots if slots == 1000 else 5000), learner(device_mb=0)
    for _ in range(25):
        assert_same(batch(near), batch(far))
    assert len(near._nearby._slots) == used and not far._nearby._slots


def test_frames_that_were_forgotten_give_way_to_new_ones():
    near, far = learner(device_mb=1.0, capacity=15), learner(device_mb=0, capacity=15)
    for seed in range(1, 6):
        for one in (near, far):
            lived(one, 10, seed)
        for _ in range(5):
            assert_same(batch(near), batch(far))
    assert near._nearby.frames is not None and len(near._nearby.frames) == 15


def test_a_frame_is_copied_over_once(monkeypatch):
    near = learner(device_mb=1.0)
    counts: list[int] = []
    fetch = near._nearby._slots.fetch

    def counted(frames, most):
        new = fetch(frames, most)
        counts.append(len(new))
        return new

    monkeypatch.setattr(near._nearby._slots, "fetch", counted)
    for _ in range(40):
        batch(near)
    assert sum(counts) == 20 and counts[0] >= 3 and not any(counts[-5:])


def test_another_frame_that_got_a_forgotten_ones_id_is_not_mistaken_for_it():
    near = NearbyFrames(CPU, 1.0, 10)
    old, new = (np.full((4, 4, 3), value, np.uint8) for value in (1, 2))
    none, still = np.zeros((0, 0), np.float32), np.zeros((1, 2), int)
    assert near.gather([Remembered.of([old], none)], still) is not None
    places = near._slots._of
    places[id(new)] = places.pop(id(old))  # as if `new` lay where `old` did
    found = near.gather([Remembered.of([new], none)], still)
    assert found is not None and bool((found == 2).all()) and len(near._slots) == 1


def test_slots_are_no_more_than_the_most_frames_that_were_wanted_at_once():
    slots, frames = Slots(), [np.full((2, 2, 3), value, np.uint8) for value in range(9)]
    assert list(slots.fetch(frames[:5], 5)) == [0, 1, 2, 3, 4]
    assert slots.fetch(frames[5:7], 3) == {0: frames[5], 1: frames[6]} and len(slots) == 5  # the first two had waited longest
    assert slots.fetch(frames[2:7], 3) == {} and slots[frames[5]] == 0


def test_learning_is_the_same_to_the_bit():
    near, far = learner(device_mb=1.0), learner(device_mb=0)
    for one in (near, far):
        one.grow()  # whose own windows are gathered as well
        for _ in range(4):
            one.update(one.choose()[0], long=one._long())
    assert near._nearby._slots and all(map(torch.equal, near.trained.state_dict().values(), far.trained.state_dict().values()))


def test_windows_from_elsewhere_go_by_the_host():
    near = learner(device_mb=1.0)
    own = [Window(window.images, window.actions) for window in near.choose()[0]]
    near.update(own)
    assert near._nearby.frames is None


def test_a_full_device_leaves_the_frames_on_the_host(monkeypatch):
    def full(*size, **how):
        asked.append(size)
        raise torch.OutOfMemoryError("no room")

    near, far, asked = learner(device_mb=1.0), learner(device_mb=0), []
    monkeypatch.setattr("motorbabble.learning.nearby.torch.empty", full)
    for _ in range(3):
        assert_same(batch(near), batch(far))
    assert len(asked) == 1, "it asked again"


def test_on_a_cpu_frames_stay_where_they_are_unless_asked_for():
    made = learner(device_mb=None)
    batch(made)
    assert made._nearby.megabytes == 0 and not made._nearby._slots


def test_a_remembered_window_is_a_window():
    replay, seen = Replay(), squares(5)
    for i, image in enumerate(seen.images):
        replay.add(image, seen.actions[i - 1] if i else None)
    window = replay.newest(3)
    assert isinstance(window, Window) and len(window) == 3 and "images" not in vars(window)
    assert np.array_equal(window.images, seen.images[-3:]) and np.array_equal(window.actions, seen.actions[-2:])
    for other in (replace(window, states={}), copy.copy(window), pickle.loads(pickle.dumps(window)), window.last(9)):
        assert np.array_equal(other.images, window.images) and len(other) == 3
    assert len(window.last(2)) == 2


def test_less_than_no_memory_is_refused_in_one_sentence():
    with pytest.raises(ConfigurationError, match="device_mb is -1; give megabytes"):
        ReplayConfig(device_mb=-1)
