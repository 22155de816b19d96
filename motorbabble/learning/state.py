"""All that a learner is, as named tensors and plain values; and back, to the bit.

Weights go into the files the world model names for them, each as trained and as averaged; the optimiser's state is
stored by the weights' names, so that it never depends on their order. The update counter is the learning-rate schedule.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motorbabble.errors import CheckpointError, CheckpointMismatch, MotorbabbleError
from motorbabble.experience import ActionSpace
from motorbabble.learning.checkpoint import Checkpoints, Loaded, check_actions
from motorbabble.learning.learner import Learner
from motorbabble.learning.levels import MOST_LEVELS
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.kinds import CLASSES

Tensors = dict[str, dict[str, Tensor]]
TRAINED, AVERAGED = "trained/", "averaged/"


def architecture_of(model: WorldModel) -> dict[str, Any]:
    """Every setting that shapes what the model computes, in plain values; how it is taught is left out."""
    config = getattr(model, "config", None)
    settings = flat(config) if is_dataclass(config) else {}
    shaping = {name: value for name, value in settings.items() if name.rpartition(".")[2] not in model.teaching}
    return {"model": type(model).__name__, "image_shape": list(model.image_shape), "action_size": model.action_size, **shaping}


def teaching_of(model: WorldModel) -> dict[str, Any]:
    """The settings that `architecture_of` leaves out: how it is taught, such as the weights of its losses."""
    config = getattr(model, "config", None)
    settings = flat(config) if is_dataclass(config) else {}
    return {name: value for name, value in settings.items() if name.rpartition(".")[2] in model.teaching}


def model_from(folder: Path | None, robot_type: str, space: ActionSpace) -> WorldModel | None:
    """A model of the architecture of the newest generation in a checkpoint's folder, with fresh weights; None when there is none.

    CheckpointMismatch when it was made for another action space than that of the robot at hand.
    """
    loaded = Checkpoints(folder).load() if folder else None
    if folder is None or loaded is None:
        return None
    manifest = Checkpoints(folder).manifest(loaded.generation)
    check_actions(manifest, robot_type, space)
    told = manifest["architecture"]
    if told["model"] not in CLASSES:
        raise CheckpointMismatch(f"{folder} holds a {told['model']}, this program knows {', '.join(CLASSES)}; load it with the program that made it")
    kind = CLASSES[told["model"]]
    return kind.make(tuple(told["image_shape"]), told["action_size"], configured(kind.settings, told))


def configured(config: Any, told: Mapping[str, Any], prefix: str = "") -> Any:
    """The configuration with every field set that `told` names, by dotted name as `flat` gives them."""
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = configured(value, told, f"{prefix}{field.name}.")
        elif prefix + field.name in told:
            given = told[prefix + field.name]
            changes[field.name] = tuple(given) if isinstance(given, list) else given  # JSON knows no tuples
    return replace(config, **changes)


def weights_of(learner: Learner) -> Tensors:
    """{file: {"trained/...": ..., "averaged/...": ...}}."""
    files: Tensors = {}
    versions = {TRAINED: learner.trained} if learner.world_model is learner.trained else {TRAINED: learner.trained, AVERAGED: learner.world_model}
    for prefix, model in versions.items():
        for name, tensor in model.state_dict().items():
            files.setdefault(model.file_of(name), {})[prefix + name] = tensor
    return files


def load_weights(learner: Learner, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Both versions, or neither: CheckpointMismatch, naming what differs, before the first weight is touched."""
    trained, averaged = _versions(files)
    for theirs in (trained, averaged):
        _check_alike(theirs, learner.trained.state_dict())
    learner.trained.load_state_dict(trained)
    if learner.world_model is not learner.trained:
        learner.world_model.load_state_dict(averaged)


def load_learned(learner: Learner, loaded: Loaded) -> None:
    """All that was learned, into a learner of that architecture: levels, weights, optimiser, counters. Neither memories nor generators.

    CheckpointMismatch, before a weight is touched, where the weights are another model's.
    """
    grow_as_saved(learner, loaded.state)
    check_weights(learner, loaded.tensors)
    load_optimizer(learner, loaded.tensors["optimizer"])
    load_weights(learner, loaded.tensors)
    load_counters(learner, loaded.state["counters"])
    if "levels" in loaded.state:
        learner.levels.load_state_dict(loaded.state["levels"])


