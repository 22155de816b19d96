"""What a mind makes of a recorded moment: each prediction is held to the frame it is of, and the recorded action is the one marked."""

from dataclasses import replace

import numpy as np
import pytest
import test_canvas
import test_latent
import torch
from counting import Counting, read, write
from perfect_minds import Glider
from recordings import recorded
from test_health import damage

from motorbabble.analysis.attention import attention_numbers
from motorbabble.analysis.moments import ALIKE, attend, mean_frame_of, predict, reconstruct, recorded_plan, sweep, what_if
from motorbabble.analysis.plans import LONGEST, plan_of, written
from motorbabble.analysis.scores import Trial
from motorbabble.errors import ActionError, ConfigurationError, Diverged, FrameError, RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Channel, Window
from motorbabble.recording.reader import RecordingReader
from motorbabble.world_models.base import Imagination, WorldModel
from motorbabble.world_models.canvas import CanvasWorldModel
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

SIZE = 32


class Counter(WorldModel):
    """Knows the counting robot: its pictures are what will come. `unsure` of the h-th step of the n-th plan: n + h / 10 nats."""

    image_shape, action_size, history = (SIZE, SIZE), 1, 3

    def __init__(self, late: int = 0):
        super().__init__()
        self.weight, self.late = torch.nn.Parameter(torch.zeros(1)), late
        self.asked: list[Window] = []

    def reconstruct(self, images):
        return torch.from_numpy(images).movedim(-1, 1).float() / 255

    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        assert not self.training and not torch.is_grad_enabled()
        self.asked.append(window)
        films = []
        for plan in plans:
            count, films = read(window.images[-1])[0] - self.late, [*films, []]
            for add in (1 if action[0] < 0 else 2 for action in plan):
                count += add
                films[-1].append(write(count, add, SIZE))
        images = torch.from_numpy(np.array(films)).movedim(-1, 2).float() / 255
        return Imagination(images, torch.arange(float(len(plans)))[:, None] + torch.arange(plans.shape[1]) / 10)

    def losses(self, batch):
        raise AssertionError("nothing learns here")


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> RecordingReader:
    """13 moments of three episodes: 0 to 4, 5 to 9, 10 to 12; the last one is an ending."""
    return RecordingReader(recorded(tmp_path_factory.mktemp("counted"), Counting(SIZE, episode_steps=5), steps=12))


@pytest.fixture
def mind() -> Counter:
    return Counter()


FIRSTS = (0, 5, 10)
PREDICTABLE = [moment for moment in range(13) if moment not in FIRSTS]


# Windows


def test_the_window_that_ends_in_a_moment_holds_what_led_to_it(session):
    for stretch in session.stretches:
        for moment in stretch:
            found = session.window_ending_in(moment, 3)
            first = max(stretch.start, moment - 2)
            wanted = session.window(first, moment - first + 1)
            assert np.array_equal(found.images, wanted.images) and np.array_equal(found.actions, wanted.actions)
            assert session.follows(moment) == (moment != stretch.start)
    assert not session.follows(13) and not session.follows(-1)


def test_a_window_ends_where_a_frame_or_a_line_is_lost(tmp_path):
    folder = recorded(tmp_path, Counting(SIZE), steps=8)
    damage(folder / "frames_shard_000.pack", RecordingReader(folder).moment(3).frame.at + 8)
    lines = (folder / "events_shard_000.jsonl").read_bytes().split(b"\n")
    damage(folder / "events_shard_000.jsonl", sum(len(line) + 1 for line in lines[:7]) + 20)  # moment 6, behind the header
    reader = RecordingReader(folder)
    assert [len(reader.window_ending_in(moment, 3)) for moment in (2, 4, 5, 7, 8)] == [3, 1, 2, 1, 2]
    for moment in (3, 6):
        with pytest.raises(SessionDamaged):
            reader.window_ending_in(moment, 3)


# Reconstruction


def test_a_reconstruction_is_of_the_frame_of_that_moment(session, mind):
    for moment in range(13):
        found = reconstruct(mind, session, moment)
        assert np.array_equal(found.frame, session.image(moment)) and found.error == 0 and found.skill == 1
    mean = mean_frame_of(session, mind)
    assert np.allclose(mean, np.mean([session.image(moment) / 255 for moment in range(13)], axis=0), atol=1e-6)
    torch.manual_seed(0)
    found = reconstruct(LatentWorldModel((SIZE, SIZE), 1, AutoencoderLatentPredictorWorldModelConfig(*test_latent.SMALL)), session, 3, mean)
    assert found.error == pytest.approx(np.square(found.decoded - found.frame / 255).mean(), rel=1e-5)
    assert found.skill == pytest.approx(1 - found.error / np.square(mean - found.frame / 255).mean(), rel=1e-4)


