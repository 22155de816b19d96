"""The explorer in a real browser: every tab, every control, on a wide screen and on a phone; nothing asked of anybody else.

`EXPLORER_SHOTS=docs` (a folder) also takes the pictures that docs/explorer.md shows; those of a life are then taken after a longer one.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from explorers import Page, Program
from jetbot_faults import LATEST, Server
from PIL import Image
from playwright.sync_api import TimeoutError
from seats import NARROW, TABS, Seat, browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium was found; install chromium, or run playwright install chromium")
SHOTS = os.environ.get("EXPLORER_SHOTS", "")
READY = 3.0  # seconds
DOCS = Path(__file__).parent.parent / "docs"
# Paths of the machine that took the pictures are nobody's business.
SHORTEN = """([ours, theirs]) => { const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const kept = new RegExp(theirs + `[^"']*?/(sessions|checkpoints)/`, 'g')
  while (words.nextNode()) if (words.currentNode.data.match(kept) || words.currentNode.data.includes(ours))
    words.currentNode.data = words.currentNode.data.replaceAll(ours, '').replaceAll(kept, 'saved/$1/') }"""
PICTURES = ("live", "sessions", "what-if", "lesson", "canvas", "phone")
# Never on the page at once with the robot of this walk: keys for further actions, and the slider's end, which nobody sees.
UNSEEN = {"press_6", "press_7", "press_8", "press_9"}
CONTROLS = {"button", "dropdown", "number", "checkbox", "textbox", "slider", "radio"}


class Place(NamedTuple):
    program: Program
    browser: Any
    folder: Path

    def seat(self, **more: Any) -> Seat:
        return Seat(self.browser, self.program.url, **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("page")
    with Program(folder) as program, browser() as opened:
        yield Place(program, opened, folder)
        status = program.end()
        assert not program.left, program.left  # it went nowhere off this machine
        assert status in (0, 130) and "Traceback" not in (folder / "stderr.txt").read_text()


def shoot(seat: Seat, name: str, whole: bool = True, part: str = "") -> None:
    if SHOTS:
        seat.page.mouse.move(0, 0)
        seat.page.evaluate(SHORTEN, [f"{DOCS.parent}/", tempfile.gettempdir()])
        seat.page.evaluate("on => { document.getElementById('top').style.position = on ? 'static' : '' }", bool(part))  # else it stands in the way
        png = seat.page.locator(f"#{part}").screenshot() if part else seat.page.screenshot(full_page=whole)
        seat.page.evaluate("document.getElementById('top').style.position = ''")
        taken = Image.open(BytesIO(png)).convert("RGB")
        taken.quantize(128).save(Path(SHOTS) / f"explorer-{name}.png", optimize=True)


def stopped(seat: Seat) -> None:
    """Whatever ran is at rest."""
    seat.press("stop")
    seat.page.wait_for_function("!/since|stopping|paused/.test(document.getElementById('status').innerText)")


def begin_dot(seat: Seat, steps: int = 300) -> None:
    seat.choose("Robot and model", "dot_2d_latent")
    seat.fill("Steps", steps)
    seat.press("start")


def test_the_document_shows_and_names_what_the_page_has(place):
    """Its pictures are there, and every control and panel in bold is on the page under that name."""
    text = (DOCS / "explorer.md").read_text()
    shown = set(re.findall(r"\]\((explorer-[\w-]+\.png)\)", text))
    assert shown == {f"explorer-{name}.png" for name in PICTURES}
    assert all((DOCS / name).stat().st_size < 200_000 for name in shown)
    parts = [part["props"] for part in Page(place.program.port).get("/config").json()["components"]]
    values = [part.get(key) for part in parts for key in ("label", "value") if isinstance(part.get(key), str)]
    choices = [choice[0] for part in parts for choice in part.get("choices") or ()]
    assert set(re.findall(r"\*\*([^*]+)\*\*", text)) <= {*values, *choices}


def test_the_page_is_ready_soon_and_never_empty(place):
    lasted = []
    for _ in range(5):  # a machine that does something else meanwhile says nothing of us
        began = time.monotonic()
        with place.seat() as seat:
            lasted.append(time.monotonic() - began)
            seat.tab("Sessions")
            assert "dot-on-a-ring" in (seat.until_pictures("frame"), seat.text("sessions"))[1]  # what comes with the program
            seat.until_pictures("answer")
            seat.tab("Canvas")
            assert seat.until_pictures("canvas_frame") and "Press Run" in seat.text("canvas_progress")
            seat.tab("Live")
            assert "Press Start" in seat.text("live_pictures") and "Nothing is running" in seat.text("status")
            seat.clean()
        if lasted[-1] < READY:
            break
    assert min(lasted) < READY, lasted


def test_on_a_phone_nothing_is_wider_than_the_window_and_stop_is_always_there(place):
    with place.seat(size=NARROW) as seat:
        for name in TABS:
            seat.tab(name)
            if name == "Sessions":
                seat.until("frame", "Moment 75")
                for panel, words in {"What if": "imagined blind", "Attention": "RI@16", "Every action": "(recorded)"}.items():
                    seat.pick("panel", panel)
                    seat.until("answer", words)
                    assert not seat.is_wider_than_the_window(), panel
                seat.open("Teach it these moments")
                shoot(seat, "phone", whole=False)
            assert not seat.is_wider_than_the_window(), name
            for down in (0, 100_000):
                seat.page.evaluate(f"scrollTo(0, {down})")
                seat.page.wait_for_timeout(100)
                assert seat.sees_stop(), (name, down)
        seat.clean()


def test_every_control_does_what_it_says(place):
    with place.seat() as seat:
        walk_live(seat)
        walk_sessions(seat)
        walk_lessons(seat)
        walk_canvas(seat)
        parts = Page(place.program.port).get("/config").json()["components"]
        there = [(part["props"].get("elem_id"), part["props"].get("label")) for part in parts if part["type"] in CONTROLS]
        assert not [names for names in there if any(names) and not {*names} & (seat.touched | UNSEEN)]
        for name in TABS:
            seat.tab(name)
            assert not seat.is_wider_than_the_window()
        seat.clean()


def test_who_drags_the_slider_fast_sees_where_it_ends(place):
    """Answers that were overtaken on their way change nothing, and the last is never left out."""
    drag = """last => { const box = document.querySelector('#moment input')
      for (let at = 1; at <= last; at++) { box.value = at; box.dispatchEvent(new Event('input', {bubbles: true})) } }"""
    with place.seat() as seat:
        seat.tab("Sessions")
        seat.choose("session", "starter/dot-on-a-ring")
        seat.until("frame", "of 151")
        for last in (40, 60):
            seat.page.evaluate(drag, last)
            seat.until("frame", f"Moment {last} of 151")
            seat.page.wait_for_timeout(500)
            assert f"Moment {last} of 151" in seat.text("frame")
        seat.clean()


def test_who_goes_through_a_life_meets_the_mind_that_lived_it(place):
    """And not the one that comes with the program, which was chosen before in a tab that nobody had looked at."""
    with place.seat() as seat:
        seat.page.wait_for_timeout(1500)  # the tab that was never looked at has chosen what comes with the program by now
        seat.press("start")
        seat.until_pictures("live_pictures")
        seat.press("stop")
        seat.until("status", "stopped after")
        seat.press("go_through")
        seat.until_value("session", "toroidal_dot/session_")
        seat.until_pictures("answer")
        seat.page.wait_for_timeout(1500)  # nothing that was asked before turns it back
        assert seat.page.locator("#checkpoint input").input_value() == "toroidal_dot/toroidal_dot_latent"
        assert "toroidal_dot/session_" in seat.page.locator("#session input").input_value()
        seat.clean()


def walk_live(seat: Seat) -> None:
    seat.choose("Robot and model", "jetbot_latent")
    seat.fill("JetBot's address", "")
    seat.choose("Robot and model", "gym_latent")
    seat.fill("Gymnasium environment", "")
    seat.fill("Seed", 3)
    seat.tick("Begin anew")
    begin_dot(seat)
    first = seat.until_pictures("live_pictures")
    seat.until_pictures("live_pictures", first)
    seat.until_pictures("live_curve")
    if SHOTS:
        seat.page.wait_for_timeout(60_000)
        shoot(seat, "live")
    seat.press("pause")
    seat.until("status", "is paused")
    seat.press("step")
    seat.press("pause")  # which says "Go on" now
    seat.until("status", "since")
    seat.open("Drive it yourself")
    seat.tick("I choose the actions")
    seat.until("live_numbers", "waits for you")
    for i in range(1, 6):
        seat.press(f"press_{i}")
        seat.page.wait_for_timeout(200)
    seat.page.locator("#status").click()
    seat.page.keyboard.press("2")
    seat.page.wait_for_timeout(1000)  # what was pressed is done, and said so
    seat.fill("Another action", "no such action", "Enter")
    seat.page.wait_for_selector("#live_trouble .bad")
    seat.fill("Another action", "up", "Enter")
    seat.tick("I choose the actions", on=False)
    seat.page.locator("#status").click()
    seat.page.keyboard.press("Escape")  # STOP, by a key
    seat.until("status", "stopped after")
    seat.press("go_through")
    seat.until_value("session", "dot_2d/session_")
    seat.until_pictures("frame")
    seat.until_pictures("answer")
    assert seat.page.locator("#checkpoint input").input_value() == "dot_2d/dot_2d_latent"


def turn(seat: Seat, moment: int) -> None:
    """To a moment of the session that comes with the program; once more where a session that was only just opened shows its own first."""
    for _ in range(5):
        seat.fill("moment", moment)
        with suppress(TimeoutError):
            seat.page.wait_for_function(f"document.getElementById('frame').innerText.includes('Moment {moment} of 151')", timeout=4000)
            return
    raise AssertionError(seat.text("frame"))


def walk_sessions(seat: Seat) -> None:
    seat.press("refresh")
    rows = seat.page.locator("#sessions tr[data-session]")
    rows.nth(1).wait_for()  # what comes with the program, and what was lived
    rows.filter(has_text="dot-on-a-ring").click()
    seat.until("frame", "Moment 75 of 151")
    rows.filter(has_text="dot_2d").first.click()
    seat.page.wait_for_function("!document.getElementById('frame').innerText.includes('151')")
    seat.choose("session", "starter/dot-on-a-ring")
    seat.until("frame", "Moment 75 of 151")
    seat.choose("checkpoint", "starter/dot-on-a-ring")
    seat.page.wait_for_timeout(300)
    turn(seat, 40)
    for button, moment in (("moment_on", 41), ("moment_back", 40), ("moment_first", 0), ("moment_last", 150)):
        seat.press(button)
        seat.until("frame", f"Moment {moment} of 151")
    seat.page.locator("#status").click()
    seat.page.keyboard.press("ArrowLeft")
    seat.until("frame", "Moment 149 of 151")
    seat.press("moment_first")
    seat.press("play")
    seat.page.wait_for_function("Number(document.querySelector('#frame').innerText.match(/Moment (\\d+)/)[1]) > 3")
    seat.press("play")
    turn(seat, 40)
    seat.fill("frames", 2)
    said = {"Reconstruction": "mean frame", "Prediction": "Error", "Every action": "(recorded)", "What if": "imagined blind", "Attention": "RI@16"}
    for panel, words in said.items():
        seat.pick("panel", panel)
        seat.until("answer", words)
        if panel == "What if":
            seat.fill("plan", "move, move, stay", "Enter")
            seat.until("answer", "“move, move, stay” from moment 40")
            shoot(seat, "what-if")
        if panel == "Every action":
            shoot(seat, "sessions")
    seat.open("About this session")
    seat.until("about", "Robot")


def walk_lessons(seat: Seat) -> None:
    seat.page.locator("#sessions tr[data-session]").filter(has_text="dot_2d").first.click()
    seat.until("known", "Episode")
    seat.open("Teach it these moments")
    for group in ("lesson_subject", "lesson_moments", "lesson_until"):
        seat.page.locator(f"#{group} label span").first.wait_for()  # what was folded away takes a moment to be there
        options = seat.page.locator(f"#{group} label span").all_inner_texts()
        for option in [*options[1:], options[0]]:
            seat.pick(group, option)
            seat.page.wait_for_timeout(150)
            if group == "lesson_moments" and "stretch" in option:
                seat.fill("From moment", 1)
                seat.fill("To moment", 5)
            if "skill" in option:
                seat.fill("Skill", 0.9)
            if "error" in option:
                seat.fill("Squared error", 0.001)
    seat.page.wait_for_timeout(1000)  # each of these has answered with its own number
    seat.fill("lesson_updates", 20_000)
    seat.fill("Learning rate", 0.001)
    seat.tick("A new model")
    seat.tick("A new model", on=False)
    seat.press("teach")
    seat.until_pictures("lesson_curves")
    shoot(seat, "lesson", part="lessons")
    seat.press("lesson_pause")
    seat.until("status", "is paused")
    seat.press("lesson_pause")
    seat.until("status", "since")
    seat.press("lesson_stop")
    seat.page.wait_for_function("!/since|stopping|paused/.test(document.getElementById('status').innerText)")
    seat.fill("lesson_name", "taught-by-hand")
    seat.press("lesson_save")
    seat.until("lesson_said", "taught-by-hand")


def walk_canvas(seat: Seat) -> None:
    seat.tab("Canvas")
    seat.press("canvas_refresh")
    seat.choose("canvas_session", "starter/dot-on-a-ring")
    seat.until("canvas_about", "toroidal_dot")
    seat.choose("Begin with", "a new model")
    seat.fill("canvas_moment", 2)
    seat.until("canvas_frame", "Moment 2 of")
    for name, value in {"Iterations": 100, "Updates": 2, "Until a skill of": 0.95, "Learning rate": 0.002}.items():
        seat.fill(name, value)
    seat.press("canvas_run")
    seat.until_pictures("canvas_frames")
    seat.until_pictures("canvas_canvases")
    seat.page.wait_for_function("document.querySelectorAll('#canvas_plots img').length >= 1")
    shoot(seat, "canvas")
    seat.press("canvas_pause")
    seat.until("status", "is paused")
    seat.press("canvas_pause")
    seat.until("status", "since")
    seat.press("canvas_stop")
    seat.page.wait_for_function("!/since|stopping|paused/.test(document.getElementById('status').innerText)")
    seat.press("canvas_more")
    seat.until("status", "since")
    stopped(seat)
    seat.fill("canvas_name", "painted-by-hand")
    seat.press("canvas_save")
    seat.until("canvas_said", "painted-by-hand")


def test_stop_stands_a_robot_still_in_time(place, tmp_path):
    """A JetBot's server with motors that keep what they were last told: from the press until they are at zero to stay."""
    lasted = []
    with Server(tmp_path) as jetbot, place.seat() as seat:
        seat.choose("Robot and model", "jetbot_latent")
        seat.fill("JetBot's address", f"127.0.0.1:{jetbot.port}")
        for _ in range(4):
            seat.press("start")
            jetbot.wait_until_moving(150)
            pressed = time.monotonic()
            seat.page.evaluate("document.getElementById('stop').click()")
            seat.until("status", "stopped after")
            time.sleep(0.5)
            lasted.append(jetbot.stopped_after(pressed))
            if lasted[-1] < LATEST:
                break
        seat.clean()
    assert min(lasted) < LATEST and max(lasted) < 5, lasted


