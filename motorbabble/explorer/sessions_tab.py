"""Sessions: everything that was recorded, frame by frame, and what a mind makes of the moment that is looked at.

What a browser looks at is held in its own components, as ids and numbers; every handler finds the rest anew. A moment that changes is
shown at once, beside the queue, and then the chosen mind is asked about it: only about the newest, since whatever was passed by meanwhile
is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motorbabble.errors import MotorbabbleError
from motorbabble.explorer.asking import PANELS, Answers, Question, example, mind_facts
from motorbabble.explorer.browsing import about, shown_of, table_of
from motorbabble.explorer.census import Census
from motorbabble.explorer.lesson_panel import lesson_panel
from motorbabble.explorer.parts import sentence, trouble
from motorbabble.explorer.places import Places
from motorbabble.explorer.workshop import Workshop

if TYPE_CHECKING:
    import gradio

UNREADABLE = (MotorbabbleError, OSError)
FRAME_EVERY = 0.1  # seconds, while it plays
COUNT_EVERY = 1.0  # seconds between two looks at what is counted
FIRST_PANEL = "Every action"
NO_SESSION = "Here a mind is asked about a recorded moment, once a session is chosen."
NO_CHECKPOINT = "No checkpoint of this kind of robot yet. Let one learn in Live, or teach a new model below; then press Refresh."
# In the browser, so that nothing that is asked of the server meanwhile can answer late and turn back.
PLAY = """(now, end, words) => words === 'Pause' ? ['Play', {__type__: 'update', active: false}, now]
  : ['Pause', {__type__: 'update', active: true}, now < end ? now : 0]"""
ADVANCE = """(now, end) => [Math.min(now + 1, end), now + 1 < end ? 'Pause' : 'Play', {__type__: 'update', active: now + 1 < end}]"""
# Asked for beside the queue, so that a picture follows the hand; an answer that another has overtaken changes nothing.
SHOW = """async (session, moment) => {
  const turn = window.motorbabbleTurn = (window.motorbabbleTurn ?? 0) + 1, nothing = {__type__: 'update'}
  const answer = await fetch('moment?' + new URLSearchParams({session: session ?? '', moment})).catch(() => null)
  return answer?.ok && turn === window.motorbabbleTurn ? await answer.json() : [nothing, nothing]
}"""
SHOW_PLAN = "panel => ({__type__: 'update', visible: panel === 'What if'})"
CHOOSE_ROW = """
const choose = row => row && trigger('select', {value: row.dataset.session})
element.addEventListener('click', event => choose(event.target.closest('tr[data-session]')))
element.addEventListener('keydown', event => { if (event.key === 'Enter') choose(event.target.closest('tr[data-session]')) })
"""


@dataclass(frozen=True)
class SessionsTab:
    """What other tabs lead to."""

    session: "gradio.Dropdown"
    checkpoint: "gradio.Dropdown"
    list_all: Callable  # of the chosen session and checkpoint, for the components `listing`: what there is by now
    listing: list


class Browser:
    """What the tab answers, as pieces of a page, for ids and numbers. All browsers share it, and it keeps nothing of any."""

    def __init__(self, places: Places):
        self.places, self.census, self.answers = places, Census(), Answers()

    def listed(self, chosen: str | None) -> tuple[list[str], str | None, str]:
        """Ids of all sessions, the one to show (`chosen`, or the newest that can be read), and the table."""
        try:
            listed = self.places.sessions()
        except OSError as error:
            return [], None, trouble(error)
        names = [name for name, _ in listed]
        readable = [name for name, entry in listed if entry.meta is not None]
        shown = chosen if chosen in names else readable[0] if readable else None
        return names, shown, table_of(listed, self.census, shown)

    def count(self, session: str | None) -> int:
        """How many moments there are; 0 where nothing can be read."""
        try:
            return len(self.places.session(session)) if session else 0
        except UNREADABLE:
            return 0

    def about(self, session: str | None) -> str:
        try:
            return about(self.places.entry(session), self.places.session(session)) if session else ""
        except UNREADABLE as error:
            return trouble(error)

    def fitting(self, session: str | None, chosen: str | None) -> tuple[list[str], str | None]:
        """Checkpoints of the session's kind of robot, and the one to show: `chosen`, or the newest."""
        try:
            found = self.places.checkpoints(self.places.session(session).robot_type) if session else []
        except UNREADABLE:
            found = []
        return found, chosen if chosen in found else found[0] if found else None

    def shown(self, session: str | None, moment: float | str | None) -> tuple[str, str]:
        """The picture of a moment, and what is known of it."""
        if not session:
            return sentence("The frames of a session stand here, once one is chosen."), ""
        try:
            reader = self.places.session(session)
        except UNREADABLE as error:
            return trouble(error), ""
        if not len(reader):
            return sentence("This session holds no moment: whoever recorded it stopped before the first. Choose another."), ""
        return shown_of(reader, whole(moment))

    def example(self, session: str | None) -> str:
        """How a plan is written in the words of the session's robot."""
        try:
            return f"such as {example(self.places.session(session))}" if session else ""
        except UNREADABLE:
            return ""

    def loaded(self, session: str | None, checkpoint: str | None) -> tuple[int, str]:
        """How many frames the mind looks at, 0 where there is none, and what is known of it."""
        if not session or not checkpoint:
            return 0, sentence(NO_CHECKPOINT if session else NO_SESSION)
        try:
            mind = self.places.mind(checkpoint, self.places.session(session))
            return mind.history, mind_facts(self.places.checkpoint(checkpoint), mind)
        except UNREADABLE as error:
            return 0, trouble(error)

    def answer(self, session: str | None, checkpoint: str | None, moment: float | None, frames: float | None, panel: str, plan: str | None) -> str:
        """What the mind makes of the moment."""
        if not session or not checkpoint or not isinstance(panel, str) or panel not in PANELS:
            return ""
        try:
            reader = self.places.session(session)
            mind = self.places.mind(checkpoint, reader)
        except UNREADABLE:  # which `loaded` says already
            return ""
        seen = min(max(whole(frames), 1), mind.history)
        return self.answers(panel, Question(mind, reader, whole(moment), seen, str(plan or "")))


