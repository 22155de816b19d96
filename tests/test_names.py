"""docs/names.md: every name of ours in it can be imported, and every name that is said to be kept is where it says, and works."""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import motorbabble
from motorbabble import (
    AutoencoderConcatPredictorWorldModel,
    AutoencoderLatentPredictorWorldModel,
    RobotRunner,
    ToroidalDotRobot,
)
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.recording_robot import RecordingRobot
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector
from motorbabble.selectors import SEQUENCE_ALTERNATE, SEQUENCE_ALWAYS_MOVE, create_constant_action_selector, create_sequence_action_selector

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "names.md").read_text()
SMALL = {"patch_size": 16, "width": 32, "decoder_width": 32, "depth": 1, "heads": 2, "batch_size": 2}


def found(path: str):
    """What a dotted path leads to: a module, something in it, a member or a setting of that."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part)
        return thing
    raise ModuleNotFoundError(path)


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def kept() -> list[tuple[str, str, bool]]:
    """(name, where it is, whether the package itself has it)."""
    rows = [line.strip("|").split("|") for line in section("Kept").splitlines() if line.startswith("| `")]
    return [(name, where.strip(" `"), bool(star)) for names, where in rows for name, star in re.findall(r"`(\w+)`( \*)?", names)]


def small_dot() -> ToroidalDotRobot:
    return ToroidalDotRobot(image_size=32, dot_radius=2, move_pixels=5, seed=0)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(motorbabble(?:\.\w+)+)", TEXT))))
def test_a_name_of_ours_can_be_imported(path):
    found(path)


@pytest.mark.parametrize("name, where, in_package", kept(), ids=lambda value: str(value))
def test_a_kept_name_is_where_it_says(name, where, in_package):
    assert hasattr(found(where), name)
    assert (name in motorbabble.__all__) == in_package


@pytest.mark.parametrize("path", ["motorbabble.robots.nowhere.Dot", "motorbabble.faces.Gone", "motorbabble.config.ToroidalDotConfig.IMG_SIZE"])
def test_a_name_that_is_not_there_is_noticed(path):
    with pytest.raises((ModuleNotFoundError, AttributeError)):
        found(path)


def test_the_constructors_keep_their_words():
    words = set(re.findall(r"`(\w+)`", section("Kept").partition("constructors' words")[2].partition(";")[0]))
    taken = [AutoencoderLatentPredictorWorldModel, AutoencoderConcatPredictorWorldModel, *AutoencoderConcatPredictorWorldModel.__mro__, RobotRunner]
    known = {name for one in taken if one is not object for name in inspect.signature(one).parameters}
    assert len(words) == 7 and not words - known


def test_every_script_is_in_the_table():
    listed = set(re.findall(r"`((?:examples|notebooks)/[\w.]+)`", section("Scripts")))
    there = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("examples/*.py"), *ROOT.glob("notebooks/*.ipynb")]}
    assert listed == there


def test_the_kept_names_work_together(tmp_path):
    """Record with the runner, replay, learn with both world models: as the description's own programs do, word for word where it gives words."""
    alternate = create_sequence_action_selector(SEQUENCE_ALTERNATE)
    with RecordingRobot(small_dot(), tmp_path) as robot:
        assert RobotRunner(robot, action_selector=alternate, interactive=False, display_interval=0, action_delay=0.0).run(4)["steps"] == 4

    reader = RecordingReader(robot.session)
    moved = create_recorded_action_selector(reader, action_filter=lambda action: action["action"] == 1)
    with small_dot() as robot:
        assert RobotRunner(robot, moved).run(9)["count/move"] == 2, "it ends with the recording"

    with ReplayRobot(reader) as robot:
        model = AutoencoderLatentPredictorWorldModel(
            robot,
            checkpoint_dir=tmp_path / "jetbot_checkpoints",
            interactive=False,
            wandb_project=None,
            action_selector=create_recorded_action_selector(robot),
            **SMALL,
        )
        with model:
            model.main_loop()
        assert model.life.steps_done == 4 and (tmp_path / "jetbot_checkpoints").is_dir()

    losses = []
    with small_dot() as robot:
        canvas = AutoencoderConcatPredictorWorldModel(
            robot,
            action_selector=create_constant_action_selector(SEQUENCE_ALWAYS_MOVE[0]),
            training_callback=lambda iteration, loss: losses.append(loss),
            separator_width=16,
            **SMALL,
        )
        canvas.run(max_iterations=4)
        assert len(losses) == len(canvas.loss_history) > 0 and canvas.training_canvas is not None
        assert np.isfinite(canvas.train_autoencoder(canvas.training_canvas))
        canvas.reset_state()
        assert canvas.prediction_canvas is None
        canvas.close()
