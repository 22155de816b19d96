"""Lessons: only what should learn learns, on the moments that were meant, from the weights that were loaded; and what was learned is kept.

Then the same as the explorer's work: one at a time, whoever asks; ended after the update at hand; saved whole, and never over anything.
"""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import Counting, read
from recordings import recorded

from motorbabble.agents import learn
from motorbabble.commands.checkpoints import checkpoints as checkpoints_command
from motorbabble.commands.train import train
from motorbabble.errors import CheckpointMismatch, ConfigurationError, RecordingError
from motorbabble.explorer import lesson_panel
from motorbabble.explorer.lessons import LessonJob
from motorbabble.explorer.places import Places
from motorbabble.explorer.redrawn import Redrawn, thinned
from motorbabble.explorer.workshop import Busy, Status, Workshop
from motorbabble.learning import lesson as lesson_file
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.learner import Learner
from motorbabble.learning.lesson import Lesson, LessonConfig
from motorbabble.learning.state import load_averaged, model_from
from motorbabble.learning.training import Trained
from motorbabble.memory import MemoryConfig
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot

DOT = "toroidal_dot"


def dot(seed: int = 0) -> ToroidalDotRobot:
    return ToroidalDotRobot(ToroidalDotConfig(image_size=32, dot_radius=3, move_pixels=5), seed=seed)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A dot's session, and a checkpoint that a few updates on it made: trained and averaged weights differ."""
    home = tmp_path_factory.mktemp("home")
    reader = RecordingReader(recorded(home / "sessions" / DOT, dot(), steps=40))
    begun = Lesson(reader, config=LessonConfig("predictor", 6))
    list(begun)
    begun.save(home / "checkpoints" / DOT / "begun")
    return home


@pytest.fixture
def reader(home) -> RecordingReader:
    return RecordingReader(next((home / "sessions" / DOT).glob("session_*")))


@pytest.fixture
def begun(home) -> Path:
    return home / "checkpoints" / DOT / "begun"


@pytest.fixture
def places(home, tmp_path) -> Places:
    """The same, with a folder of checkpoints of this test's own."""
    shutil.copytree(home / "checkpoints", tmp_path / "checkpoints")
    return Places(home / "sessions", tmp_path / "checkpoints", tmp_path / "none")


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    both = {"trained": learner.trained, "averaged": learner.world_model}
    return {f"{kind} {name}": value.clone() for kind, model in both.items() for name, value in model.state_dict().items()}


def changed(lesson: Lesson) -> set[str]:
    """Names of the weights that a lesson changes, as trained and as averaged."""
    before = weights(lesson.learner)
    list(lesson)
    return {name for name, value in weights(lesson.learner).items() if not torch.equal(value, before[name])}


# What learns


def test_a_lesson_in_seeing_changes_nothing_but_what_sees(reader, begun):
    found = changed(Lesson(reader, range(5, 6), LessonConfig("autoencoder", 3), begun))
    assert found and all(name.partition(" ")[2].startswith("autoencoder.") for name in found)
    assert {name.partition(" ")[0] for name in found} == {"trained", "averaged"}


def test_a_lesson_in_predicting_changes_both(reader, begun):
    parts = {name.partition(" ")[2].partition(".")[0] for name in changed(Lesson(reader, None, LessonConfig("predictor", 3), begun))}
    assert {"autoencoder", "predictor", "ensemble"} <= parts


def test_that_something_else_learns_would_be_noticed(reader, begun, monkeypatch):
    monkeypatch.setattr(lesson_file, "_is_taught", lambda *_: True)
    found = changed(Lesson(reader, range(5, 6), LessonConfig("autoencoder", 3), begun))
    assert any("averaged predictor" in name for name in found), "the average still moves towards weights that nobody teaches"


def moved_by_its_optimiser(learner: Learner) -> bool:
    """Whether what the optimiser holds is the model that is taught, and nothing else."""
    held = {id(weight) for group in learner.optimizer.param_groups for weight in group["params"]}
    return held == {id(weight) for weight in learner.trained.parameters()}


def test_the_optimiser_holds_the_model_that_was_loaded_and_goes_on_where_it_was(reader, begun):
    lesson = Lesson(reader, range(5, 6), LessonConfig("autoencoder", 3), begun)
    learner = lesson.learner
    assert moved_by_its_optimiser(learner) and learner.updates == 6
    saved = Checkpoints(begun).load()
    assert saved
    name = "autoencoder.patch_embed.weight"
    state = learner.optimizer.state[dict(learner.trained.named_parameters())[name]]
    assert torch.equal(state["exp_avg"], saved.tensors["optimizer"][f"{name}/exp_avg"]) and float(state["step"]) == 6
    loaded = {key.removeprefix("trained/"): value for key, value in saved.tensors["autoencoder"].items() if key.startswith("trained/")}
    assert torch.equal(learner.trained.state_dict()[name], loaded[name])
    assert changed(lesson)


