"""A life in the explorer, as its pages see it: started, watched, paused, driven, stopped, and gone through; without a browser."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorers import Page, Served, Visitor, settings_in

from motorbabble.errors import RobotLost
from motorbabble.explorer import live_tab
from motorbabble.explorer.life import Life, view_of
from motorbabble.explorer.places import Places
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.learner import ONLINE
from motorbabble.recipes import RECIPES, KeepConfig, LatentChoice, LearningRecipe
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot

PATIENCE = 60.0
BRIEF = "brief"  # a recipe that takes milliseconds a step
HANDS = "I choose the actions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def served(folder) -> Iterator[Served]:
    small = ToroidalDotConfig(image_size=32, dot_radius=3, move_pixels=5)
    learner = replace(ONLINE, batch_size=2, shift=(0, 0), gauge_every=0, gate=replace(ONLINE.gate, max_updates=1))
    recipe = LearningRecipe(small, LatentChoice(patch_size=8), learner, steps=1000, exam_steps=4, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, BRIEF, recipe)
        patch.setitem(__import__("motorbabble.recipes", fromlist=["ABOUT"]).ABOUT, BRIEF, "a small dot")
        with Served(settings_in(folder)) as explorer:
            yield explorer


@pytest.fixture
def page(served) -> Iterator[Page]:
    yield Page(served.port, f"page{time.monotonic_ns()}")
    served.workshop.close()


def until(condition: Callable[[], Any]) -> Any:
    late = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < late, "it never came"
        time.sleep(0.01)
    return found


def begin(page: Page, steps: int = 1000, fresh: bool = True, recipe: str = BRIEF, seed: int = 0) -> str:
    return page.call("start", "click", recipe, steps, seed, fresh, "", "")[0]


def life_in(served: Served) -> Life:
    life = served.workshop.job
    assert isinstance(life, Life)
    return life


def lived(served: Served, steps: int) -> Life:
    """The life at work, once it has done so many steps."""
    life = life_in(served)
    until(lambda: life.seen.step >= steps or not served.workshop.status.is_busy)
    assert life.seen.step >= steps, served.workshop.status.sentence
    return life


def look(page: Page) -> list[Any]:
    """What the page is shown that has not been shown before: pictures, numbers, curve, and the buttons' state."""
    tick = next(one for one in page.handlers if page.named("live_pictures") in one["outputs"])
    return page.run(tick["id"], [None])


def shown(page: Page) -> str:
    return re.sub(r"<[^>]*>", " ", "".join(part for part in look(page)[:3] if isinstance(part, str)))


def test_before_anything_lives_it_says_what_to_do(served, page):
    assert "Press Start" in str(page.parts[page.named("live_pictures")]["value"])
    assert "press Start first" in page.call(HANDS, "change", True)[0]
    assert "press Start first" in page.call("press_1", "click")[0]
    assert "press Start first" in page.call("Another action", "submit", "move")[0]


def test_it_learns_while_two_look_and_both_see_the_same(served, page):
    assert begin(page) == ""
    other = Page(served.port, "other")
    life = lived(served, 12)
    page.call("pause", "click")
    until(lambda: served.workshop.status.state == "paused")
    time.sleep(0.3)
    lines = [look(page)[:2], look(other)[:2]]
    assert lines[0] == lines[1] and lines[0][0].count("<img") >= 3
    words = shown(Page(served.port, "third"))
    for part in (
        "Prediction skill",
        "0 is keeping the last frame, 1 is perfect",
        "nats",
        "Coverage",
        "updates",
        "Because",
        f"of {life.recipe.steps}",
    ):
        assert part in words
    here = life.seen.step
    other.call("step", "click")  # whoever presses: it is one life
    until(lambda: life.seen.step == here + 1)
    time.sleep(0.1)
    assert life.seen.step == here + 1
    page.call("pause", "click")
    until(lambda: life.seen.step > here + 3)


def test_a_page_is_told_only_what_is_new(served, page):
    begin(page)
    lived(served, 4)
    page.call("pause", "click")
    until(lambda: served.workshop.status.state == "paused")
    time.sleep(0.3)
    first, second = look(page), look(page)
    assert isinstance(first[0], str) and not isinstance(second[0], str)


