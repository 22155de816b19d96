"""The panel below a session where its moments are taught: what, on which moments, until when; how far it is; saved under which name."""

from typing import TYPE_CHECKING, Any

from motorbabble.errors import ConfigurationError, MotorbabbleError
from motorbabble.explorer.lessons import PARTS, LessonJob
from motorbabble.explorer.parts import code_line, facts, gallery, plot, sentence, trouble
from motorbabble.explorer.places import Places
from motorbabble.explorer.redrawn import Redrawn, thinned
from motorbabble.explorer.workshop import Workshop
from motorbabble.figures import curve_png
from motorbabble.learning.lesson import LessonConfig

if TYPE_CHECKING:
    import gradio

SUBJECTS = [("how it sees (autoencoder)", "autoencoder"), ("what it predicts (predictor and autoencoder, as in a life)", "predictor")]
MOMENTS = [("this moment", "one"), ("a stretch", "stretch"), ("the whole session", "all")]
UNTIL = [("for so many updates", "updates"), ("until a skill is reached", "skill"), ("until a squared error is reached", "error")]
MISSION_ERROR = 0.001  # the mission's threshold
LOOK_EVERY, REST_EVERY = 0.3, 1.0  # seconds between two looks
EMPTY = "Choose what to teach and press Teach. A copy of the loaded model learns; the model that you look with stays as it is."
LEARNED = "These are the moments that it learns from: they tell how well it learns them by heart. What it understands, a card tells (babble replay)."


