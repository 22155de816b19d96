"""Live: a robot learns while one watches: now, what it imagines for every action, what it chose and why, what happened, how well it does."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from motorbabble.errors import ActionError, MotorbabbleError
from motorbabble.explorer.life import Life, Seen
from motorbabble.explorer.parts import code_line, facts, gallery, plot, sentence
from motorbabble.explorer.places import Places
from motorbabble.explorer.redrawn import Redrawn
from motorbabble.explorer.settings import ExplorerConfig
from motorbabble.explorer.workshop import Workshop
from motorbabble.figures import curve_png
from motorbabble.recipes import ABOUT, RECIPES, KeepConfig, LearningRecipe
from motorbabble.robots.gymnasium_robot import GymnasiumConfig
from motorbabble.robots.jetbot import JetBotConfig
from motorbabble.robots.webcam import WebcamConfig
from motorbabble.selectors.human import action_from
from motorbabble.world_models.dream import DreamConfig

if TYPE_CHECKING:
    import gradio

PRESSED = 9  # actions with a button and a key of their own
LOOK_EVERY, REST_EVERY = 0.15, 1.0  # seconds between two looks of a page, while something lives and else
SAVE_EVERY = 10.0  # seconds: whoever stops it wants to ask the mind that was just watched, and STOP does not wait for a save
FRAME = 160  # pixels of a picture
FIRST = "toroidal_dot_latent"
EMPTY = sentence("Press Start: a robot with a dot on a ring learns, from nothing and in about a minute, what its two actions do.")
CODE = "recipe = RECIPES[{0!r}]; run = born({0!r}, recipe, robot_from(recipe.robot, recipe.seed)); for event in run: ..."


@dataclass(frozen=True)
class LiveTab:
    """What the page wires to other tabs."""

    go_through: "gradio.Button"
    workshop: Workshop
    places: Places

    def lead_to(self, tabs: Any, sessions: Any) -> None:
        """The button that opens the session just lived, with the mind that lived it."""
        import gradio as gr

        def lived() -> tuple[str, str]:
            life = self.workshop.job
            return (life.session, life.checkpoint) if isinstance(life, Life) else ("", "")

        def to_mind() -> tuple:
            saved, checkpoint = self.places.checkpoints(), lived()[1]
            return gr.Tabs(selected="sessions"), gr.Dropdown(choices=saved, value=checkpoint if checkpoint in saved else None)

        def to_session() -> "gradio.Dropdown":
            known, session = [name for name, _ in self.places.sessions()], lived()[0]
            return gr.Dropdown(choices=known, value=session if session in known else None)

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # The mind first: a session that changes keeps the one that is chosen then.
        led = self.go_through.click(to_mind, None, [tabs, sessions.checkpoint], **quiet).then(to_session, None, sessions.session, **quiet)
        # A session that was chosen already has grown since.
        led.then(sessions.list_all, [sessions.session, sessions.checkpoint], sessions.listing, preprocess=False, **quiet)


def live_tab(config: ExplorerConfig, workshop: Workshop, places: Places) -> LiveTab:
    import gradio as gr

    names = [name for name, recipe in RECIPES.items() if isinstance(recipe, LearningRecipe) and not isinstance(recipe.robot, DreamConfig)]
    drawn, curved = Redrawn(0.0), Redrawn()
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    with gr.Row(equal_height=True):
        recipe = gr.Dropdown(names, value=FIRST, label="Robot and model", info=ABOUT[FIRST], scale=3, min_width=260)
        steps = gr.Number(RECIPES[FIRST].steps, label="Steps", info="actions of the robot", precision=0, minimum=1, scale=1, min_width=110)
        seed = gr.Number(0, label="Seed", info="another seed, another life", precision=0, minimum=0, scale=1, min_width=110)
        fresh = gr.Checkbox(False, label="Begin anew", info="else it goes on where it was saved", scale=1, min_width=170)
    address = gr.Textbox("", label="JetBot's address", info="such as 192.168.1.20, or 127.0.0.1:18862; empty: no hardware", visible=False)
    environment = gr.Textbox("", label="Gymnasium environment", info="such as ALE/Breakout-v5; empty: the recipe's own", visible=False)
    with gr.Row():
        start = gr.Button("Start", variant="primary", elem_id="start", min_width=100)
        pause = gr.Button("Pause", interactive=False, elem_id="pause", min_width=100)
        step = gr.Button("One step", interactive=False, elem_id="step", min_width=100)
        go_through = gr.Button("Go through this session", interactive=False, elem_id="go_through", min_width=180)
    trouble = gr.HTML("", elem_id="live_trouble")
    with gr.Accordion("Drive it yourself", open=False):
        with gr.Row():
            by_hand = gr.Checkbox(False, label="I choose the actions", info="keys 1 to 9 press them; curiosity's proposal is marked", min_width=220)
            typed = gr.Textbox("", label="Another action", info='its name, or JSON like {"motor_right": 0.12}; Enter does it', scale=2)
        with gr.Row():
            presses = [gr.Button(str(i + 1), visible=False, elem_id=f"press_{i + 1}", min_width=90) for i in range(PRESSED)]
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            pictures = gr.HTML(EMPTY, elem_id="live_pictures")
        with gr.Column(scale=2, min_width=300):
            numbers = gr.HTML("", elem_id="live_numbers")
            curve = gr.HTML("", elem_id="live_curve")
    code = gr.HTML(code_line(CODE.format(FIRST)))
    known = gr.State((-1, -1, -1, ""))  # what this browser has been shown: pictures, numbers, plot, buttons
    clock = gr.Timer(REST_EVERY)

    def chosen(name: str) -> tuple:
        picked = RECIPES[name]
        return (
            gr.Dropdown(info=ABOUT[name]),
            picked.steps,
            gr.Textbox(visible=isinstance(picked.robot, JetBotConfig)),
            gr.Textbox(visible=isinstance(picked.robot, GymnasiumConfig)),
            code_line(CODE.format(name)),
        )

    def begin(name: str, count: float | None, number: float | None, anew: bool, where: str, world: str) -> tuple:
        try:
            workshop.start(Life(name, recipe_of(config, name, count, number, where, world), keep_of(config), anew))
        except MotorbabbleError as error:
            return sentence(str(error), "bad"), gr.skip()
        return "", gr.Timer(LOOK_EVERY)

    def hold() -> None:
        if isinstance(workshop.job, Life):
            (workshop.resume if workshop.status.state == "paused" else workshop.pause)()

    def go_one() -> None:
        if isinstance(workshop.job, Life):
            workshop.step()

    def take(hand: bool) -> str:
        wheel = life.wheel if isinstance(life := workshop.job, Life) else None
        if wheel is None or not workshop.status.is_busy:
            return sentence("Nothing lives; press Start first, then drive.", "bad") if hand else ""
        wheel.take(hand)
        return ""

    def press(number: int) -> Callable[[], str]:
        return lambda: _pressed(workshop, lambda life: life.actions[number][1])

    def type_action(text: str) -> str:
        return _pressed(workshop, lambda life: action_from(text, life.robot.action_space, life.actions[0][1]) if life.robot else {})

    def look(shown: tuple[int, int, int, str]) -> list:
        life, status = workshop.job, workshop.status
        if not isinstance(life, Life):
            return [gr.skip()] * (8 + PRESSED)
        seen = life.look()
        buttons = f"{status.state} {len(life.actions)} {bool(life.session)} {id(life)}"
        at, picture = drawn((life, seen.version), lambda: pictures_of(seen))
        since, plotted = curved((life, len(seen.curve), seen.curve[-1:]), lambda: curve_of(seen))
        now = (at, seen.number, since, buttons)
        told = [
            picture if at != shown[0] else gr.skip(),
            numbers_of(life, seen, status.state == "running") if now[1] != shown[1] or status.is_busy else gr.skip(),
            plotted if since != shown[2] else gr.skip(),
        ]
        if buttons == shown[3]:
            return [*told, now, *[gr.skip()] * (4 + PRESSED)]
        busy, paused = status.is_busy, status.state == "paused"
        labels = [label for label, _ in life.actions[:PRESSED]] if busy else []
        pressed = [gr.Button(f"{i + 1}  {labels[i]}", visible=True) if i < len(labels) else gr.Button(visible=False) for i in range(PRESSED)]
        return [
            *told,
            now,
            gr.Button("Go on" if paused else "Pause", interactive=busy),
            gr.Button(interactive=busy),
            gr.Button(interactive=bool(life.session)),
            gr.Timer(LOOK_EVERY if busy else REST_EVERY),
            *pressed,
        ]

    recipe.change(chosen, recipe, [recipe, steps, address, environment, code], **quiet)
    start.click(begin, [recipe, steps, seed, fresh, address, environment], [trouble, clock], **quiet)
    pause.click(hold, None, None, **quiet)
    step.click(go_one, None, None, **quiet)
    by_hand.change(take, by_hand, trouble, **quiet)
    typed.submit(type_action, typed, trouble, **quiet)
    for number, button in enumerate(presses):
        button.click(press(number), None, trouble, **quiet)
    clock.tick(look, known, [pictures, numbers, curve, known, pause, step, go_through, clock, *presses], **quiet)
    return LiveTab(go_through, workshop, places)


def recipe_of(config: ExplorerConfig, name: str, steps: float | None, seed: float | None, address: str, environment: str) -> LearningRecipe:
    """The recipe of that name, with what the page was told. ConfigurationError or KeyError's sentence where it cannot be."""
    recipe = RECIPES.get(name)
    if not isinstance(recipe, LearningRecipe):
        raise ActionError(f"there is no learning recipe {name!r:.80}; choose one from the list")
    robot = recipe.robot
    if isinstance(robot, JetBotConfig):
        host, _, port = address.strip().partition(":")  # of an SSH tunnel, say
        robot = replace(robot, ip=host, port=int(port[:6]) if port.isdecimal() else robot.port) if host else replace(robot, fake=True)
    if isinstance(robot, GymnasiumConfig) and environment.strip():
        robot = replace(robot, env=environment.strip())
    if isinstance(robot, WebcamConfig):
        robot = replace(robot, fake=True)  # a real one asks somebody at the terminal, who is not on this page
    count = recipe.steps if not steps else int(steps)
    # One core is left to the page and the browser: threads that wait for one another on a busy core cost many times what they save.
    threads = max(1, (os.cpu_count() or 2) - 1)
    return replace(recipe, robot=robot, steps=count, seed=int(seed or 0), threads=threads, keep=keep_of(config), out=config.cards)