def test_whoever_starts_second_is_told_and_changes_nothing(served, page):
    begin(page)
    life = lived(served, 2)
    said: list[str] = []
    others = [threading.Thread(target=lambda i=i: said.append(begin(Page(served.port, f"late{i}"), seed=i))) for i in range(5)]
    for other in others:
        other.start()
    for other in others:
        other.join(PATIENCE)
    assert len(said) == 5 and all(f"busy: {BRIEF}, learning live has been running since" in sentence for sentence in said)
    assert life_in(served) is life and served.workshop.status.is_busy


def test_a_person_drives_and_nothing_moves_without_them(served, page):
    begin(page)
    life = lived(served, 3)
    assert "Curiosity drives" in page.call("press_1", "click")[0]
    assert page.call(HANDS, "change", True) == [""]
    until(lambda: "waits for you" in life.seen.doing)
    here = life.seen.step
    time.sleep(0.3)
    assert life.seen.step == here
    done = dict(life.seen.counts)
    for i in range(3):
        page.call("press_2", "click")
        until(lambda: life.seen.step == here + i + 1 and "waits for you" in life.seen.doing)  # noqa: B023
    assert dict(life.seen.counts)["move"] == done.get("move", 0) + 3
    assert "is proposed" in shown(page) and life.seen.why
    assert page.call("Another action", "submit", "stay") == [""]
    until(lambda: life.seen.step == here + 4)
    assert "bad" in page.call("Another action", "submit", "fly")[0]
    assert "bad" in page.call("press_9", "click")[0]
    assert life.seen.step == here + 4
    page.call(HANDS, "change", False)
    until(lambda: life.seen.step > here + 6)
    reader = RecordingReader(Places(Path(life.keep.sessions), Path(life.keep.checkpoints or "")).entry(life.session).folder)
    pressed = [reader.moment(here + i) for i in range(4)]
    assert [moment.why for moment in pressed] == ["a person chose it"] * 4
    assert [reader.action_space.label(moment.executed) for moment in pressed] == ["move", "move", "move", "stay"]


@pytest.mark.parametrize("how", ["running", "paused", "driven"])
def test_stop_stands_the_robot_still_first_and_keeps_everything(served, page, how, monkeypatch):
    stopped: list[int] = []
    stop = ToroidalDotRobot.stop
    monkeypatch.setattr(ToroidalDotRobot, "stop", lambda robot: (stopped.append(life_in(served).seen.step), stop(robot))[1])
    begin(page)
    life = lived(served, 5)
    if how == "paused":
        page.call("pause", "click")
    if how == "driven":
        page.call(HANDS, "change", True)
        until(lambda: "waits for you" in life.seen.doing)
    before = time.monotonic()
    assert Visitor(served.port).post("/stop").status == 200
    assert stopped and time.monotonic() - before < 1.0
    until(lambda: not served.workshop.status.is_busy)
    status = served.workshop.status
    assert status.state == "done" and re.match(
        rf"stopped after {life.seen.step} steps and \d+ updates; it is saved as toroidal_dot/{BRIEF}", status.sentence
    )
    places = Places(Path(life.keep.sessions), Path(life.keep.checkpoints or ""))
    entry = places.entry(life.session)
    assert entry.state == "closed" and len(places.session(life.session)) >= life.seen.step
    assert life.checkpoint in places.checkpoints()
    assert not life.card  # an exam would move the robot again


def test_started_again_it_goes_on_where_it_was_and_anew_only_when_asked(served, page):
    begin(page)
    first = lived(served, 6)
    served.workshop.close()
    steps = first.seen.step
    begin(page, fresh=False)
    again = lived(served, steps + 3)
    assert any("It goes on where it was saved" in note for note in again.seen.notes)
    assert again.session != first.session
    served.workshop.close()
    begin(page, fresh=True)
    until(lambda: any("is kept as" in note for note in life_in(served).seen.notes))
    assert lived(served, 1).seen.step < steps


def test_in_the_end_there_is_a_card(served, page, monkeypatch):
    begin(page, steps=104)
    until(lambda: not served.workshop.status.is_busy)
    life = life_in(served)
    assert served.workshop.status.sentence.startswith("done after 104 steps")
    assert life.card and Path(life.card_page).is_file()
    assert "The card" in shown(page) and life.card_page in shown(Page(served.port, "fourth"))