def lesson_panel(
    workshop: Workshop, places: Places, session_state: "gradio.Dropdown", moment_state: "gradio.Slider", checkpoint_state: "gradio.Dropdown"
) -> None:
    """`..._state`: where this browser's session id, moment and checkpoint id are chosen; what was saved is put on the list of the last."""
    import gradio as gr

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    shown = Shown()
    with gr.Row():
        subject = gr.Radio(SUBJECTS, value="autoencoder", label="Teach", elem_id="lesson_subject", min_width=300)
        where = gr.Radio(MOMENTS, value="one", label="On", elem_id="lesson_moments", min_width=300)
        first = gr.Number(0, label="From moment", elem_id="lesson_first", precision=0, minimum=0, visible=False, min_width=110)
        last = gr.Number(20, label="To moment", elem_id="lesson_last", info="included", precision=0, minimum=0, visible=False, min_width=110)
    with gr.Row():
        until = gr.Radio(UNTIL, value="updates", label="How long", elem_id="lesson_until", min_width=300, scale=2)
        skill = gr.Number(0.9, label="Skill", elem_id="lesson_skill", info="1 is perfect", maximum=0.9999, step=0.01, visible=False, min_width=150)
        error = gr.Number(
            MISSION_ERROR,
            label="Squared error",
            elem_id="lesson_error",
            info="pixels in 0 to 1; see the floors",
            step=0.0001,
            visible=False,
            min_width=150,
        )
        updates = gr.Number(100, label="Updates", info="at most", precision=0, minimum=1, elem_id="lesson_updates", min_width=110)
        rate = gr.Number(0.001, label="Learning rate", elem_id="lesson_rate", info="of the optimiser, AdamW", step=0.0005, min_width=130)
        fresh = gr.Checkbox(False, label="A new model", elem_id="lesson_new", info="else a copy of the one above", min_width=150)
    with gr.Row():
        teach = gr.Button("Teach", variant="primary", elem_id="teach", min_width=100)
        pause = gr.Button("Pause", interactive=False, elem_id="lesson_pause", min_width=100)
        stop = gr.Button("Stop", interactive=False, elem_id="lesson_stop", min_width=100)
        name = gr.Textbox(
            "", show_label=False, container=False, placeholder="name to save it under", elem_id="lesson_name", max_lines=1, min_width=190
        )
        save = gr.Button("Save", interactive=False, elem_id="lesson_save", min_width=100)
    said = gr.HTML("", elem_id="lesson_said")
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            progress = gr.HTML(sentence(EMPTY), elem_id="lesson_progress")
            pictures = gr.HTML("", elem_id="lesson_pictures")
        with gr.Column(scale=2, min_width=300):
            curves = gr.HTML("", elem_id="lesson_curves")
    code = gr.HTML("")
    known = gr.State((-1, -1, ""))  # what this browser has been shown: how far, which drawing, which buttons
    clock = gr.Timer(REST_EVERY)

    def begin(session: str | None, moment: float, checkpoint: str | None, *asked: Any) -> tuple:
        try:
            if not session:
                raise ConfigurationError("no session is chosen; choose one above")
            what, on, a, b, how, least, most, count, step, new, title = asked
            config = config_of(what, how, least, most, count, step)
            moments = moments_of(on, moment, a, b)
            workshop.start(LessonJob(places, session, moments, config, "" if new else checkpoint or "", title or ""))
        except MotorbabbleError as error:
            return trouble(error), gr.skip(), gr.skip()
        return "", "", gr.Timer(LOOK_EVERY)

    def hold() -> None:
        if isinstance(workshop.job, LessonJob):
            (workshop.resume if workshop.status.state == "paused" else workshop.pause)()

    def end() -> None:
        if isinstance(workshop.job, LessonJob):
            workshop.stop()

    def keep(title: str, session: str | None) -> tuple:
        job = shown.newest(workshop)
        try:
            if job is None:
                raise ConfigurationError("there is no lesson to save; press Teach first")
            job.save(title or "")
            there = places.checkpoints(places.session(session).robot_type) if session else []
        except MotorbabbleError as error:
            return trouble(error), gr.skip(), gr.skip()
        return sentence(f"Saved as {job.taught.saved}; choose it under Checkpoint above to look with it.", "good"), "", gr.Dropdown(choices=there)

    def look(before: tuple[int, int, str]) -> list:
        job, status = shown.newest(workshop), workshop.status
        if job is None:
            return [gr.skip()] * 9
        ours, failed = status.is_busy and workshop.job is job, status.sentence if status.state == "failed" and workshop.job is job else ""
        buttons = f"{status.state if ours else failed} {id(job)} {job.lesson is not None}"
        number, drawing = shown.curves(job)
        far = job.taught.number
        now = (far, number, buttons)
        state = [progress_of(job, ours, failed), shown.pictures(job)] if (far, buttons) != (before[0], before[2]) else [gr.skip()] * 2
        news = [*state, drawing if number != before[1] else gr.skip(), now]
        if buttons == before[2]:
            return [*news, *[gr.skip()] * 5]
        paused = ours and status.state == "paused"
        return [
            *news,
            gr.Button("Go on" if paused else "Pause", interactive=ours),
            gr.Button(interactive=ours),
            gr.Button(interactive=job.lesson is not None),
            gr.Timer(LOOK_EVERY if ours else REST_EVERY),
            code_of(job),
        ]

    where.change(lambda on: [gr.Number(visible=on == "stretch")] * 2, where, [first, last], **quiet)
    until.change(lambda how: (gr.Number(visible=how == "skill"), gr.Number(visible=how == "error")), until, [skill, error], **quiet)
    until.change(lambda how: 100 if how == "updates" else 1000, until, updates, **quiet)
    asked = [subject, where, first, last, until, skill, error, updates, rate, fresh, name]
    teach.click(begin, [session_state, moment_state, checkpoint_state, *asked], [said, name, clock], **quiet)
    pause.click(hold, None, None, **quiet)
    stop.click(end, None, None, **quiet)
    save.click(keep, [name, session_state], [said, name, checkpoint_state], **quiet)
    clock.tick(look, known, [progress, pictures, curves, known, pause, stop, save, clock, code], **quiet)


def config_of(subject: str, until: str, skill: float | None, error: float | None, updates: float | None, rate: float | None) -> LessonConfig:
    """What the page was told; ConfigurationError where it cannot work."""
    if not updates or updates < 1 or not rate or rate <= 0:
        raise ConfigurationError(f"{updates} updates with learning rate {rate} teach nothing; give positive numbers")
    if {"skill": skill, "error": error, "updates": updates}.get(until) is None:
        raise ConfigurationError(f"no {until} to reach was given; give a number, or choose a number of updates")
    return LessonConfig(
        "predictor" if subject == "predictor" else "autoencoder",
        int(updates),
        skill if until == "skill" else None,
        error if until == "error" else None,
        rate,
    )


def moments_of(where: str, moment: float | None, first: float | None, last: float | None) -> range | None:
    """Of the session; None: all of it."""
    if where == "all":
        return None
    if where == "one":
        return range(int(moment or 0), int(moment or 0) + 1)
    if first is None or last is None or last < first or first < 0:
        raise ConfigurationError(f"a stretch from moment {first} to {last} holds nothing; give two numbers, the smaller one first")
    return range(int(first), int(last) + 1)