def load_averaged(model: WorldModel, state: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Only the version that acts, into a fresh model that will not learn, all its levels included; CheckpointMismatch as above."""
    for _ in range(1, _levels_in(state, model)):
        model.grow(0)
    averaged = _versions(files)[1]
    _check_alike(averaged, model.state_dict())
    model.load_state_dict(averaged)


def mind_from(folder: Path | str, robot_type: str, space: ActionSpace) -> WorldModel:
    """The model that acts, as a checkpoint's newest whole generation holds it, for looking only: nothing trains it.

    CheckpointError where no generation is whole, CheckpointMismatch where it was made for another action space than that of the robot at hand.
    """
    loaded = Checkpoints(folder).load()
    with torch.random.fork_rng(devices=[]):  # a life may be drawing from torch's own generator
        model = model_from(Path(folder), robot_type, space)
    if loaded is None or model is None:
        raise CheckpointError(f"{folder} holds no generation that is whole; choose another checkpoint")
    try:
        load_averaged(model, loaded.state, loaded.tensors)
    except MotorbabbleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{folder} says something this program does not know ({error!r:.200}); choose another checkpoint") from error
    return model.requires_grad_(False).eval()


def check_weights(learner: Learner, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """CheckpointMismatch, naming what differs, where these are the weights or the optimiser's state of another model. Touches nothing."""
    for theirs in _versions(files):
        _check_alike(theirs, learner.trained.state_dict())
    weights = dict(learner.trained.named_parameters())
    told = {key: tensor for key, tensor in files["optimizer"].items() if not key.endswith("/step")}
    _check_alike(told, {key: weights[name] for key in told if (name := key.rpartition("/")[0]) in weights})


def _versions(files: Mapping[str, Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trained and averaged weights, by name. They may have been stored in half precision, which nothing computes in."""
    found = {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for file, tensors in files.items()
        for name, tensor in tensors.items()
        if name.startswith((TRAINED, AVERAGED))
    }
    trained = {name.removeprefix(TRAINED): tensor for name, tensor in found.items() if name.startswith(TRAINED)}
    averaged = {name.removeprefix(AVERAGED): tensor for name, tensor in found.items() if name.startswith(AVERAGED)} or trained
    return trained, averaged


def optimizer_of(learner: Learner) -> dict[str, Tensor]:
    """{"<weight>/<what>": ...}: AdamW's moments and step count of every weight that has them."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in learner.trained.named_parameters()}
    state = learner.optimizer.state
    return {
        f"{names[parameter]}/{what}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, kept in state.items()
        for what, value in kept.items()
    }


def load_optimizer(learner: Learner, tensors: Mapping[str, Tensor]) -> None:
    numbers = {parameter: i for i, parameter in enumerate(p for group in learner.optimizer.param_groups for p in group["params"])}
    kept: dict[int, dict[str, Tensor]] = {}
    parameters = dict(learner.trained.named_parameters())
    for key, tensor in tensors.items():
        name, _, what = key.rpartition("/")
        kept.setdefault(numbers[parameters[name]], {})[what] = tensor.clone()
    learner.optimizer.load_state_dict({"state": kept, "param_groups": learner.optimizer.state_dict()["param_groups"]})


def grow_as_saved(learner: Learner, state: Mapping[str, Any]) -> None:
    """As many levels of prediction as there were, with fresh weights, so that those that were saved find their place."""
    count = _levels_in(state, learner.trained)
    while len(learner.levels) < count:
        learner.grow()
    while len(learner.levels) > count:
        learner.retire()


def _levels_in(state: Mapping[str, Any], model: WorldModel) -> int:
    count = len(state["levels"]["records"]) if "levels" in state else 1  # a training has no levels but the lowest
    if count < 1 or (count > 1 and not model.can_grow) or count > MOST_LEVELS:
        raise CheckpointMismatch(f"the checkpoint has {count} levels of prediction, which {type(model).__name__} cannot have; use another --name")
    return count


def counters_of(learner: Learner) -> dict[str, Any]:
    return {"updates": learner.updates, "samples": learner.samples, "seconds": learner.seconds}


def load_counters(learner: Learner, counters: Mapping[str, Any]) -> None:
    learner.updates, learner.samples, learner.seconds = counters["updates"], counters["samples"], counters["seconds"]


def generators_of(learner: Learner) -> dict[str, Any]:
    """The learner's own, and the global ones of Python, NumPy and torch, which a selector or model of yours may draw from."""
    version, words, gauss = random.getstate()
    kind, key, *rest = np.random.get_state()
    return {
        "learner": learner.rng.bit_generator.state,
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(word) for word in key], *(int(x) if isinstance(x, int | np.integer) else float(x) for x in rest)],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def load_generators(learner: Learner, states: Mapping[str, Any]) -> None:
    learner.rng.bit_generator.state = states["learner"]
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, key, *rest = states["numpy"]
    np.random.set_state((kind, np.array(key, np.uint32), *rest))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(state, dtype=torch.uint8) for state in states["cuda"]])


def replay_of(learner: Learner, before: int) -> dict[str, Tensor]:
    """What is remembered from before look number `before`, without the frames. NaN stands for "no action led here"."""
    return {f"replay/{name}": torch.from_numpy(np.nan_to_num(array, nan=NOTHING)) for name, array in learner.replay.references(before).items()}


def load_replay(learner: Learner, tensors: Mapping[str, Tensor], moments: int, frame: Callable[[int], np.ndarray | None]) -> int:
    """Answers how many memories were lost."""
    arrays = {name.removeprefix("replay/"): tensor.numpy() for name, tensor in tensors.items() if name.startswith("replay/")}
    arrays["led"] = np.where(arrays["led"] == NOTHING, np.nan, arrays["led"])

    def at_the_door(moment: int) -> np.ndarray | None:
        image = frame(moment)
        return None if image is None else learner.trained.at_the_door(image)

    return learner.replay.load(arrays, moments, at_the_door)


NOTHING = -2.0  # encoded actions lie in [-1, 1]; a checkpoint holds finite numbers only


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration's fields and those of the ones inside it, by dotted name, as plain values."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        found |= flat(value, f"{prefix}{field.name}.") if is_dataclass(value) else {prefix + field.name: _plain(value)}
    return found


def _plain(value: Any) -> Any:
    """What JSON can hold: tuples become lists; infinity, and whatever else it does not know, words."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    known = value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    return value if known else str(value)


def _check_alike(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    told = {name: (list(tensor.shape), str(tensor.dtype)) for name, tensor in theirs.items()}
    here = {name: (list(tensor.shape), str(tensor.dtype)) for name, tensor in ours.items()}
    wrong = [
        f"{name}: {told.get(name, 'absent')} there, {here.get(name, 'absent')} here"
        for name in sorted({*told, *here})
        if told.get(name) != here.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointMismatch(f"the checkpoint's weights are of another model ({'; '.join(wrong[:5])}{more}); use another --name")
