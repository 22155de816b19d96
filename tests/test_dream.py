"""A world model as a robot: what it shows is what it imagines, and every command runs inside it."""

import random
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import torch
from brief_lives import BriefMind, brief, ended, weights
from exams import squares, taught
from perfect_minds import PerfectMind, dot_2d, seen
from recordings import recorded

from motorbabble.agents import Run, learn
from motorbabble.cli import main
from motorbabble.errors import ActionError, CheckpointMismatch, ConfigurationError, FrameError, MotorbabbleError, RecordingError
from motorbabble.experience import ActionSpace, Observation, Step, Window
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.dreaming import dream_from
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.recording.format import to_png
from motorbabble.recording.reader import RecordingReader
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.dream import DreamConfig, DreamRobot
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

TWO = ActionSpace.discrete([{"action": 0}, {"action": 1}], ordered=False, labels=("right", "stay"))
SMALL = AutoencoderLatentPredictorWorldModelConfig(
    AutoencoderConfig(patch_size=8, width=32, depth=1, decoder_width=32), PredictorConfig(depth=1, heads=2), prediction_history_size=2
)


def small() -> LatentWorldModel:
    torch.manual_seed(0)
    return LatentWorldModel((32, 32), 2, SMALL)


def a_dream(steps: int = 7) -> DreamRobot:
    return DreamRobot(PerfectMind(dot_2d()), dot_2d().action_space, [seen(dot_2d(seed)) for seed in range(5)], steps, seed=3)


def looked(robot: DreamRobot) -> Observation:
    return robot.get_observation()


def test_dreaming_of_a_perfectly_known_world_is_living_in_it():
    world = dot_2d(2)
    with DreamRobot(PerfectMind(dot_2d()), world.action_space, [seen(world)], 100) as dream:
        for event in live(dream, RandomSelector(5), steps=20):
            assert isinstance(event, Step)
            assert np.array_equal(event.observation.image, world.picture())
            world.execute_action(event.executed)


class Forgetful(DreamRobot):
    """Broken on purpose: it imagines from the newest frame alone."""

    def execute_action(self, action):
        done = super().execute_action(action)
        self._window = self._window.last(1)
        return done


def test_a_dream_step_by_step_is_one_plan_imagined_but_for_rounding():
    """The first step is the same to the bit. Later ones start from a window of rounded pictures, which moves pixels by one or two of 255 levels."""
    model, window = small(), squares(2)
    taught(model, [squares(3, seed) for seed in range(3)], 100)
    model.eval()
    plan = np.eye(2, dtype=np.float32)[[0, 0, 1, 0, 0, 1]]
    at_once = model.imagine(window, plan[None])
    imagined = (at_once.images[0].movedim(1, -1).numpy() * 255).round().astype(int)
    gaps: dict[type, list[int]] = {DreamRobot: [], Forgetful: []}
    for kind, found in gaps.items():
        dream = kind(model, TWO, [window], 100)
        for step, action in enumerate(plan):
            dream.execute_action(TWO.decode(action))
            found.append(int(np.abs(looked(dream).image.astype(int) - imagined[step]).max()))
            if step == 0:
                assert looked(dream).state["uncertainty"] == pytest.approx(float(at_once.uncertainty[0, 0]))
    assert np.abs(imagined[-1] - window.images[-1].astype(int)).mean() > 2, "something happened"
    assert gaps[DreamRobot][0] == 0 and max(gaps[DreamRobot]) <= 3
    assert max(gaps[Forgetful]) > 3


def test_episodes_begin_with_real_frames_and_say_how_unsure_they_are_of_the_others():
    dream, real = a_dream(steps=4), {seen(dot_2d(seed)).images.tobytes() for seed in range(5)}
    beginnings = []
    for event in live(dream, RandomSelector(0), steps=40):
        assert isinstance(event, Step)
        first = event.index % 4 == 0
        assert event.observation.episode == event.index // 4 and ("uncertainty" in event.observation.state) != first
        if first:
            beginnings.append(event.observation.image.tobytes())
    assert set(beginnings) <= real and len(set(beginnings)) >= 3, "drawn from those it was given"
    with pytest.raises(MotorbabbleError, match="stopped"):
        dream.stop()
        dream.execute_action({"action": 0})


def test_what_makes_no_dream_is_refused_in_a_sentence():
    with pytest.raises(ActionError, match="knows actions of 2 numbers, this action space has 5"):
        DreamRobot(small(), dot_2d().action_space, [squares(2)])
    with pytest.raises(ConfigurationError, match="real frames to begin from"):
        DreamRobot(small(), TWO, [])
    with pytest.raises(ConfigurationError, match="episode_steps is 0"):
        DreamRobot(small(), TWO, [squares(2)], 0)
    with pytest.raises(FrameError, match="sees frames of shape"):
        DreamRobot(small(), TWO, [Window(np.zeros((1, 16, 16, 3), np.uint8), np.zeros((0, 2), np.float32))])
    with pytest.raises(ConfigurationError, match="no dream"):
        DreamConfig(beginnings=0)
    state = a_dream().state_dict() | {"images": [b64encode(to_png(np.zeros((16, 16, 3), np.uint8))).decode()]}
    with pytest.raises(FrameError, match="dream with the model that it was saved from"):
        a_dream().load_state_dict(state)


