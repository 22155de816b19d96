"""Somebody who sits before the explorer in a real browser: presses, types, looks, and notes what went wrong and what was asked of whom."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 90_000  # milliseconds that a slow machine may take
WIDE, NARROW = (1280, 900), (390, 844)
TABS = ("Live", "Sessions", "Canvas")


def chromium() -> str | None:
    """The browser of this machine, or the one that playwright brought; None where there is neither."""
    if named := os.environ.get("CHROMIUM"):
        return named
    if found := next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None):
        return found
    with suppress(Exception):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as driver:
            return driver.chromium.executable_path if Path(driver.chromium.executable_path).exists() else None
    return None


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


class Seat:
    """A browser of one's own. `errors`: what its console said; `outside`: what it asked of anybody but the explorer; `touched`: controls used."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int] = WIDE):
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.url, self.errors, self.outside, self.touched = url, [], [], set()
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: None if asked.url.startswith((url, "data:", "blob:")) else self.outside.append(asked.url))
        self.page.goto(url)
        self.page.wait_for_selector("#start")

    def __enter__(self) -> "Seat":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    # Hands

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        """A button, by its id on the page."""
        self.touched.add(name)
        self.page.locator(f"#{name}:not([disabled])").click()

    def fill(self, name: str, value: object, key: str = "Tab") -> None:
        """A number or a text, by its label or id, then `key`."""
        box = self._box(name)
        box.fill(str(value))
        box.press(key)

    def choose(self, name: str, option: str) -> None:
        """One of a list that opens."""
        box = self._box(name)
        box.click()
        box.fill(option)
        self.page.get_by_role("option", name=option, exact=True).first.click()

    def tick(self, name: str, on: bool = True) -> None:
        self.touched.add(name)
        self._box(name).set_checked(on)

    def pick(self, name: str, option: str) -> None:
        """One of several round buttons, by the group's id."""
        self.touched.add(name)
        self.page.locator(f"#{name}").get_by_text(option, exact=True).click()

    def open(self, name: str) -> None:
        """What is folded away."""
        self.page.get_by_role("button", name=name).click()

    # Eyes

    def text(self, name: str) -> str:
        return self.page.locator(f"#{name}").inner_text()

    def pictures(self, name: str) -> list[str]:
        return self.page.locator(f"#{name} img").evaluate_all("images => images.map(image => image.src)")

    def until(self, name: str, words: str) -> None:
        """Wait until the part of that id says so."""
        self.page.wait_for_function("([id, words]) => document.getElementById(id)?.innerText.includes(words)", arg=[name, words])

    def until_value(self, name: str, words: str) -> None:
        """Wait until the list or box of that id holds them."""
        self.page.wait_for_function("([id, words]) => document.querySelector(`#${id} input`)?.value.includes(words)", arg=[name, words])

    def until_pictures(self, name: str, other_than: list[str] | None = None) -> list[str]:
        """Wait until there are some, others than those if told."""
        told = [name, other_than or []]
        seen = "Array.from(document.querySelectorAll(`#${id} img`)).map(image => image.src)"
        self.page.wait_for_function(f"([id, old]) => {{ const now = {seen}; return now.length && now.join() !== old.join() }}", arg=told)
        return self.pictures(name)

    def is_wider_than_the_window(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    def sees_stop(self) -> bool:
        """Whether all of STOP lies in the window, above everything else."""
        return self.page.evaluate(
            "() => { const at = document.getElementById('stop').getBoundingClientRect();"
            " return at.width > 40 && at.left >= 0 && at.top >= 0 && at.right <= innerWidth && at.bottom <= innerHeight"
            " && !!document.elementFromPoint(at.left + at.width / 2, at.top + at.height / 2).closest('#stop') }"
        )

    def clean(self) -> None:
        assert not self.errors and not self.outside, (self.errors[:5], self.outside[:5])

    # Parts

    def _box(self, name: str) -> Any:
        self.touched.add(name)
        inside = self.page.locator(f"#{name} input, #{name} textarea").first if name.replace("_", "").isalnum() and name.islower() else None
        return inside if inside is not None else self.page.get_by_label(re.compile(rf"^\s*{re.escape(name)}")).locator("visible=true").first