def test_an_optimiser_of_another_model_would_be_noticed(reader, begun):
    lesson = Lesson(reader, range(5, 6), LessonConfig("autoencoder", 3), begun)
    other = model_from(begun, DOT, reader.action_space)
    assert other
    lesson.learner.trained = other  # as the original did, which then taught nothing
    assert not moved_by_its_optimiser(lesson.learner)


def test_it_learns_one_moment_by_heart_and_ends_at_a_threshold(reader):
    lesson = Lesson(reader, range(5, 6), LessonConfig("autoencoder", 300, until_skill=0.5, learning_rate=2e-3, shift=(0, 0), measure_every=5))
    list(lesson)
    first, last = (skill for _, skill in (lesson.training.history[0], lesson.training.history[-1]))
    assert lesson.training.outcome == "threshold" and first < 0.5 <= last and lesson.learner.updates < 300


def test_an_absolute_threshold_is_said_to_be_passed_by_a_black_picture(reader, places):
    session = next(name for name, _ in places.sessions())
    job = LessonJob(places, session, range(5, 6), LessonConfig("autoencoder", 50, until_error=0.5), f"{DOT}/begun")
    said = work(job)
    floors = job.lesson.floors() if job.lesson else {}
    assert floors["a black picture"] == pytest.approx(np.square(reader.image(5) / 255).mean()) and floors["a black picture"] < 0.5
    assert "the error asked for (0.5) was reached after 0 updates" in said
    assert "a black picture and the mean frame would pass" in lesson_panel.progress_of(job, False)


def test_a_threshold_below_every_floor_is_called_nothing_else(places):
    session = next(name for name, _ in places.sessions())
    job = LessonJob(places, session, None, LessonConfig("predictor", 2, until_error=1e-6), f"{DOT}/begun")
    assert "was not reached" in work(job) and "would pass" not in lesson_panel.progress_of(job, False)


def test_two_lessons_of_one_seed_are_alike_to_the_bit(reader, begun):
    one, other = (Lesson(reader, range(3, 20), LessonConfig("predictor", 3), begun) for _ in range(2))
    list(one)
    torch.rand(5)  # somebody else draws
    list(other)
    assert all(torch.equal(value, weights(other.learner)[name]) for name, value in weights(one.learner).items())


# On which moments


@pytest.fixture
def counted(tmp_path) -> RecordingReader:
    """A session whose frames say how long it has lived, in episodes of 7."""
    return RecordingReader(recorded(tmp_path / "counting", Counting(episode_steps=7), steps=30))


@pytest.mark.parametrize(("subject", "length"), [("autoencoder", 1), ("predictor", 3)])
@pytest.mark.parametrize("moments", [range(3, 4), range(4, 12), range(31)])
def test_what_is_taught_ends_in_the_moments_that_were_chosen(counted, subject, length, moments):
    windows = Lesson(counted, moments, LessonConfig(subject)).training.windows
    assert windows.length == length
    of = [[read(counted.image(number))[0] for number in moments]]
    ends = [read(windows.at(place).images[-1])[0] for place in range(len(windows))]
    assert set(ends) <= set(of[0]) and len(set(ends)) == len(ends)
    wanted = [number for number in moments if any(number in s and number - length + 1 in s for s in counted.stretches)]
    assert sorted(ends) == sorted(read(counted.image(number))[0] for number in wanted)


def test_early_in_an_episode_a_prediction_has_what_there_is_before_it(counted):
    first = next(stretch.start for stretch in counted.stretches if stretch.start)
    assert Lesson(counted, range(first + 1, first + 2), LessonConfig("predictor")).training.windows.length == 2
    with pytest.raises(ConfigurationError, match="which begin an episode, so nothing can be predicted"):
        Lesson(counted, range(first, first + 1), LessonConfig("predictor"))
    assert len(Lesson(counted, range(first, first + 1)).training.windows) == 1
    with pytest.raises(ConfigurationError, match="hold no frame that can be read; the session has 31"):
        Lesson(counted, range(31, 40))


