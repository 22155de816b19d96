"""The canvas in the explorer: every error is of the prediction beside it, runs go on where they were stopped, and nothing mixes."""

import base64
import io
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import Counting, read
from PIL import Image
from recordings import recorded
from test_lessons import DOT, dot, ended, slowly, until, weights

from motorbabble.errors import ConfigurationError
from motorbabble.explorer.canvas_job import CanvasJob, CanvasSettings, OnCanvas
from motorbabble.explorer.canvas_tab import canvas_checkpoints, frame_of, preferred, session_names
from motorbabble.explorer.canvas_views import Stage, progress_of
from motorbabble.explorer.places import Places
from motorbabble.explorer.workshop import Busy, Pace, Workshop
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.recording.reader import RecordingReader

QUICK = CanvasSettings(updates=2)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory) -> Path:
    """A dot's session of 12 steps, and one of a robot that counts."""
    home = tmp_path_factory.mktemp("sessions")
    recorded(home / DOT, dot(), steps=12)
    recorded(home / "counting", Counting(), steps=12)
    return home


@pytest.fixture
def places(sessions, tmp_path) -> Places:
    return Places(sessions, tmp_path / "checkpoints", tmp_path / "none")


def session_of(places: Places, robot: str = DOT) -> str:
    return next(name for name in session_names(places) if name.startswith(f"{robot}/"))


def canvas_on(places: Places, robot: str = DOT, settings: CanvasSettings = QUICK, checkpoint: str = "") -> OnCanvas:
    return OnCanvas(places, session_of(places, robot), settings, checkpoint)


def lived(canvas: OnCanvas, iterations: int) -> OnCanvas:
    CanvasJob(canvas, iterations).run(Pace())
    return canvas


def mse(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square((one.astype(float) - other) / 255).mean())


# What is shown


def misaligned(canvas: OnCanvas, before: list[np.ndarray]) -> list[float]:
    """What the original showed: the newest prediction, of the next frame, against the current one."""
    return [mse(predicted, canvas.reader.image(iteration.moment)) for predicted, iteration in zip(before, canvas.show.iterations[1:], strict=True)]


def test_an_error_is_that_of_the_prediction_beside_the_frame(places):
    canvas, predicted = canvas_on(places), []
    for _ in range(6):
        lived(canvas, 1)
        now, *others = canvas.show.frames
        iteration = canvas.show.iterations[-1]
        assert np.array_equal(now.image, canvas.reader.image(iteration.moment)) and now.mark
        if iteration.error is not None:
            foretold = others[0]
            assert foretold.title.startswith("predicted for it") and iteration.error == pytest.approx(mse(foretold.image, now.image))
            assert f"{iteration.error:.2g}" in foretold.note and f"{iteration.copy_error:.2g}" in foretold.note
            assert np.array_equal(foretold.image, predicted[-1]), "it is what was shown as coming before the frame came"
        assert canvas.face
        if (coming := canvas.face.predicted_frame) is not None:
            assert np.array_equal(others[-1].image, coming)
            predicted.append(coming)
    errors = [iteration.error for iteration in canvas.show.iterations]
    assert errors[:2] == [None, None] and all(error is not None for error in errors[2:])
    assert misaligned(canvas, predicted) != pytest.approx(errors[1:], nan_ok=True), "the original's error is another one"


def test_copy_last_stands_beside_every_error(places):
    canvas = lived(canvas_on(places), 6)
    for iteration in canvas.show.iterations[2:]:
        frames = [canvas.reader.image(iteration.moment - i) for i in (1, 0)]
        assert iteration.copy_error == pytest.approx(mse(*frames))
        assert iteration.action == canvas.reader.action_space.label(canvas.reader.moment(iteration.moment).executed)


def test_every_gradient_step_is_on_the_curve_and_every_iteration_in_the_plots(places):
    canvas, stage = lived(canvas_on(places), 5), Stage()
    assert canvas.face and [step for step, _ in canvas.losses] == list(range(1, canvas.face.life.learner.updates + 1))
    assert [iteration.updates for iteration in canvas.show.iterations] == [0, 2, 2, 2, 2]
    assert all(iteration.loss == canvas.losses[2 * n + 1][1] for n, iteration in enumerate(canvas.show.iterations[1:]))
    (_, curve), (_, four) = stage.losses(canvas, False), stage.plots(canvas, False)
    assert f"every gradient step on a log scale, now {canvas.losses[-1][1]:.3g}" in curve
    assert re.findall(r'alt="(.*?) over 5', four) == [
        "training loss (log)",
        "training updates",
        "prediction error (squared)",
        "seconds of the iteration",
    ]
    frames, canvases = stage.pictures(canvas, canvas.show)
    assert all(words in canvases for words in ("it trains on this canvas", "its reconstruction", "its prediction")) and "predicted next" in frames
    assert "keeping the frame before" in progress_of(canvas, canvas.show, None)