# From a checkpoint


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A folder in which a dot with a life of 12 steps is saved."""
    folder = tmp_path_factory.mktemp("learned")
    keeps = MemoryConfig(folder / "saved/checkpoints/dot_2d/first", folder / "saved/sessions/dot_2d")
    for _ in learn(dot_2d(), selector="random", steps=12, memory=keeps, max_updates=1):
        pass
    return folder


def config(folder: Path, checkpoint: str = "first", **changes) -> DreamConfig:
    return DreamConfig(checkpoint, checkpoints=folder / "saved/checkpoints", sessions=folder / "saved/sessions", **changes)


def test_a_checkpoint_dreams_with_the_weights_it_holds_from_the_frames_it_remembers(learned):
    (session,) = (learned / "saved/sessions/dot_2d").glob("session_*")
    reader = RecordingReader(session)
    with dream_from(config(learned, "dot_2d/first", beginnings=6), seed=4) as dream:
        assert dream.robot_type == "dream_of_dot_2d" and dream.action_space == dot_2d().action_space
        assert len(dream.beginnings) == 6 and {len(window) for window in dream.beginnings} == {1, 2}
        real = [reader.image(number).tobytes() for number in range(12)]
        assert {window.images[-1].tobytes() for window in dream.beginnings} <= set(real)
        files = Checkpoints(learned / "saved/checkpoints/dot_2d/first").load().tensors
        weight = dream.world_model.state_dict()["autoencoder.patch_embed.weight"]
        assert torch.equal(weight, files["autoencoder"]["averaged/autoencoder.patch_embed.weight"])
        first = [event.observation.image for event in live(dream, RandomSelector(1), steps=8) if isinstance(event, Step)]
    with dream_from(config(learned, "dot_2d/first", beginnings=6), seed=4) as again:
        second = [event.observation.image for event in live(again, RandomSelector(1), steps=8) if isinstance(event, Step)]
    assert np.array_equal(first, second), "the same seed, the same dream"
    with dream_from(config(learned, session=session.name)) as named:
        assert len(named.beginnings) == 12


def test_no_checkpoint_and_nothing_to_begin_from_are_one_sentence_each(learned, tmp_path):
    for wrong, said in (
        (DreamConfig(), "no checkpoint to dream with was named"),
        (config(learned, "firts"), "do you mean first"),
        (config(tmp_path, str(learned / "saved/checkpoints/dot_2d/first")), "nothing to begin from; give --robot.session"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            dream_from(wrong)
    with pytest.raises(RecordingError, match="no session 'nowhere'"):
        dream_from(config(learned, session="nowhere"))
    other = recorded(tmp_path / "counting", steps=3)
    with pytest.raises(ConfigurationError, match="choose a session of the robot that it learned from"):
        dream_from(config(learned, session=str(other)))


def test_a_checkpoint_of_another_kind_of_model_cannot_dream(tmp_path):
    keeps = MemoryConfig(tmp_path / "saved/checkpoints/dot_2d/brief", tmp_path / "saved/sessions/dot_2d")
    for _ in learn(dot_2d(), BriefMind(5), "random", steps=3, memory=keeps, max_updates=1):
        pass
    with pytest.raises(CheckpointMismatch, match="BriefMind"):
        dream_from(config(tmp_path, "brief"))


def dreamed_life(folder: Path, steps: int) -> Run:
    random.seed(0)
    np.random.seed(0)
    return ended(brief(folder, None, a_dream(steps=4), steps, max_updates=1))


def test_a_life_in_a_dream_that_is_saved_goes_on_to_the_bit(tmp_path):
    straight, first = dreamed_life(tmp_path / "straight", 10), dreamed_life(tmp_path / "halves", 4)
    second = dreamed_life(tmp_path / "halves", 6)
    assert (first.steps_done, second.steps_done) == (4, 10)
    assert weights(second.world_model) == weights(straight.world_model)
    mine, theirs = ([step.observation.image.tobytes() for step in run.lived] for run in (second, straight))
    assert mine[-10:] == theirs[-10:]


def test_every_command_runs_inside_a_dream(learned, monkeypatch, capsys):
    """One model learns from the dream of another: recorded, saved, judged, checked, replayed, and dreamed of in turn."""
    monkeypatch.chdir(learned)
    dream = ["--robot.checkpoint", "dot_2d/first", "--exam-steps", "2", "--learner.gate.max-updates", "1", "--device", "cpu"]
    main(["run", "dream_latent", *dream, "--steps", "4"])
    said = " ".join(capsys.readouterr().out.split())
    assert "A dream: what a world model imagines of dot_2d" in said and "dream_of_dot_2d/dream_latent-seed0/card.html" in said
    (session,) = (learned / "saved/sessions/dream_of_dot_2d").glob("session_*")
    assert len(RecordingReader(session)) == 5, "four steps and the last look"
    main(["sessions", "check", f"dream_of_dot_2d/{session.name}"])
    main(["replay", f"dream_of_dot_2d/{session.name}", "--name", "again", "--learner.gate.max-updates", "1", "--device", "cpu"])
    main(["run", "dream_runner", "--robot.checkpoint", "dream_of_dot_2d/dream_latent", "--steps", "5"])
    assert list((learned / "saved/sessions/dream_of_dream_of_dot_2d").glob("session_*"))