# Prediction


def test_the_prediction_of_a_moment_is_held_to_the_frame_of_that_moment(session, mind):
    for moment in PREDICTABLE:
        found = predict(mind, session, moment)
        assert np.array_equal(found.frame, session.image(moment)) and np.array_equal(found.before, session.image(moment - 1))
        assert found.error == 0 and found.skill == 1
        assert found.copy_error == pytest.approx(np.square(session.image(moment) / 255 - session.image(moment - 1) / 255).mean())
        assert found.action == session.moment(moment - 1).executed


def test_a_mind_that_is_one_count_late_is_found_out(session):
    assert all(predict(Counter(late=1), session, moment).error > 0 for moment in PREDICTABLE)


@pytest.mark.parametrize(("moment", "frames", "seen"), [(4, 1, [3]), (4, 2, [2, 3]), (4, None, [1, 2, 3]), (7, 3, [5, 6])])
def test_a_prediction_is_made_from_as_many_earlier_frames_as_asked_for(session, mind, moment, frames, seen):
    assert predict(mind, session, moment, frames).frames == len(seen)
    assert np.array_equal(mind.asked[-1].images, [session.image(number) for number in seen])
    assert np.array_equal(mind.asked[-1].actions, [session.encoded_action(number) for number in seen[:-1]]) or len(seen) == 1


@pytest.mark.parametrize("moment", FIRSTS)
def test_nothing_foretells_the_first_frame_of_an_episode(session, mind, moment):
    with pytest.raises(RecordingError, match=f"moment {moment} .* begins a stretch"):
        predict(mind, session, moment)


@pytest.mark.parametrize("frames", [0, 4, -1])
def test_more_frames_than_the_model_looks_at_are_refused(session, mind, frames):
    for ask in (predict, sweep, attend):
        with pytest.raises(ConfigurationError, match="looks at 1 to 3"):
            ask(mind, session, 3, frames)


# Sweep


def test_a_sweep_marks_what_was_recorded_and_its_picture_is_what_came(session, mind):
    for moment in PREDICTABLE:
        found = sweep(mind, session, moment - 1)
        assert [one.label for one in found.tried] == ["one", "two"] and [one.uncertainty for one in found.tried] == [0, 1]
        assert found.after is not None and np.array_equal(found.after, session.image(moment))
        (marked,) = [one for one in found.tried if one.is_recorded]
        assert marked.action == session.moment(moment - 1).executed and marked.error == 0 and found.closest is marked
        assert all(one.error for one in found.tried if one is not marked)
        assert found.copy_error == predict(mind, session, moment).copy_error and marked.error == predict(mind, session, moment).error


@pytest.mark.parametrize(("moment", "marked"), [(4, 1), (9, 1), (12, 0)])
def test_where_nothing_came_of_a_moment_a_sweep_has_no_errors(session, mind, moment, marked):
    """The last step of an episode leads to nothing that was seen of it; from an ending nothing was done."""
    found = sweep(mind, session, moment)
    assert found.after is None and found.copy_error is None and found.closest is None
    assert [one.error for one in found.tried] == [None, None] and sum(one.is_recorded for one in found.tried) == marked


def test_of_ranges_a_sweep_holds_the_recorded_action_itself(tmp_path):
    reader = RecordingReader(recorded(tmp_path, Glider(), steps=3))
    found = sweep(test_latent.small(), reader, 1)
    (marked,) = [one for one in found.tried if one.is_recorded]
    assert len(found.tried) == 9 and marked.action == reader.moment(1).executed
    assert [one.action for one in sweep(test_latent.small(), reader, 1).tried] == [one.action for one in found.tried], "each time the same ones"
    assert len(sweep(test_latent.small(), reader, 1, most=3).tried) == 4


# What if