def test_two_browsers_see_one_life_and_never_what_the_other_looks_at(place):
    with place.seat() as one, place.seat() as other:
        begin_dot(one)
        one.until_pictures("live_pictures")
        other.until_pictures("live_pictures")  # without having asked for anything
        began = re.search(r"since [\d:]+", one.text("status"))
        assert began and began[0] in other.text("status")
        other.press("start")
        other.until("live_trouble", f"has been running {began[0]}")
        for seat in (one, other):
            seat.tab("Sessions")
            seat.until_pictures("frame")
            seat.choose("session", "starter/dot-on-a-ring")
        for i in range(6):
            turn(one, 10 + i)
            turn(other, 120 - i)
            one.pick("panel", "Prediction" if i % 2 else "Reconstruction")
            one.until("frame", f"Moment {10 + i} of 151")
            other.until("frame", f"Moment {120 - i} of 151")
        assert "Every action" in other.page.locator("#panel input:checked + span, #panel label.selected").first.inner_text()
        other.press("stop")  # anybody may
        one.until("status", "stopped after")
        for seat in (one, other):
            seat.clean()


def test_a_closed_tab_ends_nothing(place):
    with place.seat() as seat:
        begin_dot(seat, 400)
        seat.until("live_numbers", "of 400 steps")
        before = steps_in(seat)
    time.sleep(1.5)
    with place.seat() as seat:
        seat.until("live_numbers", "of 400 steps")
        late = time.monotonic() + 60
        while steps_in(seat) <= before:  # a busy machine takes its time for a step, and one that ended takes none
            assert time.monotonic() < late, "it lives no further"
            time.sleep(0.2)
        stopped(seat)
        seat.clean()


def steps_in(seat: Seat) -> int:
    found = re.search(r"(\d+) of 400 steps", seat.text("live_numbers"))
    assert found, seat.text("live_numbers")
    return int(found[1])