def test_a_model_of_other_actions_or_frames_is_refused(counted, begun, tmp_path):
    with pytest.raises(CheckpointMismatch, match="was made for a toroidal_dot"):
        Lesson(counted, checkpoint=begun)
    large = RecordingReader(recorded(tmp_path, ToroidalDotRobot(ToroidalDotConfig(image_size=48, dot_radius=3, move_pixels=5)), steps=5))
    with pytest.raises(ConfigurationError, match=r"sees frames of \(32, 32\) pixels, this session has \(48, 48\)"):
        Lesson(large, checkpoint=begun)


def test_frames_that_no_patch_divides_are_made_smaller_for_a_new_model(tmp_path):
    odd = RecordingReader(recorded(tmp_path, Counting(size=20), steps=6))
    for model in ("latent", "canvas"):
        lesson = Lesson(odd, config=LessonConfig("predictor", 1, model=model))
        list(lesson)
        assert lesson.learner.trained.image_shape == lesson_file.SMALL_FRAME and lesson.learner.updates == 1


# What is kept


def test_what_was_saved_is_a_checkpoint_like_any_other(reader, begun, home, tmp_path, capsys):
    lesson = Lesson(reader, range(5, 9), LessonConfig("autoencoder", 4), begun)
    list(lesson)
    folder = tmp_path / "checkpoints" / DOT / "taught"
    lesson.save(folder)
    model, loaded = model_from(folder, DOT, reader.action_space), Checkpoints(folder).load()
    assert model and loaded
    load_averaged(model, loaded.state, loaded.tensors)
    frames = np.stack([reader.image(5)])
    assert torch.equal(model.eval().reconstruct(frames), lesson.learner.world_model.reconstruct(frames))
    for words in (["list"], ["show", f"{DOT}/taught"]):
        checkpoints_command([*words, "--checkpoints", str(tmp_path / "checkpoints")])
    said = capsys.readouterr().out
    assert "taught" in said and "autoencoder on moments 5 to 8" in " ".join(said.split())
    again = Lesson(reader, range(5, 9), LessonConfig("autoencoder", 4), folder)
    assert again.learner.updates == 10 and again.taught_before == [reader.name]


def test_a_life_begins_from_it_and_knows_what_it_was_taught(reader, begun, tmp_path):
    lesson = Lesson(reader, range(5, 9), LessonConfig("predictor", 2), begun)
    list(lesson)
    lesson.save(folder := tmp_path / DOT / "taught")
    robot = ReplayRobot(reader)
    model = model_from(folder, DOT, reader.action_space)
    with learn(robot, model or "latent", create_recorded_action_selector(robot), 3, memory=MemoryConfig(folder)) as run:
        assert run.resumed and run.has_learned_from([reader.name])
        list(run)
    assert [path.name for path in folder.parent.glob("taught-until-*")], "the lesson itself is kept"


def test_babble_train_goes_on_with_it(home, reader, begun, tmp_path, capsys, monkeypatch):
    lesson = Lesson(reader, range(5, 9), LessonConfig("autoencoder", 2), begun)
    list(lesson)
    lesson.save(tmp_path / DOT / "taught")
    monkeypatch.chdir(tmp_path)
    where = ["--sessions", str(home / "sessions"), "--checkpoints", str(tmp_path), "--out", str(tmp_path / "cards")]
    train([reader.name, "--name", "taught", "--steps", "10", "--validation-windows", "2", "--device", "cpu", *where])
    said = " ".join(capsys.readouterr().out.split())
    assert "It goes on where it was: 8 updates." in said and "It was a lesson before: autoencoder on moments 5 to 8" in said
    assert "All updates are done: 10 updates" in said


def test_levels_of_prediction_come_along_untaught(reader, begun, tmp_path):
    grown = Lesson(reader, range(5, 9), LessonConfig("predictor", 1), begun)
    grown.learner.grow()
    list(grown)
    grown.save(folder := tmp_path / DOT / "grown")
    lesson = Lesson(reader, range(5, 9), LessonConfig("predictor", 2), folder)
    assert lesson.learner.trained.spans == (1, 2) and len(lesson.learner.levels) == 2
    assert not any("higher." in name for name in changed(lesson))
    lesson.save(tmp_path / DOT / "again")
    assert Lesson(reader, range(5, 9), checkpoint=tmp_path / DOT / "again").learner.trained.spans == (1, 2)


def test_nothing_is_ever_saved_over(reader, begun):
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    lesson = Lesson(reader, range(5, 6), LessonConfig("autoencoder", 1), begun)
    list(lesson)
    with pytest.raises(ConfigurationError, match="there is a checkpoint begun of toroidal_dot already; choose another name"):
        lesson.save(begun)
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