def test_all_browsers_share_a_drawing_and_without_any_nothing_is_drawn_on_the_way(places):
    canvas, stage = lived(canvas_on(places), 4), Stage()
    assert canvas.show.drawn == 1, "only at the end"
    one, other = (stage.plots(canvas, True) for _ in range(2))
    assert one == other and one[0] == 1 and stage.pictures(canvas, canvas.show) == stage.pictures(canvas, canvas.show)


# Running


def test_it_says_where_the_session_ends_and_goes_no_further(places):
    canvas = canvas_on(places, settings=CanvasSettings(updates=1, first=9))
    assert CanvasJob(canvas, 10).run(Pace()) == "end of session: after 3 iterations there is no further frame"
    assert [iteration.moment for iteration in canvas.show.iterations] == [9, 10, 11]
    with pytest.raises(ConfigurationError, match=r"end of session.*press Run to begin it anew"):
        CanvasJob(canvas, 1)


def test_stopped_and_gone_on_with_it_is_the_run_that_was_never_stopped(places, monkeypatch):
    whole = lived(canvas_on(places), 7)
    began = slowly(monkeypatch, 0.02)
    canvas, workshop = canvas_on(places), Workshop()
    workshop.start(CanvasJob(canvas, 7))
    until(lambda: len(began) >= 5)
    seen = len(began)
    workshop.stop()
    assert ended(workshop).startswith("stopped after") and len(began) <= seen + 1, "at most one update more"
    assert not canvas.over
    workshop.start(CanvasJob(canvas, 7 - len(canvas.show.iterations)))
    ended(workshop)
    assert [i.moment for i in canvas.show.iterations] == list(range(7))
    assert canvas.losses == whole.losses and canvas.face and whole.face
    assert [i.error for i in canvas.show.iterations] == [i.error for i in whole.show.iterations]
    expected = weights(whole.face.life.learner)
    assert all(torch.equal(value, expected[name]) for name, value in weights(canvas.face.life.learner).items())


def test_paused_it_shows_where_it_is_and_can_be_saved(places):
    canvas, workshop = canvas_on(places, settings=CanvasSettings(updates=3, skill=1.0)), Workshop()
    workshop.start(CanvasJob(canvas, 12))
    until(lambda: len(canvas.losses) > 3)
    workshop.pause()
    time.sleep(0.5)
    here = len(canvas.losses)
    assert canvas.show.canvases, "drawn, since it rests"
    assert canvas.save("rests") == f"saved as {DOT}/rests"
    time.sleep(0.2)
    assert len(canvas.losses) == here
    workshop.stop()
    assert ended(workshop).startswith("stopped")
    loaded = Checkpoints(places.checkpoint(f"{DOT}/rests")).load()
    assert loaded and loaded.state["counters"]["updates"] == here


def test_of_twenty_who_ask_at_once_one_runs(places, monkeypatch):
    slowly(monkeypatch)
    workshop, told, together = Workshop(), [], threading.Barrier(20)

    def ask() -> None:
        job = CanvasJob(canvas_on(places), 3)
        together.wait()
        try:
            workshop.start(job)
        except Busy as busy:
            told.append(str(busy))

    asking = [threading.Thread(target=ask) for _ in range(20)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(told) == 19 and all(said.startswith(f"busy: canvas on {session_of(places)} has been running since") for said in told)
    ended(workshop)
    assert Stage().newest(workshop) is not None, "who opens the page later finds it"


def test_a_second_run_takes_the_place_of_the_first_and_other_work_does_not(places):
    workshop, stage = Workshop(), Stage()
    first = canvas_on(places)
    workshop.start(CanvasJob(first, 1))
    ended(workshop)
    assert stage.newest(workshop) is first
    workshop.start(other := CanvasJob(canvas_on(places, "counting"), 1))
    ended(workshop)
    assert stage.newest(workshop) is other.canvas


# Nothing mixes


def picture_in(html: str) -> np.ndarray:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    assert found
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))