def test_a_plan_is_held_to_what_came_while_it_was_really_done(session, mind):
    for moment in range(10):
        end = 4 - moment % 5  # transitions left in this episode
        done = recorded_plan(session, moment)
        assert done == [session.moment(number).executed for number in range(moment, moment + end + 1)]
        found = what_if(mind, session, moment, done)
        assert len(found.came) == end and found.errors == [0] * end and found.expected.shape == (end + 1, SIZE, SIZE, 3)
        assert all(np.array_equal(frame, session.image(moment + 1 + i)) for i, frame in enumerate(found.came))
        assert found.copy_errors == [pytest.approx(np.square(frame / 255 - session.image(moment) / 255).mean()) for frame in found.came]
        assert found.uncertainty == [pytest.approx(h / 10) for h in range(end + 1)]
    assert recorded_plan(session, 10) == [session.moment(10).executed, session.moment(11).executed] and recorded_plan(session, 12) == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_behind_the_first_other_action_nothing_is_compared(session, mind, at):
    done = recorded_plan(session, 5)[:4]
    plan = [action if i != at else ({"add": 1.0} if action["add"] == 2 else {"add": 2.0}) for i, action in enumerate(done)]
    found = what_if(mind, session, 5, plan)
    assert len(found.came) == len(found.errors) == at and f"At moment {5 + at} “" in found.why


def test_it_says_how_far_the_recording_goes_along(session, mind):
    assert what_if(mind, session, 5, recorded_plan(session, 5)[:2]).why.startswith("All of the plan was really done")
    assert "behind moment 9" in what_if(mind, session, 5, recorded_plan(session, 5)).why
    assert "behind moment 12" in what_if(mind, session, 12, "one").why
    assert what_if(mind, session, 5, "one*3 two").plan == [{"add": 1}, {"add": 1}, {"add": 1}, {"add": 2}]
    with pytest.raises(ActionError, match="do you mean one"):
        what_if(mind, session, 5, "oen")


def test_a_typed_number_stands_for_the_recorded_one_it_is_next_to(tmp_path):
    reader = RecordingReader(recorded(tmp_path, Glider(), steps=4))
    typed = written(recorded_plan(reader, 0), reader.action_space)
    assert len(what_if(test_latent.small(), reader, 0, typed).came) == 4
    assert len(what_if(test_latent.small(), reader, 0, "right=4 down=4, right=4").came) == 0


# Damage and strange minds


def test_a_damaged_moment_is_refused_and_what_lies_beside_it_is_told_without_it(tmp_path, mind):
    folder = recorded(tmp_path, Counting(SIZE), steps=6)
    damage(folder / "frames_shard_000.pack", RecordingReader(folder).moment(3).frame.at + 8)
    reader = RecordingReader(folder)
    for ask in (reconstruct, predict, sweep, attend):
        with pytest.raises(SessionDamaged, match="moment 3"):
            ask(mind, reader, 3)
    assert sweep(mind, reader, 2).after is None and what_if(mind, reader, 2, recorded_plan(reader, 2)).came == []
    assert predict(mind, reader, 5).frames == 1, "a window that damage cut short"
    with pytest.raises(SessionDamaged):
        predict(mind, reader, 4)
    assert mean_frame_of(reader, mind).shape == (SIZE, SIZE, 3)
    for moment in range(7):
        damage(folder / "frames_shard_000.pack", reader.moment(moment).frame.at + 9)
    with pytest.raises(SessionDamaged, match="none can be read"):
        mean_frame_of(reader, mind)
    with pytest.raises(RecordingError, match="no moment 99"):
        reconstruct(mind, reader, 99)


def test_a_mind_of_another_size_is_refused_unless_it_has_a_door(session):
    config = AutoencoderLatentPredictorWorldModelConfig(*test_latent.SMALL)
    with pytest.raises(FrameError, match="sees frames of shape"):
        sweep(LatentWorldModel((16, 16), 1, config), session, 3)
    small = LatentWorldModel((16, 16), 1, replace(config, image_size=(16, 16)))
    for found in (reconstruct(small, session, 3).decoded, predict(small, session, 3).expected, sweep(small, session, 3).now):
        assert found.shape == (16, 16, 3)
    assert what_if(small, session, 5, recorded_plan(session, 5)).came[0].shape == (16, 16, 3)
    looked = attend(small, session, 3)
    assert looked and looked.look.frames.shape[1:] == (16, 16, 3)


def test_pictures_that_are_no_numbers_are_refused(session, mind):
    nothing = torch.full((1, 1, 3, SIZE, SIZE), float("nan"))
    mind.imagine = lambda window, plans, **settings: Imagination(nothing.expand(len(plans), -1, -1, -1, -1), torch.zeros(len(plans), 1))
    for ask in (predict, sweep):
        with pytest.raises(Diverged):
            ask(mind, session, 3)


# Attention