def test_then_the_session_is_gone_through_with_the_mind_that_lived_it(served, page):
    begin(page, steps=5)
    until(lambda: not served.workshop.status.is_busy)
    tabs, checkpoint = page.call("go_through", "click")
    follows = next(one for one in page.handlers if one["trigger_after"] == page.handler("go_through", "click")["id"])
    (session,) = page.run(follows["id"], [])
    assert tabs["selected"] == "sessions" and follows["outputs"] == [page.named("session")]
    assert (session["value"], checkpoint["value"]) == (life_in(served).session, f"toroidal_dot/{BRIEF}")
    assert session["value"] in [choice[0] for choice in session["choices"]]


def test_a_life_is_saved_while_it_goes_on(served, page, folder, monkeypatch):
    """Whoever stops it finds the mind that was watched, though no save is made in the middle of a step."""
    checkpoints = Checkpoints(folder / "checkpoints/toroidal_dot" / BRIEF)
    for every, is_saved in ((0.01, True), (3600.0, False)):
        monkeypatch.setattr(live_tab, "SAVE_EVERY", every)
        begin(page)
        lived(served, 8)
        assert bool(max(checkpoints.generations())) == is_saved, "a generation has the number of its update"
        served.workshop.stop()
        until(lambda: not served.workshop.status.is_busy)


def test_a_robot_that_is_lost_is_a_sentence_on_every_page(served, page, monkeypatch):
    def lost(robot: ToroidalDotRobot, action: Any) -> None:
        raise RobotLost("the robot does not answer any more; look for it")

    begin(page)
    lived(served, 2)
    monkeypatch.setattr(ToroidalDotRobot, "execute_action", lost)
    until(lambda: not served.workshop.status.is_busy)
    assert served.workshop.status.state == "failed"
    assert "the robot does not answer any more; look for it" in str(
        page.run(next(h for h in page.handlers if page.named("status") in h["outputs"])["id"], [])
    )


def test_what_cannot_be_started_is_a_sentence(served, page):
    assert "Gymnasium" in begin(page, recipe="gym_latent") or served.workshop.status.is_busy  # where the extra is missing, or it begins
    served.workshop.close()
    for wrong in ("no_such_recipe", "../x", ""):
        with pytest.raises((RuntimeError, AssertionError)):
            assert "bad" not in begin(page, recipe=wrong)
    assert "bad" in str(page.call("start", "click", "jetbot_latent", 5, 0, False, "127.0.0.1:99999", ""))


def test_a_life_whose_pages_are_all_closed_goes_on(served, page):
    begin(page)
    life = lived(served, 2)
    here = life.seen.step
    until(lambda: life.seen.step > here + 4)  # nobody looks, nobody asks
    pictures = life.seen.version
    time.sleep(2.2)
    drawn = life.seen.version
    time.sleep(0.5)
    assert life.seen.version == drawn >= pictures  # and nothing is imagined for nobody


def test_a_life_of_its_own_needs_no_page(tmp_path):
    """The same in Python, as the page says."""
    from motorbabble.explorer.workshop import Pace

    recipe = replace(RECIPES["toroidal_dot_latent"], steps=2, threads=1, keep=KeepConfig(tmp_path / "s", tmp_path / "c"), out=tmp_path)  # type: ignore[type-var]
    assert isinstance(recipe, LearningRecipe)
    life = Life("mine", recipe, recipe.keep)
    assert life.run(Pace()).startswith("done after 2 steps")


def test_views_count_where_a_dot_is_and_no_camera_noise():
    with ToroidalDotRobot(seed=0) as robot:
        frames = [robot.get_observation().image]
        for _ in range(10):
            robot.execute_action(robot.action_space.actions[1])
            frames.append(robot.get_observation().image)
        robot.execute_action(robot.action_space.rest)
        frames.append(robot.get_observation().image)
    assert len({frame.tobytes() for frame in frames}) >= 5, "it moved"
    assert len({view_of(frame) for frame in frames}) == len({frame.tobytes() for frame in frames})
    grey = np.full((224, 224, 3), 100, np.uint8)
    noise = np.random.default_rng(0).integers(-9, 10, (20, *grey.shape))
    assert len({view_of(np.clip(grey + one, 0, 255).astype(np.uint8)) for one in noise}) == 1
