"""The Sessions tab without a browser: each picture is of the moment that was asked for, and what a panel says is what the library says."""

import base64
import io
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import test_canvas
import test_latent
import torch
from counting import Counting, read
from PIL import Image
from recordings import recorded
from test_health import damage

from motorbabble.analysis import moments
from motorbabble.experience import Action
from motorbabble.explorer import census as census_module
from motorbabble.explorer.asking import PANELS, Answers, Question, words_for
from motorbabble.explorer.browsing import table_of
from motorbabble.explorer.census import Census
from motorbabble.explorer.places import Places
from motorbabble.explorer.sessions_tab import Browser, whole
from motorbabble.learning.lesson import Lesson, LessonConfig
from motorbabble.learning.state import mind_from
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot
from motorbabble.world_models.canvas import CanvasWorldModel
from motorbabble.world_models.latent import LatentWorldModel

SIZE = 32


class Stubborn(Counting):
    """Does "one" whatever it is asked for."""

    robot_type = "stubborn"

    def execute_action(self, action: Action) -> Action:
        super().execute_action(action)
        return {"add": 1.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Two sessions of a counting robot, two episodes each; one of a dot; a checkpoint of each kind."""
    home = tmp_path_factory.mktemp("home")
    counted = recorded(home / "sessions/counting", Counting(SIZE, episode_steps=6), steps=11, name="counted-1")
    recorded(home / "sessions/counting", Counting(SIZE, episode_steps=6), steps=11, seed=5, name="counted-2")
    dot = recorded(home / "sessions/toroidal_dot", ToroidalDotRobot(ToroidalDotConfig(image_size=SIZE, dot_radius=3)), steps=9, name="dotted")
    for folder, kind in ((counted, "counting"), (dot, "toroidal_dot")):
        lesson = Lesson(RecordingReader(folder), config=LessonConfig("predictor", 2))
        list(lesson)
        lesson.save(home / "checkpoints" / kind / "taught")
    return home


@pytest.fixture
def browser(home) -> Browser:
    return Browser(Places(home / "sessions", home / "checkpoints", home / "none"))


ONE, OTHER, DOT = "counting/counted-1", "counting/counted-2", "toroidal_dot/dotted"
MIND = "counting/taught"


def pictures(html: str) -> list[np.ndarray]:
    """Every picture of a piece of a page."""
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)]


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def counted_at(browser: Browser, session: str, moment: int) -> int:
    (image,) = pictures(browser.shown(session, moment)[0])
    return read(image)[0]


def waited(census: Census) -> None:
    late = time.monotonic() + 30
    while census.is_busy:
        assert time.monotonic() < late
        time.sleep(0.01)


# The table


def test_every_session_of_every_robot_is_listed_and_the_newest_is_shown_first(browser):
    names, shown, table = browser.listed(None)
    assert names == [DOT, OTHER, ONE] and shown == DOT, "the newest first"
    assert re.findall('data-session="([^"]+)"', table) == names
    waited(browser.census)
    names, shown, table = browser.listed(ONE)
    assert shown == ONE and table.count("aria-selected") == 1
    row = words(table.partition('data-session="counting/counted-1"')[2].partition("</tr>")[0])
    moments_of_it, labels = RecordingReader(browser.places.folder / ONE), ("one", "two")
    done = [moments_of_it.moment(i).executed["add"] for i in range(11)]
    for label, add in zip(labels, (1, 2), strict=True):
        assert f"{label} {done.count(add) / 11:.0%}" in row
    assert "counting" in row and "12" in row and "closed" in row and "kB" in row


def test_where_nothing_was_recorded_it_says_what_to_do(tmp_path):
    browser = Browser(Places(tmp_path / "sessions", tmp_path / "checkpoints", tmp_path / "none"))
    names, shown, table = browser.listed("counting/gone")
    assert names == [] and shown is None and "Start a robot in Live" in table
    assert "once one is chosen" in browser.shown(None, 0)[0] and "once a session is chosen" in browser.loaded(None, None)[1]
    assert browser.count(None) == 0 and browser.fitting(None, None) == ([], None) and browser.about(None) == ""
    assert browser.answer(None, None, 0, 1, "Prediction", "") == ""


def test_what_cannot_be_read_is_listed_and_never_chosen_by_itself(home, tmp_path):
    shutil.copytree(home / "sessions", tmp_path / "sessions")
    broken = tmp_path / "sessions/toroidal_dot/dotted"
    for path in broken.iterdir():
        path.write_bytes(b"nothing")
    cut = tmp_path / "sessions/counting/counted-2/events_shard_000.jsonl"
    lines = cut.read_bytes().split(b"\n")
    damage(cut, sum(len(line) + 1 for line in lines[:4]) + 20)
    browser = Browser(Places(tmp_path / "sessions", tmp_path / "checkpoints", tmp_path / "none"))
    browser.listed(None)
    waited(browser.census)
    names, shown, table = browser.listed(None)
    assert set(names) == {DOT, OTHER, ONE} and shown == OTHER
    assert "unreadable" in table and "closed, 1 moment lost" in table
    assert "bad" in browser.shown(DOT, 0)[0] and browser.count(DOT) == 0 and "bad" in browser.about(DOT)


def test_counting_reads_no_frame_and_is_done_once(home, tmp_path, monkeypatch):
    shutil.copytree(home / "sessions", tmp_path / "sessions")
    places = Places(tmp_path / "sessions", tmp_path, tmp_path / "none")
    for pack in (tmp_path / "sessions").glob("*/*/frames_shard_*"):
        pack.write_bytes(b"")
    asked = []
    real = census_module.counted
    monkeypatch.setattr(census_module, "counted", lambda folder: asked.append(folder) or real(folder))
    census = Census()
    for _ in range(3):
        table_of(places.sessions(), census, None)
        waited(census)
    assert len(asked) == 3 == len(set(asked))
    assert [count.steps if (count := census.of(entry)) else None for _, entry in places.sessions()] == [9, 11, 11]
    with (tmp_path / "sessions/counting/counted-1/pin.somebody").open("w") as pin:
        pin.write("it grew")
    table_of(places.sessions(), census, None)
    waited(census)
    assert len(asked) <= 4, "only what changed is counted anew"


def test_what_is_recorded_now_is_not_counted_over_and_over(tmp_path):
    class Entry:
        meta, state, folder, bytes = object(), "live", tmp_path, 1

    census = Census()
    assert census.of(Entry()) is None and not census.is_busy  # type: ignore[arg-type]


# A moment


def test_the_picture_of_a_moment_is_the_frame_of_that_moment(browser):
    for session in (ONE, OTHER):
        reader = RecordingReader(browser.places.folder / session)
        assert browser.count(session) == len(reader) == 12
        for moment in range(12):
            assert counted_at(browser, session, moment) == read(reader.image(moment))[0]
            assert f"Moment {moment} of 12" in words(browser.shown(session, moment)[0])


def test_what_is_known_of_a_moment_is_what_was_recorded(browser):
    reader, labels = RecordingReader(browser.places.folder / ONE), {1.0: "one", 2.0: "two"}
    for moment in range(12):
        told, found = words(browser.shown(ONE, moment)[1]), reader.moment(moment)
        assert f"Episode {found.episode};" in told and f"Sensed count {reader.observation(moment).state['count'][0]}" in told
        if found.is_step:
            label = labels[found.executed["add"]]
            assert f"Chose {label} Because {found.why} Did {label} " in told and f"Step {found.index} of its life" in told
        else:
            assert "nothing was done from it" in told
        led = "Led here nothing that was recorded" if moment in (0, 6) else f"Led here {labels[reader.moment(moment - 1).executed['add']]}"
        assert led in told
    assert "counting, which can one, two" in words(browser.about(ONE)) and "RecordingReader(" in browser.about(ONE)


def test_it_says_where_something_else_was_done_than_was_chosen(tmp_path):
    recorded(tmp_path / "stubborn", Stubborn(SIZE), steps=6, name="s")
    browser = Browser(Places(tmp_path, tmp_path / "none", tmp_path / "none"))
    reader = RecordingReader(tmp_path / "stubborn/s")
    told = [words(browser.shown("stubborn/s", moment)[1]) for moment in range(6)]
    other = [reader.moment(moment).requested["add"] == 2 for moment in range(6)]
    assert any(other) and [("which is not what was chosen" in one) for one in told] == other


def test_a_damaged_moment_is_said_and_the_others_are_shown(home, tmp_path):
    shutil.copytree(home / "sessions", tmp_path / "sessions")
    folder = tmp_path / "sessions" / ONE
    damage(folder / "frames_shard_000.pack", RecordingReader(folder).moment(3).frame.at + 8)
    lines = (folder / "events_shard_000.jsonl").read_bytes().split(b"\n")
    damage(folder / "events_shard_000.jsonl", sum(len(line) + 1 for line in lines[:9]) + 20)  # moment 8
    browser = Browser(Places(tmp_path / "sessions", home / "checkpoints", tmp_path / "none"))
    for moment in (3, 8):
        picture, known = browser.shown(ONE, moment)
        assert f"moment {moment} of counted-1" in picture and "bad" in picture and not pictures(picture)
        assert ("Did" in known) == (moment == 3), "of a frame that is lost, the line may be whole"
        for panel in PANELS:
            assert "said bad" in browser.answer(ONE, MIND, moment, 2, panel, "one"), panel
    assert all(len(pictures(browser.shown(ONE, moment)[0])) == 1 for moment in range(12) if moment not in (3, 8))
    assert "(recorded)" in browser.answer(ONE, MIND, 2, 2, "Every action", ""), "what lies beside it is told without it"


STRANGE = [None, "", "..", "../counting/counted-1", "/etc", "counting", f"{ONE}/..", "counting/gone", "a" * 5000, 7, [ONE], {"a": 1}, "\0"]
NUMBERS = [(3, 3), (3.0, 3), ("3", 3), (None, 0), (-4, 0), (float("nan"), 0), (float("inf"), 0), ([], 0), ("x", 0)]


@pytest.mark.parametrize("name", STRANGE)
def test_names_that_are_on_no_list_are_refused_in_a_sentence(browser, name):
    said = [*browser.shown(name, 0), browser.about(name), browser.loaded(ONE, name)[1], browser.loaded(name, MIND)[1]]
    said += [browser.answer(name, MIND, 0, 1, "Prediction", ""), browser.answer(ONE, name, 0, 1, "Prediction", "")]
    assert not any(pictures(one) for one in said) and browser.count(name) == 0 and browser.fitting(name, name) == ([], None)
    assert browser.listed(name)[1] == DOT


@pytest.mark.parametrize(("number", "taken"), NUMBERS)
def test_numbers_that_are_none_are_taken_as_the_first_moment(browser, number, taken):
    assert whole(number) == taken
    assert f"Moment {taken} of" in browser.shown(ONE, number)[0]
    assert "no moment 99" in browser.shown(ONE, 99)[0]


# Minds


def test_checkpoints_of_the_same_kind_of_robot_are_offered_and_the_chosen_one_is_kept(home, tmp_path):
    shutil.copytree(home / "checkpoints", tmp_path / "checkpoints")
    shutil.copytree(tmp_path / "checkpoints/counting/taught", tmp_path / "checkpoints/counting/older")
    browser = Browser(Places(home / "sessions", tmp_path / "checkpoints", tmp_path / "none"))
    fitting, shown = browser.fitting(ONE, None)
    assert set(fitting) == {MIND, "counting/older"} and shown == fitting[0]
    for kept in fitting:
        assert browser.fitting(ONE, kept)[1] == kept
    assert browser.fitting(ONE, "toroidal_dot/taught")[1] == fitting[0]
    assert "Let one learn in Live" in browser.loaded(ONE, None)[1]
    most, told = browser.loaded(ONE, MIND)
    assert most == mind_from(tmp_path / "checkpoints" / MIND, "counting", Counting().action_space).history
    assert "LatentWorldModel" in told and "It learned for 2 updates" in told
    most, told = browser.loaded(ONE, "toroidal_dot/taught")
    assert most == 0 and "was made for a toroidal_dot" in told and browser.answer(ONE, "toroidal_dot/taught", 3, 2, "Prediction", "") == ""


@pytest.fixture(scope="module")
def mind(home) -> LatentWorldModel:
    found = mind_from(home / "checkpoints" / MIND, "counting", Counting().action_space)
    assert isinstance(found, LatentWorldModel)
    return found


def test_panels_say_what_the_library_says(browser, mind):
    reader = RecordingReader(browser.places.folder / ONE)

    def asked(panel: str, plan: str = "") -> str:
        return words(browser.answer(ONE, MIND, 3, 2, panel, plan))

    seen, foreseen = moments.reconstruct(mind, reader, 3), moments.predict(mind, reader, 3, 2)
    assert f"Error {seen.error:.3g}; the mean frame of the session has {seen.mean_error:.3g}" in asked("Reconstruction")
    assert f"Error {foreseen.error:.3g}; keeping the last frame has {foreseen.copy_error:.3g}" in asked("Prediction")
    assert "From 2 frames, moments 1 to 2." in asked("Prediction")
    told = asked("Every action")
    for one in moments.sweep(mind, reader, 3, 2).tried:
        assert f"{one.label}{' (recorded)' * one.is_recorded} error {one.error:.3g}" in told
    tried = moments.what_if(mind, reader, 3, "one*2 two", 2)
    told = asked("What if", "one*2 two")
    assert "1. one" in told and "3. two" in told and tried.why in told
    looked = moments.attend(mind, reader, 3, 2)
    assert looked
    numbers = looked.numbers["last_layer"]
    assert f"{numbers['apa']:.2%}" in asked("Attention") and f"{numbers['ri16']:.0%}" in asked("Attention")


def test_the_pictures_of_a_panel_are_of_that_moment(browser):
    reader = RecordingReader(browser.places.folder / ONE)
    for moment in (2, 3, 9):
        before, now, after = (read(reader.image(number))[0] for number in (moment - 1, moment, moment + 1))
        assert read(pictures(browser.answer(ONE, MIND, moment, 2, "Reconstruction", ""))[0])[0] == now
        found = pictures(browser.answer(ONE, MIND, moment, 2, "Prediction", ""))
        assert [read(found[0])[0], read(found[2])[0]] == [before, now]
        found = browser.answer(ONE, MIND, moment, 2, "Every action", "")
        assert [read(image)[0] for image in pictures(found)[:2]] == [now, after]
        assert found.count('class="happened"') == 2, "what came, and the action that led there"
        assert read(pictures(browser.answer(ONE, MIND, moment, 2, "What if", "one"))[0])[0] == now


def test_who_asks_the_same_again_gets_the_same_and_nothing_is_imagined_twice(browser, monkeypatch):
    counted = []
    every = PANELS["Every action"]
    monkeypatch.setitem(PANELS, "Every action", lambda answers, asked: counted.append(asked.moment) or every(answers, asked))
    first, again, other = (browser.answer(ONE, MIND, moment, 2, "Every action", "") for moment in (3, 3, 4))
    assert first == again != other and counted == [3, 4]
    assert browser.answer(ONE, MIND, 3, 1, "Every action", "") != first and counted == [3, 4, 3]


def test_an_empty_plan_is_what_was_really_done(browser):
    done = words_for(browser.places.session(ONE), 7)
    empty, typed = (browser.answer(ONE, MIND, 7, 2, "What if", plan) for plan in (" ", done))
    assert done == "one*2 two*2" and "What was really done" in empty and f"“{done}”" in typed
    assert all(map(np.array_equal, pictures(empty), pictures(typed)))
    assert "type a plan, such as “two*3”" in browser.answer(ONE, MIND, 11, 2, "What if", "")
    assert browser.example(ONE) == "such as two*3" and browser.example(None) == ""
    assert "do you mean two" in browser.answer(ONE, MIND, 7, 2, "What if", "tow")


@pytest.mark.parametrize("moment", [0, 5, 6, 11])
def test_at_the_edges_of_an_episode_every_panel_says_something(browser, moment):
    for panel in PANELS:
        assert words(browser.answer(ONE, MIND, moment, 3, panel, "one")), panel
    assert ("begins a stretch" in browser.answer(ONE, MIND, moment, 3, "Prediction", "")) == (moment in (0, 6))
    assert ("there are no errors" in browser.answer(ONE, MIND, moment, 3, "Every action", "")) == (moment in (5, 11))


def test_every_line_of_code_on_the_page_does_what_its_panel_shows(browser):
    """The lines are run as they stand, in the order of the page."""
    from motorbabble.analysis.moments import attend, predict, reconstruct, sweep, what_if

    known = {one.__name__: one for one in (attend, predict, reconstruct, sweep, what_if, mind_from, RecordingReader)}
    pieces = [browser.about(ONE), browser.loaded(ONE, MIND)[1], *(browser.answer(ONE, MIND, 3, 2, panel, "one two*2") for panel in PANELS)]
    answers = []
    for piece in pieces:
        (line,) = re.findall(r"<code>(.*?)</code>", piece)
        line = unescape(line)
        if re.match(r"\w+ = ", line):
            exec(line, known)
        else:
            answers.append((piece, eval(line, known)))
    assert len(answers) == len(PANELS)
    for piece, found in answers[:2]:
        assert f"Error {found.error:.3g};" in piece


def test_a_model_without_such_attention_says_so(browser):
    reader = RecordingReader(browser.places.folder / ONE)
    canvas = CanvasWorldModel((SIZE, SIZE), 1, test_canvas.SMALL).eval()
    assert "is not told in numbers" in Answers()("Attention", Question(canvas, reader, 3, 2))
    for panel in PANELS:
        assert words(Answers()(panel, Question(canvas, reader, 3, 2, "one"))), panel


def test_a_small_mind_is_asked_through_its_door(browser):
    reader, small = RecordingReader(browser.places.folder / ONE), test_latent.AutoencoderLatentPredictorWorldModelConfig(*test_latent.SMALL)
    torch.manual_seed(0)
    answers = Answers()
    for model in (LatentWorldModel((16, 16), 1, replace(small, image_size=(16, 16))), LatentWorldModel((SIZE, SIZE), 1, small)):
        for panel in PANELS:  # the mean frame that is kept is of the mind's own size
            assert "said bad" not in answers(panel, Question(model.eval(), reader, 3, 2, "one"))


def test_two_browsers_never_see_each_others_moments(browser):
    readers = {name: RecordingReader(browser.places.folder / name) for name in (ONE, OTHER)}
    counts = {(name, moment): read(reader.image(moment))[0] for name, reader in readers.items() for moment in range(12)}

    def look(number: int) -> bool:
        name, moment = (ONE, OTHER)[number % 2], number % 11
        found = read(pictures(browser.answer(name, MIND, moment, 2, "Reconstruction", ""))[0])[0] if number % 10 == 0 else counts[name, moment]
        return counted_at(browser, name, moment) == counts[name, moment] == found

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(look, range(200)))
