"""Canvas: the concat world model lives through a recorded session while one watches: frames, canvases, its losses, how well it predicted."""

import json
from typing import Any

from motorbabble.errors import ConfigurationError, MotorbabbleError
from motorbabble.explorer.browsing import about
from motorbabble.explorer.canvas_job import CanvasJob, CanvasSettings, OnCanvas
from motorbabble.explorer.canvas_views import Stage, code_of, progress_of
from motorbabble.explorer.parts import picture, sentence, trouble
from motorbabble.explorer.places import Places
from motorbabble.explorer.workshop import Workshop
from motorbabble.figures import Tile
from motorbabble.learning.checkpoint import MANIFEST, Checkpoints
from motorbabble.recording.contents import read_small
from motorbabble.recording.reader import RecordingReader

NEW = "a new model"
ITERATIONS = 10
LOOK_EVERY, REST_EVERY = 0.3, 1.0  # seconds between two looks
NO_SESSION = "No session is here yet. Press Start in Live: what it lives is recorded, and can then be chosen here."
EMPTY = "Press Run: for every moment the model trains on a canvas of the last frames, then paints the next one beside them."
FRAME = 192  # pixels


def canvas_tab(workshop: Workshop, places: Places) -> None:
    import gradio as gr

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    stage = Stage()
    with gr.Row(equal_height=True):
        session = gr.Dropdown([], label="Session", info="of any robot", elem_id="canvas_session", scale=3, min_width=260)
        checkpoint = gr.Dropdown(
            [NEW], value=NEW, label="Begin with", elem_id="canvas_checkpoint", info="canvas models of this robot", scale=2, min_width=200
        )
        refresh = gr.Button("Refresh", elem_id="canvas_refresh", scale=0, min_width=110)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            known_of = gr.HTML("", elem_id="canvas_about")
            moment = gr.Slider(0, 1, value=0, step=1, label="Moment to begin at", elem_id="canvas_moment")
        with gr.Column(scale=1, min_width=240):
            frame = gr.HTML("", elem_id="canvas_frame")
    with gr.Row():
        iterations = gr.Number(
            ITERATIONS, label="Iterations", elem_id="canvas_iterations", info="moments of the session", precision=0, minimum=1, min_width=110
        )
        updates = gr.Number(20, label="Updates", elem_id="canvas_updates", info="per iteration, at most", precision=0, minimum=1, min_width=110)
        skill = gr.Number(
            0.9, label="Until a skill of", elem_id="canvas_skill", info="0: mean frame, 1: perfect", maximum=1, step=0.01, min_width=110
        )
        rate = gr.Number(0.002, label="Learning rate", elem_id="canvas_rate", info="of the optimiser, AdamW", step=0.0005, min_width=110)
    with gr.Row():
        run = gr.Button("Run", variant="primary", elem_id="canvas_run", min_width=90)
        pause = gr.Button("Pause", interactive=False, elem_id="canvas_pause", min_width=90)
        stop = gr.Button("Stop", interactive=False, elem_id="canvas_stop", min_width=90)
        more = gr.Button("Go on from here", interactive=False, elem_id="canvas_more", min_width=150)
        name = gr.Textbox(
            "", show_label=False, container=False, placeholder="name for its weights", elem_id="canvas_name", max_lines=1, min_width=190
        )
        save = gr.Button("Save", interactive=False, elem_id="canvas_save", min_width=90)
    said = gr.HTML("", elem_id="canvas_said")
    with gr.Row():
        with gr.Column(min_width=320):
            progress = gr.HTML(sentence(EMPTY), elem_id="canvas_progress")
        with gr.Column(min_width=320):
            losses = gr.HTML("", elem_id="canvas_losses")
    frames = gr.HTML("", elem_id="canvas_frames")
    canvases = gr.HTML("", elem_id="canvas_canvases")
    plots = gr.HTML("", elem_id="canvas_plots")
    code = gr.HTML("")
    known = gr.State((-1, -1, -1, -1, ""))  # what this browser has been shown: how far, pictures, both drawings, buttons
    clock = gr.Timer(REST_EVERY)

    def listed(chosen: str | None) -> Any:
        now = session_names(places)
        return gr.Dropdown(choices=now, value=chosen if chosen in now else preferred(now))

    def choose(chosen: str | None) -> tuple:
        try:
            if not chosen:
                return sentence(NO_SESSION), gr.Slider(maximum=1, value=0), "", gr.Dropdown([NEW], value=NEW)
            reader, entry = places.session(chosen), places.entry(chosen)
            slider = gr.Slider(maximum=max(1, len(reader) - 1), value=0)
            return about(entry, reader), slider, frame_of(reader, 0), gr.Dropdown([NEW, *canvas_checkpoints(places, reader)], value=NEW)
        except MotorbabbleError as error:
            return trouble(error), gr.skip(), "", gr.skip()

    def turn(chosen: str | None, number: float) -> str:
        try:
            return frame_of(places.session(chosen), int(number)) if chosen else ""
        except MotorbabbleError as error:
            return trouble(error)

    def begin(chosen: str | None, mind: str, first: float, count: float | None, most: float | None, good: float | None, step: float | None) -> tuple:
        try:
            if not chosen:
                raise ConfigurationError("no session is chosen; choose one above, or press Start in Live to record one")
            settings = CanvasSettings(0.9 if good is None else good, int(most or 0), step or 0.0, int(first or 0))
            workshop.start(CanvasJob(OnCanvas(places, chosen, settings, "" if mind == NEW else mind), int(count or 0)))
        except MotorbabbleError as error:
            return trouble(error), gr.skip()
        return "", gr.Timer(LOOK_EVERY)

    def go_on(count: float | None) -> tuple:
        try:
            canvas = stage.newest(workshop)
            if canvas is None:
                raise ConfigurationError("nothing was run yet; press Run first")
            workshop.start(CanvasJob(canvas, int(count or 0)))
        except MotorbabbleError as error:
            return trouble(error), gr.skip()
        return "", gr.Timer(LOOK_EVERY)

    def hold() -> None:
        if isinstance(workshop.job, CanvasJob):
            (workshop.resume if workshop.status.state == "paused" else workshop.pause)()

    def end() -> None:
        if isinstance(workshop.job, CanvasJob):
            workshop.stop()

    def keep(title: str) -> str:
        try:
            canvas = stage.newest(workshop)
            if canvas is None:
                raise ConfigurationError("there are no weights to save yet; press Run first")
            kept = canvas.save(title or "")
        except MotorbabbleError as error:
            return trouble(error)
        return sentence(f"{kept[0].upper()}{kept[1:]}.", "good")

    def look(before: tuple[int, int, int, int, str]) -> list:
        canvas, status = stage.newest(workshop), workshop.status
        if canvas is None:
            return [gr.skip()] * 12
        ours = status.is_busy and isinstance(workshop.job, CanvasJob)
        show = canvas.look()
        buttons = f"{status.state if ours else status.sentence} {id(canvas)} {bool(canvas.losses)}"
        first, second = stage.losses(canvas, ours), stage.plots(canvas, ours)
        now = (show.number, show.drawn + 1_000_000 * id(canvas), first[0], second[0], buttons)
        pictures = stage.pictures(canvas, show) if now[1] != before[1] else (gr.skip(), gr.skip())
        news = [
            progress_of(canvas, show, workshop.job if ours else None) if (now[0], buttons) != (before[0], before[4]) else gr.skip(),
            *pictures,
            first[1] if now[2] != before[2] else gr.skip(),
            second[1] if now[3] != before[3] else gr.skip(),
            now,
        ]
        if buttons == before[4]:
            return [*news, *[gr.skip()] * 6]
        paused = ours and status.state == "paused"
        return [
            *news,
            gr.Button("Go on" if paused else "Pause", interactive=ours),
            gr.Button(interactive=ours),
            gr.Button(interactive=not status.is_busy and not canvas.over),
            gr.Button(interactive=bool(canvas.losses)),
            gr.Timer(LOOK_EVERY if ours else REST_EVERY),
            code_of(canvas),
        ]

    gr.on(None, listed, session, session, **quiet).then(choose, session, opening := [known_of, moment, frame, checkpoint], **quiet)
    session.change(choose, session, opening, **quiet)
    moment.change(turn, [session, moment], frame, trigger_mode="always_last", **quiet)
    refresh.click(listed, session, session, **quiet).then(choose, session, opening, **quiet)
    run.click(begin, [session, checkpoint, moment, iterations, updates, skill, rate], [said, clock], **quiet)
    more.click(go_on, iterations, [said, clock], **quiet)
    pause.click(hold, None, None, **quiet)
    stop.click(end, None, None, **quiet)
    save.click(keep, name, said, **quiet)
    clock.tick(look, known, [progress, frames, canvases, losses, plots, known, pause, stop, more, save, clock, code], **quiet)


