"""The page: STOP and what goes on above everything, and three tabs below."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motorbabble.explorer.sessions_tab import Browser, sessions_tab
from motorbabble.explorer.settings import ExplorerConfig
from motorbabble.explorer.workshop import Status, Workshop

if TYPE_CHECKING:
    import gradio

HERE = Path(__file__).parent
CSS = (HERE / "page.css").read_text()
HEAD = f"<script>{(HERE / 'page.js').read_text()}</script>"
IDLE = "Nothing is running. Start a robot in <b>Live</b>, look through recordings in <b>Sessions</b>, or paint next frames in <b>Canvas</b>."


def theme() -> Any:
    from gradio.themes import Soft

    fonts = ["system-ui", "sans-serif"]
    return Soft(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"])


def build(config: ExplorerConfig, workshop: Workshop, browser: Browser) -> "gradio.Blocks":
    import gradio as gr

    from motorbabble.explorer.canvas_tab import canvas_tab
    from motorbabble.explorer.live_tab import live_tab

    class Page(gr.Blocks):
        """Gradio makes a control anew, under a new number, each time its properties change, and where it is also read from the page keeps
        every one there ever was (seen in 6.31: 6 kB a time). Here the newest takes the number over.
        """

        async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
            told = await super().postprocess_data(block_fn, predictions, state)
            for control in block_fn.outputs if state else ():
                if not control.stateful:
                    state[control._id]._id = control._id
            return told

    places = browser.places
    with Page(title="motorbabble", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        with gr.Row(elem_id="top"):
            status = gr.HTML(said(workshop.status), elem_id="status")
            gr.Button("STOP", elem_id="stop", scale=0).click(None, js="() => motorbabbleStop()", api_visibility="private")
        with gr.Tabs() as tabs:
            with gr.Tab("Live", id="live"):
                live = live_tab(config, workshop, places)
            with gr.Tab("Sessions", id="sessions"):
                sessions = sessions_tab(workshop, browser)
            with gr.Tab("Canvas", id="canvas"):
                canvas_tab(workshop, places)
        clock = gr.Timer(0.5)
        clock.tick(lambda: said(workshop.status), None, status, show_progress="hidden", api_visibility="private")
        live.lead_to(tabs, sessions)
    return page


def said(status: Status) -> str:
    """What goes on, for the top of the page."""
    title = "<h1>motorbabble</h1>"
    if status.state == "idle":
        return f'{title}<p class="quiet">{IDLE}</p>'
    since = f"since {status.clock}"
    words = {
        "running": f"<b>{escape(status.title)}</b>, {since}",
        "paused": f"<b>{escape(status.title)}</b> is paused",
        "stopping": f"<b>{escape(status.title)}</b> is stopping; the robot stands still already",
        "done": f"<b>{escape(status.title)}</b>: {escape(status.sentence)}",
        "failed": f'<span class="bad">{escape(status.title)}: {escape(status.sentence)}</span>',
    }
    return f"{title}<p>{words[status.state]}</p>"