def test_two_sessions_never_mix_whoever_asks_in_which_order(tmp_path):
    """Frames of both say which session they are of, and which moment."""
    for first in (0, 5000):
        robot = Counting()
        robot.count = first
        recorded(tmp_path / "sessions" / "counting", robot, steps=60)
    places = Places(tmp_path / "sessions", tmp_path / "checkpoints", tmp_path / "none")
    names = session_names(places)
    wanted = {name: [read(RecordingReader(places.entry(name).folder).image(n))[0] for n in range(60)] for name in names}
    wrong: list[tuple] = []

    def browse(name: str, seed: int) -> None:
        for number in np.random.default_rng(seed).integers(60, size=125):
            picture = picture_in(frame_of(places.session(name), int(number)))
            if read(picture)[0] != wanted[name][number]:
                wrong.append((name, number))

    browsing = [threading.Thread(target=browse, args=(names[i % 2], i)) for i in range(4)]
    for thread in browsing:
        thread.start()
    for thread in browsing:
        thread.join()
    assert len(names) == 2 and set(wanted[names[0]]).isdisjoint(wanted[names[1]]) and not wrong


def test_two_runs_in_turn_each_keep_to_their_own_session(places):
    both = [canvas_on(places), canvas_on(places, "counting")]
    for _ in range(3):
        for canvas in both:
            lived(canvas, 1)
            assert np.array_equal(canvas.show.frames[0].image, canvas.reader.image(canvas.show.iterations[-1].moment))
    assert [len(canvas.show.iterations) for canvas in both] == [3, 3]
    assert both[0].losses != both[1].losses


# What is kept


def test_saved_weights_load_and_are_listed_for_sessions_that_they_fit(places):
    canvas = lived(canvas_on(places), 4)
    assert canvas_checkpoints(places, canvas.reader) == []
    canvas.save("painter")
    assert canvas_checkpoints(places, canvas.reader) == [f"{DOT}/painter"] and canvas.show.saved == f"{DOT}/painter"
    assert canvas_checkpoints(places, places.session(session_of(places, "counting"))) == []
    again = lived(canvas_on(places, settings=CanvasSettings(updates=1), checkpoint=f"{DOT}/painter"), 1)
    assert again.face and canvas.face and not again.losses
    expected = weights(canvas.face.life.learner)
    assert all(torch.equal(value, expected[name]) for name, value in weights(again.face.life.learner).items())
    assert again.face.life.learner.updates == len(canvas.losses)
    with pytest.raises(ConfigurationError, match="choose another name"):
        canvas.save("painter")
    lived(canvas, 1)
    assert canvas.show.saved == "", "what was learned since then is not saved"


def test_a_model_that_knows_no_canvas_is_refused(places):
    from motorbabble.learning.lesson import Lesson

    reader = places.session(session_of(places))
    Lesson(reader).save(places.checkpoint_folder / DOT / "latent")
    with pytest.raises(ConfigurationError, match="is a LatentWorldModel, which knows no canvas"):
        lived(canvas_on(places, checkpoint=f"{DOT}/latent"), 1)
    assert canvas_checkpoints(places, reader) == []


@pytest.mark.parametrize("wrong", [{"updates": 0}, {"skill": 1.5}, {"skill": float("nan")}, {"learning_rate": 0.0}, {"first": -1}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="cannot work"):
        CanvasSettings(**wrong)


def test_what_there_is_not_is_said(places):
    with pytest.raises(ConfigurationError, match="has 13 moments"):
        canvas_on(places, settings=CanvasSettings(first=13))
    with pytest.raises(ConfigurationError, match="give at least 1"):
        CanvasJob(canvas_on(places), 0)
    with pytest.raises(ConfigurationError, match="nothing was learned yet"):
        canvas_on(places).save("early")
    assert preferred([]) is None and preferred(["jetbot/a", f"{DOT}/b", f"{DOT}/c"]) == f"{DOT}/b" and preferred(["jetbot/a"]) == "jetbot/a"


def test_frames_of_any_size_can_be_painted(tmp_path):
    recorded(tmp_path / "sessions" / "counting", Counting(size=20), steps=6)
    places = Places(tmp_path / "sessions", tmp_path / "checkpoints", tmp_path / "none")
    canvas = lived(canvas_on(places, "counting", CanvasSettings(updates=1)), 4)
    assert canvas.show.frames[0].image.shape == (64, 64, 3) and canvas.show.iterations[-1].error is not None