# What can be chosen


def session_names(places: Places) -> list[str]:
    return [name for name, entry in places.sessions() if entry.meta is not None]


def preferred(names: list[str]) -> str | None:
    """The newest of the dot, which the canvas was made for; else the newest."""
    return next((name for name in names if name.startswith("toroidal_dot/")), names[0] if names else None)


def canvas_checkpoints(places: Places, reader: RecordingReader) -> list[str]:
    """Of canvas models that know the session's actions."""
    found = []
    for name in places.checkpoints(reader.robot_type):
        checkpoints = Checkpoints(places.checkpoint(name))
        for generation in checkpoints.generations()[:1]:
            try:
                manifest = json.loads(read_small(checkpoints.path(generation) / MANIFEST))
                if manifest["architecture"]["model"] == "CanvasWorldModel":
                    found.append(name)
            except (OSError, ValueError, LookupError, TypeError):  # it is refused where it is loaded, with the reason
                continue
    return found


def frame_of(reader: RecordingReader, number: int) -> str:
    """The picture of a moment, and what was done then."""
    try:
        moment = reader.moment(number)
        done = f"then “{reader.action_space.label(moment.executed)}”" if moment.is_step else "the last of its episode"
        return picture(Tile(reader.image(number), f"Moment {number:,} of {len(reader):,}", done), FRAME)
    except MotorbabbleError as error:
        return trouble(error)
