"""The explorer's memory: what is turned, chosen and changed a hundred times leaves nothing behind."""

import gc

import pytest
from counting import Counting
from explorers import Page, Served, settings_in
from recordings import recorded

gradio = pytest.importorskip("gradio", reason="the explorer's memory was not tested; pip install motorbabble[explorer]")


def controls() -> int:
    gc.collect()
    return sum(issubclass(type(one), gradio.blocks.Block) for one in gc.get_objects())


def turn(page: Page, session: str, moment: int) -> None:
    """Another moment, a session that is opened anew, another number of frames: all that answers to it, as the page asks."""
    told = {"session": session, "moment": moment, "frames": 2, "panel": "What if", "plan": ""}
    known = {page.named(name): value for name, value in told.items()}
    for handler in page.handlers:
        touched = {(control, event) for control, event in map(tuple, handler["targets"])}
        if handler["backend_fn"] and touched & {(page.named("moment"), "change"), (page.named("session"), "change")}:
            page.run(handler["id"], [known.get(number) for number in handler["inputs"]])


def grown(folder, monkeypatch, broken: bool = False) -> int:
    """Controls that are there after a number of turns and were not before."""
    recorded(folder / "sessions/counting", Counting(), steps=5, name="counted")
    pages, mount = [], gradio.mount_gradio_app
    monkeypatch.setattr(gradio, "mount_gradio_app", lambda app, blocks, **more: pages.append(type(blocks)) or mount(app, blocks, **more))
    with Served(settings_in(folder)) as served:
        if broken:
            del pages[0].postprocess_data
        page, session = Page(served.port), "counting/counted"
        for moment in range(3):
            turn(page, session, moment)
        before = controls()
        for moment in range(10):
            turn(page, session, moment % 5)
        return controls() - before


def test_what_was_changed_is_forgotten(tmp_path, monkeypatch):
    assert grown(tmp_path, monkeypatch) == 0


def test_without_the_pages_own_numbers_it_is_noticed(tmp_path, monkeypatch):
    assert grown(tmp_path, monkeypatch, broken=True) >= 10