def whole(number: Any) -> int:
    """What a page says is a number, as one that counts; 0 for what is none."""
    try:
        return max(int(number), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def sessions_tab(workshop: Workshop, browser: Browser) -> SessionsTab:
    import gradio as gr

    places = browser.places
    # Values come as the page holds them, and are checked here: Gradio would refuse those of a session, or a mind, that was just changed.
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
    newest: dict[str, Any] = {**quiet, "trigger_mode": "always_last"}

    with gr.Row():
        session = gr.Dropdown([], label="Session", info="or click one in the table", elem_id="session", scale=4, min_width=280)
        refresh = gr.Button("Refresh", elem_id="refresh", scale=0, min_width=110)
    table = gr.HTML("", elem_id="sessions", js_on_load=CHOOSE_ROW)
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            words = "drag it, type a number, or use the keys ← and →"
            moment = gr.Slider(0, 1, 0, step=1, label="Moment", info=words, buttons=[], elem_id="moment")
            with gr.Row(elem_id="steps"):
                first = gr.Button("|◀", elem_id="moment_first", min_width=44)
                back = gr.Button("◀", elem_id="moment_back", min_width=44)
                play = gr.Button("Play", elem_id="play", min_width=80)
                on = gr.Button("▶", elem_id="moment_on", min_width=44)
                last = gr.Button("▶|", elem_id="moment_last", min_width=44)
            frame = gr.HTML("", elem_id="frame")
            known = gr.HTML("", elem_id="known")
            with gr.Accordion("About this session", open=False):
                told = gr.HTML("", elem_id="about")
        with gr.Column(scale=7, min_width=320):
            with gr.Row():
                checkpoint = gr.Dropdown([], label="Checkpoint", info="the mind to ask", elem_id="checkpoint", scale=3, min_width=260)
                frames = gr.Slider(1, 8, 8, step=1, label="Frames it sees", info="the newest", buttons=[], elem_id="frames", scale=2, min_width=200)
            mind = gr.HTML(sentence(NO_SESSION), elem_id="mind")
            panel = gr.Radio(list(PANELS), value=FIRST_PANEL, label="Ask it about this moment", elem_id="panel")
            plan = gr.Textbox("", label="Plan", info="Enter asks; empty: what was really done", visible=False, elem_id="plan")
            answer = gr.HTML("", elem_id="answer")
    with gr.Accordion("Teach it these moments", open=False, elem_id="lessons"):
        lesson_panel(workshop, places, session, moment, checkpoint)
    end = gr.Number(0, visible=False)  # the last moment there is
    opened = gr.Textbox("", visible="hidden", container=False)  # the session that is shown already
    counting = gr.Timer(COUNT_EVERY, active=False)
    playing = gr.Timer(FRAME_EVERY, active=False)

    # What there is, and what is chosen

    def list_all(chosen: str | None = None, here: str | None = None) -> tuple:
        names, shown, rows = browser.listed(chosen)
        fitting, found = browser.fitting(shown, here)
        end = max(browser.count(shown) - 1, 0)  # a session that is still recorded has grown
        return (
            gr.Dropdown(choices=names, value=shown),
            rows,
            gr.Timer(active=browser.census.is_busy),
            gr.Slider(maximum=max(end, 1)),
            end,
            gr.Dropdown(choices=fitting, value=found),
            *(browser.shown(None, 0) if shown is None else (gr.skip(), gr.skip())),
        )

    def look_at_counts(chosen: str | None) -> tuple:
        busy = browser.census.is_busy
        return browser.listed(chosen)[2], gr.skip() if busy else gr.Timer(active=False)

    def choose(event: gr.EventData) -> Any:
        wanted = event.value
        return wanted if wanted in [name for name, _ in places.sessions()] else gr.skip()

    def open_session(chosen: str | None, here: str | None, before: str) -> tuple:
        if chosen == before:  # a list that is filled anew says that it changed, more than once; the moment must not turn back each time
            return (gr.skip(),) * 11
        count = browser.count(chosen)
        fitting, found = browser.fitting(chosen, here)
        middle = count // 2  # where something came before, and comes after
        return (
            browser.listed(chosen)[2],
            gr.Slider(maximum=max(count - 1, 1), value=middle, interactive=count > 1),
            max(count - 1, 0),
            *browser.shown(chosen, middle),
            browser.about(chosen),
            gr.Dropdown(choices=fitting, value=found),
            gr.Timer(active=False),
            "Play",
            gr.Textbox(placeholder=browser.example(chosen)),
            chosen,
        )

    def load(chosen: str | None, here: str | None) -> tuple:
        most, words = browser.loaded(chosen, here)
        return gr.Slider(maximum=max(most, 2), value=most, interactive=most > 1) if most else gr.skip(), words

    # What is asked, when

    gr.on(None, list_all, None, listing := [session, table, counting, moment, end, checkpoint, frame, known], **quiet)
    refresh.click(list_all, [session, checkpoint], listing, **quiet)
    counting.tick(look_at_counts, session, [table, counting], **quiet)
    table.select(choose, None, session, **quiet)
    opening = [table, moment, end, frame, known, told, checkpoint, playing, play, plan, opened]
    session.change(open_session, [session, checkpoint, opened], opening, **newest)
    gr.on([checkpoint.change, refresh.click], load, [session, checkpoint], [frames, mind], **newest)
    moment.change(None, [session, moment], [frame, known], js=SHOW, **quiet)
    for button, turn in ((first, "0"), (back, "Math.max(now - 1, 0)"), (on, "Math.min(now + 1, end)"), (last, "end")):
        button.click(None, [moment, end], moment, js=f"(now, end) => {turn}", **quiet)
    play.click(None, [moment, end, play], [play, playing, moment], js=PLAY, **quiet)
    playing.tick(None, [moment, end], [moment, play, playing], js=ADVANCE, **quiet)
    panel.change(None, panel, plan, js=SHOW_PLAN, **quiet)
    asking = [opened.change, checkpoint.change, refresh.click, moment.change, frames.change, panel.change, plan.submit]
    gr.on(asking, browser.answer, [session, checkpoint, moment, frames, panel, plan], answer, **newest, concurrency_id="mind", concurrency_limit=1)
    return SessionsTab(session, checkpoint, list_all, listing)