# In the workshop


def work(job: LessonJob, workshop: Workshop | None = None) -> str:
    workshop = workshop or Workshop()
    workshop.start(job)
    return ended(workshop)


def ended(workshop: Workshop) -> str:
    until = time.monotonic() + 60
    while workshop.status.is_busy and time.monotonic() < until:
        time.sleep(0.01)
    assert workshop.status.state == "done", workshop.status
    return workshop.status.sentence


def job_on(places: Places, updates: int = 5, name: str = "", moments: range | None = range(5, 6)) -> LessonJob:
    config = LessonConfig("autoencoder" if moments else "predictor", updates)
    return LessonJob(places, places.sessions()[0][0], moments, config, f"{DOT}/begun", name)


def asked_at_once(workshop: Workshop, jobs: list[LessonJob]) -> list[str]:
    """What each was told: "taught", or why not."""
    outcomes, together = [], threading.Barrier(len(jobs))

    def ask(job: LessonJob) -> None:
        together.wait()
        try:
            workshop.start(job)
            outcomes.append("taught")
        except Busy as busy:
            outcomes.append(str(busy))

    asking = [threading.Thread(target=ask, args=(job,)) for job in jobs]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return outcomes


def test_of_twenty_who_ask_at_once_one_is_taught_and_the_others_are_told(places):
    alone = job_on(places, 4)
    work(alone)
    workshop, jobs = Workshop(), [job_on(places, 4) for _ in range(20)]
    outcomes = asked_at_once(workshop, jobs)
    ended(workshop)
    assert outcomes.count("taught") == 1
    assert all(said.startswith("busy: lesson for the autoencoder on moment 5") and "since" in said for said in outcomes if said != "taught")
    taught = [job for job in jobs if job.lesson is not None]
    assert len(taught) == 1 and alone.lesson and taught[0].lesson
    serial = weights(alone.lesson.learner)
    assert all(torch.equal(value, serial[name]) for name, value in weights(taught[0].lesson.learner).items())


def test_that_more_than_one_is_taught_would_be_noticed(places, monkeypatch):
    monkeypatch.setattr(Status, "is_busy", False)
    jobs = [job_on(places, 1) for _ in range(3)]
    assert asked_at_once(Workshop(), jobs).count("taught") > 1
    until(lambda: all(job.taught.doing.startswith("all 1 update") for job in jobs))


def test_the_model_that_others_look_with_is_never_taught(places):
    session = places.sessions()[0][0]
    mind = places.mind(f"{DOT}/begun", places.session(session))
    before = {name: value.clone() for name, value in mind.state_dict().items()}
    work(job_on(places, 3, "taught", None))
    again = places.mind(f"{DOT}/begun", places.session(session))
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())
    other = places.mind(f"{DOT}/taught", places.session(session))
    assert any(not torch.equal(value, before[name]) for name, value in other.state_dict().items())


def slowly(monkeypatch, seconds: float = 0.05) -> list[int]:
    """Updates take their time; answers the numbers of those that began."""
    began, update = [], Learner.update

    def slow(learner, *given, **named):
        began.append(learner.updates)
        time.sleep(seconds)
        return update(learner, *given, **named)

    monkeypatch.setattr(Learner, "update", slow)
    return began


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.005)


def test_stop_ends_it_after_the_update_at_hand_and_leaves_whole_weights(places, monkeypatch):
    began = slowly(monkeypatch)
    workshop, job = Workshop(), job_on(places, 1000, "stopped")
    workshop.start(job)
    until(lambda: len(began) >= 3)
    seen = len(began)
    workshop.stop()
    said = ended(workshop)
    assert len(began) <= seen + 1 and f"stopped after {len(began)} update" in said and f"saved as {DOT}/stopped" in said
    alone = job_on(places, len(began))
    work(alone)
    assert alone.lesson and job.lesson
    serial = weights(alone.lesson.learner)
    assert all(torch.equal(value, serial[name]) for name, value in weights(job.lesson.learner).items()), "as after the last whole update"


def test_it_goes_on_when_whoever_asked_is_gone_and_any_page_finds_it(places):
    workshop = Workshop()
    page = threading.Thread(target=lambda: workshop.start(job_on(places, 6, "alone")))
    page.start()
    page.join()
    assert "all 6 updates are done" in ended(workshop)
    shown = lesson_panel.Shown()
    job = shown.newest(workshop)
    assert job and job.taught.done == 6 and f"{DOT}/alone" in places.checkpoints()
    said = lesson_panel.progress_of(job, False)
    assert "6 of 6" in said and f"It is saved as {DOT}/alone." in said
    assert shown.curves(job)[1].count("<img") == 2 and "seen now" in shown.pictures(job)


