"""Every kind of world model, by its name: made, lived with, saved, dreamed, replayed, drawn and judged alike."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from exams import look

from motorbabble import recipes
from motorbabble.agents import Run, learn
from motorbabble.analysis.view import View
from motorbabble.cli import main
from motorbabble.errors import CheckpointMismatch, ConfigurationError
from motorbabble.experience import Step
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.dreaming import dream_from
from motorbabble.learning.state import architecture_of, model_from
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.selectors import GoalSelector, RandomSelector
from motorbabble.world_models.dream import DreamConfig
from motorbabble.world_models.kinds import CLASSES, KINDS, names_in, preset_of, with_settings

SMALL = {"patch_size": 8, "width": 32, "depth": 1, "heads": 2, "decoder_width": 32, "decoder_depth": 1, "batch_size": 2, "max_seconds": math.inf}
OF_KIND = {"latent": {}, "canvas": {"separator_width": 8}}
every = pytest.mark.parametrize("kind", KINDS)


def dot(seed: int = 0) -> ToroidalDotRobot:
    return ToroidalDotRobot(seed=seed, image_size=32, dot_radius=2, move_pixels=5)


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """By kind: a life of twelve steps, recorded and saved, and the folder it is in."""
    cache: dict[str, tuple[Run, Path]] = {}

    def of(kind: str) -> tuple[Run, Path]:
        if kind not in cache:
            folder = tmp_path_factory.mktemp(kind)
            keeps = MemoryConfig(folder / "saved/checkpoints/toroidal_dot/life", folder / "saved/sessions/toroidal_dot")
            run = learn(dot(), kind, "uncertainty", 12, memory=keeps, **SMALL, **OF_KIND[kind])
            for _ in run:
                pass
            cache[kind] = run, folder
        return cache[kind]

    return of


def test_checkpoints_know_every_kind_by_the_name_of_its_class():
    assert {name: kind.make.__name__ for name, kind in CLASSES.items()} == {name: name for name in CLASSES}  # type: ignore[attr-defined]
    assert list(CLASSES.values()) == list(KINDS.values())


@every
def test_every_preset_makes_a_model_with_the_history_that_its_kind_says(kind):
    for config in KINDS[kind].presets.values():
        with torch.device("meta"):  # sizes only
            assert KINDS[kind].make((32, 48), 2, with_settings(config, {"patch_size": 16})).history == KINDS[kind].history(config)


def test_settings_are_set_by_name_wherever_they_stand():
    _, config = preset_of("canvas", "tiny")
    changed = with_settings(config, {"patch_size": 8, "canvas_history_size": 5, "nobody's": 1})
    assert (changed.autoencoder.patch_size, changed.canvas_history_size, changed.residual) == (8, 5, config.residual)
    assert {"patch_size", "residual"} <= names_in(config) and "prediction_history_size" not in names_in(config)
    for model, preset in (("oracle", "tiny"), ("canvas", "huge")):
        with pytest.raises(ConfigurationError, match=f"no model '{model}' with preset '{preset}'; choose latent or canvas"):
            preset_of(model, preset)


@pytest.mark.parametrize("choice", [recipes.LatentChoice, recipes.CanvasChoice])
def test_every_flag_of_a_recipe_is_a_setting_of_its_kind_and_defaults_work(choice):
    _, config = preset_of(choice.kind, "tiny")
    assert {field.name for field in fields(choice)} - {"preset"} <= names_in(config)
    names = [name for name, recipe in recipes.RECIPES.items() if isinstance(getattr(recipe, "model", None), choice)]
    assert names and (choice.kind == "latent" or all("canvas" in name for name in names))


@every
def test_a_saved_life_is_the_same_kind_again_and_dreams(kind, lives):
    run, folder = lives(kind)
    checkpoint = folder / "saved/checkpoints/toroidal_dot/life"
    model = model_from(checkpoint, "toroidal_dot", dot().action_space)
    assert model is not None and architecture_of(model) == architecture_of(run.world_model)
    files = Checkpoints(checkpoint).load()
    assert files is not None and {"autoencoder", "predictor_0"} <= files.tensors.keys()
    config = DreamConfig("life", checkpoints=folder / "saved/checkpoints", sessions=folder / "saved/sessions")
    with dream_from(config, seed=1) as dream:
        assert {len(window) for window in dream.beginnings} == {*range(1, model.history + 1)}
        seen = [event.observation for event in live(dream, RandomSelector(0), steps=4) if isinstance(event, Step)]
        assert all(np.isfinite(each.state["uncertainty"]).all() for each in seen[1:])
    weight = dream.world_model.state_dict()["autoencoder.patch_embed.weight"]
    assert torch.equal(weight, run.world_model.state_dict()["autoencoder.patch_embed.weight"])


@every
def test_its_sessions_are_replayed_by_the_same_loop_into_a_model_of_the_same_kind(kind, lives):
    _, folder = lives(kind)
    readers = [RecordingReader(path) for path in (folder / "saved/sessions/toroidal_dot").glob("session_*")]
    robot = ReplayRobot(*readers)
    made = model_from(folder / "saved/checkpoints/toroidal_dot/life", "toroidal_dot", robot.action_space)
    run = learn(robot, made, create_recorded_action_selector(robot), None, batch_size=2, max_seconds=math.inf)
    assert sum(isinstance(event, Step) for event in run) == 12 and run.learner.updates >= 10


@every
def test_it_is_judged_drawn_and_planned_with(kind, lives, tmp_path):
    run, _ = lives(kind)
    exam = [event for event in live(dot(1), RandomSelector(1), steps=8) if isinstance(event, Step)]
    card = run.card(exam, name=kind)
    page = card.save(tmp_path).read_text()
    assert card.numbers["trials"] == 7 and json.loads((tmp_path / "card.json").read_text())["actions"] == ["stay", "move"]
    assert ("On the canvas" in page) == (kind == "canvas") == bool(card.canvases)
    view, goal = View(), GoalSelector(look(dot(2)).image, seed=0)
    for event in live(dot(1), goal, world_model=run.world_model, steps=3):
        assert isinstance(event, Step) and event.choice.why
        view.watch(event, run.situation)
    assert view.picture().shape[2] == 3


def test_the_commands_take_a_canvas(tmp_path, monkeypatch, capsys):
    """Run with a display, a life that goes on, a list, a replay into the same and into a new model, and training from its sessions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    robot = ["--robot.image-size", "32", "--robot.dot-radius", "2", "--robot.move-pixels", "5", "--exam-steps", "4", "--device", "cpu"]
    model = ["--model.patch-size", "8", "--model.separator-width", "8", "--model.canvas-history-size", "4", "--model.moved-layers", "1"]
    main(["run", "toroidal_dot_canvas", *robot, *model, "--model.no-action-token", "--steps", "6", "--display", "--display-interval", "5"])
    said = " ".join(capsys.readouterr().out.split())
    assert "toroidal_dot_canvas-seed0/card.html" in said and Path("saved/cards/toroidal_dot/toroidal_dot_canvas-seed0/view.png").exists()
    main(["checkpoints", "show", "toroidal_dot_canvas"])
    said = capsys.readouterr().out
    assert "CanvasWorldModel" in said and "canvas_history_size" in said and "action_token" in said
    with pytest.raises(CheckpointMismatch, match="canvas_history_size: 4 there, 3 here"):
        main(["run", "toroidal_dot_canvas", *robot, *model[:4], "--model.no-action-token", "--steps", "6", "--debug"])
    main(["replay", "latest", "--name", "toroidal_dot_canvas", "--device", "cpu"])
    assert "It goes on where it was saved" in capsys.readouterr().out
    main(["run", "toroidal_dot_canvas", *robot, *model, "--steps", "6", "--name", "other"])
    train = ["train", "all", "--model", "canvas", "--batch-size", "2", "--validate-every", "2", "--device", "cpu", "--patch-size", "8"]
    main([*train, "--canvas-history-size", "2", "--separator-width", "8", "--steps", "2"])
    said = capsys.readouterr().out
    assert "windows of 2 frames to learn from" in said and "update      2" in said
    main([*train, "--canvas-history-size", "2", "--separator-width", "8", "--steps", "3"])
    assert "It goes on where it was: 2 updates" in capsys.readouterr().out
    for wrong, says in [
        (["--predictor-type", "lstm"], "predictor_type is a setting of a latent model, this one is canvas"),
        (["--separator-width", "12"], "separator_width is 12; give a multiple of the patch's 8 pixels"),
        (["--separator-width", "4"], "separator_width is 4; give a multiple of the patch's 8 pixels"),
        (["--canvas-history-size", "1"], "canvas_history_size is 1; a canvas needs at least 2 frames"),
    ]:
        with pytest.raises(ConfigurationError, match=says):
            main([*train, "--fresh", *wrong, "--debug"])
    with pytest.raises(ConfigurationError, match="separator_width is a setting of a canvas model, this one is latent"):
        main(["train", "all", "--separator-width", "32", "--debug"])