class Shown:
    """What all browsers see of the newest lesson."""

    def __init__(self):
        self._job: LessonJob | None = None
        self._curves, self._pictures = Redrawn(), Redrawn(0.3)

    def newest(self, workshop: Workshop) -> LessonJob | None:
        """Still there when something else is worked on."""
        if isinstance(workshop.job, LessonJob):
            self._job = workshop.job
        return self._job

    def pictures(self, job: LessonJob) -> str:
        pictures = job.taught.pictures
        return self._pictures(id(pictures), lambda: gallery(pictures, 176), at_once=not job.taught.left)[1] if pictures else ""

    def curves(self, job: LessonJob) -> tuple[int, str]:
        return self._curves((id(job), job.taught.done, len(job.errors)), lambda: curves_of(job), at_once=not job.taught.left)


def progress_of(job: LessonJob, goes_on: bool, failed: str = "") -> str:
    """How far it is: a bar, numbers with their floors, what will become of it. `failed`: why it ended, where it failed."""
    far, config = job.taught, job.config
    share = min(1.0, far.done / max(far.total, 1))
    left = f", at most {_duration(far.left)} left" if goes_on and far.left is not None else ""
    speed = f", {far.rate:.2g} updates per second" if far.rate else ""
    bar = f'<progress class="lesson" max="1" value="{share:.3f}" aria-label="updates done"></progress>'
    pairs: list[tuple[str, object]] = [("Lesson", f"{job.title}, {'with a new model' if not job.checkpoint else f'from {job.checkpoint}'}")]
    pairs.append(("Now", failed or far.doing))
    pairs.append(("Updates", f"{far.done} of {far.total}{speed}{left}"))
    if far.losses:
        pairs.append(("Loss of this update", ", ".join(f"{PARTS[part]} {value:.3g}" for part, value in far.losses.items()) + " (1: as a floor)"))
    if far.score and far.first:
        zero = "the mean frame" if config.subject == "autoencoder" or far.score.over_copy is None else "keeping the last frame"
        pairs.append(("Skill", f"{far.score.skill:.3f}, before {far.first.skill:.3f} (0 is {zero}, 1 is perfect)"))
        pairs.append(("Squared error", f"{far.score.model_all:.2g}, before {far.first.model_all:.2g}"))
        pairs.append(("Its floors", ", ".join(f"{floor} {value:.2g}" for floor, value in far.floors.items())))
    said = ""
    passing = [floor for floor, value in far.floors.items() if config.until_error is not None and value <= config.until_error]
    if passing:
        said = sentence(f"An error of {config.until_error:g} proves little here: {listed(passing)} would pass. Use the skill.", "bad")
    if far.saved:
        said += sentence(f"It is saved as {far.saved}.", "good")
    elif goes_on and job.name:
        said += sentence(f"It will be saved as {job.reader.robot_type}/{job.name} when it ends.")
    elif far.done and not goes_on:
        said += sentence("It is not saved; give it a name and press Save.")
    return bar + facts(pairs) + said + sentence(LEARNED)


def curves_of(job: LessonJob) -> str:
    if not job.taught.done:
        return ""
    losses = {PARTS[part]: thinned(line) for part, line in job.losses.items() if line}
    xs, ys = thinned(job.errors)
    errors: dict[str, tuple[Any, Any]] = {"the model": (xs, ys)}
    errors |= {floor: ((xs[0], xs[-1]), (value, value)) for floor, value in job.taught.floors.items() if value > 0}
    level = job.config.until_error
    drawn = curve_png(losses, x_label="update", y_label="loss of the update (log)", log=True, inches=(6.4, 3.4))
    measured = curve_png(errors, x_label="update", y_label="squared error (log)", log=True, level=level, inches=(6.4, 3.4))
    total = job.taught.losses.get("total", 0.0)
    return plot(drawn, f"Loss of each of {job.taught.done} updates, now {total:.3g}") + plot(
        measured, f"Squared error on these moments, now {ys[-1]:.2g}"
    )


def code_of(job: LessonJob) -> str:
    config, moments = job.config, job.moments
    some = "None" if moments is None else f"range({moments.start}, {moments.stop})"
    until = f", until_skill={config.until_skill}" if config.until_skill is not None else ""
    until += f", until_error={config.until_error}" if config.until_error is not None else ""
    asked = f'LessonConfig("{config.subject}", {config.updates}{until})'
    begun = f', Path("{job.folder}")' if job.folder else ""
    return code_line(
        f'lesson = Lesson(RecordingReader("{job.reader.folder}"), {some}, {asked}{begun}); events = list(lesson); lesson.save(Path(...))'
    )


def listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