def test_paused_it_rests_and_can_be_saved_between_two_updates(places, monkeypatch):
    began = slowly(monkeypatch, 0.01)
    workshop, job = Workshop(), job_on(places, 200)
    workshop.start(job)
    until(lambda: job.taught.done >= 2)
    workshop.pause()
    time.sleep(0.2)
    here = len(began)
    assert job.save("paused") == f"saved as {DOT}/paused" and job.taught.saved == f"{DOT}/paused"
    time.sleep(0.2)
    assert len(began) == here and workshop.status.state == "paused"
    workshop.resume()
    until(lambda: len(began) > here)
    workshop.stop()
    ended(workshop)
    loaded = Checkpoints(places.checkpoint(f"{DOT}/paused")).load()
    assert loaded and loaded.state["counters"]["updates"] == 6 + here
    assert job.taught.saved == "", "what was learned since then is not saved"


def test_a_name_that_cannot_be_had_is_refused_before_anything_begins(places):
    for name in ("../outside", "a/b", ".hidden", "x" * 101, "begun", "\0"):
        with pytest.raises(ConfigurationError, match="name"):
            job_on(places, 1, name)
    job = job_on(places, 1)
    with pytest.raises(ConfigurationError, match="nothing was learned yet"):
        job.save("early")
    work(job)
    for name in ("", "../outside", "begun"):
        with pytest.raises(ConfigurationError, match="name"):
            job.save(name)
    assert sorted(path.name for path in places.checkpoint_folder.rglob("*") if path.is_dir() and path.parent.name == DOT) == ["begun"]


def test_what_is_on_no_list_is_never_opened(places):
    for session in ("", "../sessions", f"{DOT}/../{DOT}", "/etc"):
        with pytest.raises(RecordingError, match="on the list"):
            LessonJob(places, session, None, LessonConfig())


def test_the_page_says_what_cannot_work():
    assert lesson_panel.moments_of("one", 4, None, None) == range(4, 5) and lesson_panel.moments_of("all", 4, 1, 2) is None
    assert lesson_panel.moments_of("stretch", 0, 3, 6) == range(3, 7)
    for wrong in ((5, 2), (None, 3), (-1, 3)):
        with pytest.raises(ConfigurationError, match="holds nothing"):
            lesson_panel.moments_of("stretch", 0, *wrong)
    for wrong in (("updates", None, None, 0, 1e-3), ("updates", None, None, 5, 0), ("skill", None, None, 5, 1e-3), ("error", None, None, 5, 1e-3)):
        with pytest.raises(ConfigurationError):
            lesson_panel.config_of("autoencoder", *wrong)
    assert lesson_panel.config_of("predictor", "error", 0.5, 0.001, 7, 1e-3) == LessonConfig("predictor", 7, None, 0.001, 1e-3)


def test_a_drawing_is_made_once_for_all_and_at_most_so_often():
    drawn, redrawn = [], Redrawn(every=0.2)

    def draw() -> str:
        drawn.append(1)
        return str(len(drawn))

    assert redrawn(1, draw) == (1, "1") == redrawn(1, draw) == redrawn(2, draw) and len(drawn) == 1
    time.sleep(0.25)
    assert redrawn(2, draw) == (2, "2") and redrawn(3, draw, at_once=True) == (3, "3")


def test_a_long_line_is_drawn_through_means_and_gaps_stay_gaps():
    line = [(float(x), float("nan") if x < 4 else 2.0) for x in range(1000)]
    xs, ys = thinned(line, 250)
    assert len(xs) == 250 and np.isnan(ys[0]) and set(ys[1:]) == {2.0} and xs == sorted(xs)
    assert thinned(line[:3]) == ([0.0, 1.0, 2.0], pytest.approx([float("nan")] * 3, nan_ok=True))


def test_events_of_a_lesson_are_those_of_a_training(reader):
    events = list(Lesson(reader, range(5, 6), LessonConfig("autoencoder", 3, measure_every=2)))
    assert [event.update for event in events if isinstance(event, Trained)] == [1, 2, 3]
    with pytest.raises(ConfigurationError, match="teach autoencoder or predictor"):
        Lesson(reader, config=LessonConfig("neither"))  # type: ignore[arg-type]