def test_attention_is_that_of_the_prediction_from_this_moment(session):
    torch.manual_seed(0)
    model = LatentWorldModel((SIZE, SIZE), 1, AutoencoderLatentPredictorWorldModelConfig(*test_latent.SMALL)).eval()
    found = attend(model, session, 7)
    trial = Trial(session.window(5, 3), session.encoded_action(7), session.image(8), None, True)
    assert found and found.numbers == attention_numbers(model, [trial]) and found.changed
    assert len(found.look.heads) == 2 and np.array_equal(found.look.frames, [session.image(6), session.image(7)])
    assert 0 < found.look.changed.sum() < found.look.changed.size
    at_the_end = attend(model, session, 9)
    assert at_the_end and not at_the_end.changed and at_the_end.look.changed.all(), "nothing came of it, so all of the frame asks"
    with pytest.raises(RecordingError, match="ending"):
        attend(model, session, 12)


def test_models_without_such_attention_tell_none(session):
    assert attend(CanvasWorldModel((SIZE, SIZE), 1, test_canvas.SMALL), session, 3) is None


# Plans

NAMED = ActionSpace.discrete([{"a": 0}, {"a": 1}, {"a": 2}], labels=("stay", "move", "move left"))
CHANNELS = ActionSpace.discrete([{"left": 0, "right": 0, "wait": 0.2}, {"left": 0, "right": 0.12345678, "wait": 0.2}], units={"wait": "s"})
BOX = ActionSpace.box([Channel("right", -4, 4, "px"), Channel("down", -4, 4, "px")], rest={"right": 0, "down": 0})


@pytest.mark.parametrize(
    ("space", "text", "plan"),
    [
        (NAMED, "stay", [0]),
        (NAMED, "move*3 stay", [1, 1, 1, 0]),
        (NAMED, "move left*2, move, Move Left", [2, 2, 1, 2]),
        (NAMED, " MOVE * 2;stay ", [1, 1, 0]),
        (NAMED, "a=1 a=1, a=2*2", [1, 1, 2, 2]),
        (CHANNELS, "right=0.123457*2 right=0", [1, 1, 0]),
        (CHANNELS, "left=0 right=0.123457 wait=0.2s*2", [1, 1]),
    ],
)
def test_a_plan_is_read_as_it_is_typed(space, text, plan):
    assert plan_of(text, space) == [space.actions[i] for i in plan]


def test_channels_of_ranges_belong_together_until_one_is_named_again():
    typed = plan_of("right=2 down=-1px*2, right=1, down=3 right=-4 right=0", BOX)
    assert [(action["right"], action["down"]) for action in typed] == [(2, -1), (2, -1), (1, 0), (-4, 3), (0, 0)]


@pytest.mark.parametrize("space", [NAMED, CHANNELS, BOX])
def test_what_is_written_is_read_back(space):
    rng = np.random.default_rng(0)
    for _ in range(50):
        plan = [space.candidates(30)[i] for i in rng.integers(0, len(space.candidates(30)), rng.integers(1, 9))]
        again = plan_of(written(plan, space), space)
        assert len(again) == len(plan)
        assert np.allclose([space.encode(action) for action in again], [space.encode(action) for action in plan], atol=ALIKE / 2)
    edge = ActionSpace.box([Channel("turn", -0.12345, 0.12355)], rest={"turn": 0})
    for turn in (-0.12345, 0.12355):
        assert plan_of(written([{"turn": turn}], edge), edge)


@pytest.mark.parametrize(
    ("space", "text", "said"),
    [
        (NAMED, "", "the plan is empty; type actions such as “move\\*3 stay”"),
        (NAMED, " , ;", "the plan is empty"),
        (NAMED, "jump", "“jump” is no action here; use stay, move, move left, with"),
        (NAMED, "mvoe*2", "do you mean move\\?"),
        (NAMED, "move*0", "“move\\*0” repeats it 0 times; repeat an action at least once"),
        (NAMED, "stay move*64", f"“move\\*64” makes 65 actions; give at most {LONGEST}"),
        (NAMED, "a=7", "is unknown; choose one of"),
        (BOX, "right", "“right” is no action here; type right=NUMBER down=NUMBER, with"),
        (BOX, "right=far", "gives right no number; type right=NUMBER, -4 to 4"),
        (BOX, "right=nan", "outside -4 to 4"),
        (BOX, "right=5", "outside -4 to 4"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(space, text, said):
    with pytest.raises(ActionError, match=said) as refused:
        plan_of(text, space)
    assert "\n" not in str(refused.value)


def test_the_example_that_an_empty_plan_is_answered_with_works():
    for space in (NAMED, CHANNELS, BOX, ActionSpace.discrete([{"a": 1}])):
        with pytest.raises(ActionError) as refused:
            plan_of("", space)
        assert 1 <= len(plan_of(str(refused.value).split("“")[1].rstrip("”"), space)) <= 4