def keep_of(config: ExplorerConfig) -> KeepConfig:
    return KeepConfig(sessions=config.sessions, checkpoints=config.checkpoints, save_seconds=SAVE_EVERY)


def _pressed(workshop: Workshop, action_of: Callable[[Life], Any]) -> str:
    life = workshop.job
    if not isinstance(life, Life) or life.wheel is None or not workshop.status.is_busy:
        return sentence("Nothing lives; press Start first.", "bad")
    if not life.wheel.by_hand:
        return sentence("Curiosity drives; tick 'I choose the actions' first.", "bad")
    try:
        life.wheel.press(action_of(life))
    except (MotorbabbleError, IndexError) as error:
        return sentence(f"{error}.", "bad")
    return ""


def pictures_of(seen: Seen) -> str:
    if not seen.groups:
        return sentence("It is waking up ...")
    return "".join(f"<h3 class=part>{escape(title)}</h3>{gallery(tiles, FRAME)}" for title, tiles in seen.groups)


def numbers_of(life: Life, seen: Seen, goes_on: bool = False) -> str:
    """Everything that is a number, with its unit and the floors beside it."""
    since = time.monotonic() - seen.told if goes_on and seen.told else 0.0  # it learns, or acts, and has said nothing new
    rate = seen.update / seen.learning if seen.learning > 0 else 0.0
    floors = "0 is keeping the last frame, 1 is perfect" + (f"; the mean frame has {seen.mean_skill:.2f}" if seen.mean_skill is not None else "")
    pairs: list[tuple[str, object]] = [
        ("It", seen.doing),
        ("Because", seen.why or "it has not chosen yet"),
        ("Then", seen.happened or "no prediction has come true yet"),
        ("Prediction skill", f"{seen.skill:.3f} ({floors})" if seen.skill is not None else f"not yet ({floors})"),
        ("Sees", f"{seen.seeing:.3f} (0 is the mean frame, 1 is perfect)" if seen.seeing is not None else "nothing yet"),
    ]
    if seen.uncertainty is not None:
        pairs.append(("Uncertainty", f"{seen.uncertainty:.2f} nats, mean over its actions"))
    if seen.scores:
        pairs.append(("Scores", ", ".join(f"{label} {score:.3g}" for label, score in seen.scores)))
    pairs += [
        ("Actions", ", ".join(f"{label} {count}" for label, count in seen.counts) or "none yet"),
        ("Coverage", f"{len(seen.counts)} of {len(life.actions)} actions, {seen.views} different views"),
        ("Life", f"{seen.step} of {life.recipe.steps} steps, {seen.elapsed + since:.1f} s"),
        ("Learning", f"{seen.update} updates in {seen.learning:.1f} s, {rate:.1f} per second"),
    ]
    said = "".join(sentence(note) for note in seen.notes)
    if life.card:
        said += "<h3 class=part>The card</h3>" + "".join(sentence(line, "good" if i == 0 else "quiet") for i, line in enumerate(life.card))
        said += sentence(f"With pictures: {life.card_page}") if life.card_page else ""
    return facts(pairs) + said


def curve_of(seen: Seen) -> str:
    if len(seen.curve) < 2:
        return ""
    xs, ys = zip(*seen.curve, strict=True)
    png = curve_png(
        {"the model": (xs, ys), "keeping the last frame": ((xs[0], xs[-1]), (0.0, 0.0))},
        x_label="seconds of life",
        y_label="prediction skill",
        y_low=-1.0,
    )
    return plot(png, f"Prediction skill over {xs[-1]:.0f} seconds of life, now {ys[-1]:.2f}; 0 is keeping the last frame")
