"""How the explorer behaves before a real browser: `python benchmarks/explorer.py`; it needs Chromium, and takes some minutes.

The command `babble explore` as a process of its own, with a session of 100,000 moments. Measured are, in milliseconds and seconds: STOP, from
the press until a JetBot's motors are at zero to stay (its server's latch, tests/jetbot_faults.py); a new moment on the slider until
its picture stands there; how often the live view changes while a dot is learned; how soon the page can be used; memory over 1,000 turns of the
slider. Counted are connections off this machine, of server and browser, what the browser's console complained of, and names of sessions and
checkpoints that led outside. Prints what it does to stderr, and one JSON line to stdout. `--share 0.1` does a tenth of the counts.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the experiments live beside the tests that run them in small

import numpy as np
from explorers import Program
from jetbot_faults import Server
from memory import hundred_thousand
from seats import Seat, browser, chromium
from test_explorer_guard import laid_out, leaks

from motorbabble.explorer.places import Places

MOMENTS, NAMES, TURNS, SLIDES, STOPS = 100_000, 2_000, 1_000, 60, 10
WATCHED = 20.0  # seconds of learning
# Notes the milliseconds when the picture of the moment stands on the page; timed in the page, where nothing of the test is in the way. No
# promise is waited for: the browser now and then collects one while it is being answered.
TURN = """moment => {
  const box = document.querySelector('#moment input'), frame = document.getElementById('frame'), began = performance.now()
  const words = `Moment ${moment.toLocaleString('en')} of`
  const end = () => { watcher.disconnect(); window.turned = performance.now() - began }
  const watcher = new MutationObserver(() => frame.innerText.includes(words) && end())
  window.turned = null
  watcher.observe(frame, {childList: true, subtree: true, characterData: true})
  box.value = moment
  box.dispatchEvent(new Event('input', {bubbles: true}))
}"""
COUNT = """seconds => new Promise(done => {
  const told = () => ['live_pictures', 'live_numbers', 'live_curve'].map(id => document.getElementById(id).innerHTML).join()
  let changes = 0, before = told()
  const watcher = new MutationObserver(() => { const now = told(); changes += now !== before; before = now })
  watcher.observe(document.getElementById('live_pictures').closest('[role=tabpanel]') ?? document.body, {childList: true, subtree: true})
  setTimeout(() => { watcher.disconnect(); done(changes / seconds) }, 1000 * seconds)
})"""


def say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


def turn(seat: Seat, moment: int) -> float:
    """Milliseconds until the picture of that moment stands on the page."""
    seat.page.evaluate(TURN, int(moment))
    return seat.page.wait_for_function("window.turned").json_value()


def slides(seat: Seat, count: int) -> list[float]:
    """Milliseconds of each turn to a moment anywhere in the long session."""
    seat.tab("Sessions")
    seat.until_pictures("frame")
    seat.choose("session", "counting/session_long")
    seat.until("frame", f"of {MOMENTS:,}")
    seat.page.wait_for_timeout(2000)
    return [turn(seat, moment) for moment in np.random.default_rng(0).integers(0, MOMENTS, count)]


def updates_per_second(seat: Seat, seconds: float) -> float:
    """How often what stands in the live view changes while a dot is learned."""
    seat.tab("Live")
    seat.tick("Begin anew")
    seat.press("start")
    seat.until_pictures("live_curve")
    found = seat.page.evaluate(COUNT, seconds)
    stand_still(seat)
    return found


def stops(seat: Seat, folder: Path, count: int) -> list[float]:
    """Milliseconds from the press until the motors are at zero to stay."""
    lasted = []
    with Server(folder) as jetbot:
        seat.choose("Robot and model", "jetbot_latent")
        seat.fill("JetBot's address", f"127.0.0.1:{jetbot.port}")
        for _ in range(count):
            seat.press("start")
            jetbot.wait_until_moving(150)
            seat.until("status", ", since ")  # else what the page said of the life before would be taken for this one's end
            pressed = time.monotonic()
            seat.page.evaluate("document.getElementById('stop').click()")
            stand_still(seat, press=False)
            time.sleep(0.5)
            lasted.append(1000 * jetbot.stopped_after(pressed))
    return lasted


def stand_still(seat: Seat, press: bool = True) -> None:
    if press:
        seat.press("stop")
    seat.page.wait_for_function("/stopped after|done after/.test(document.getElementById('status').innerText)")


def growth(program: Program, seat: Seat, turns: int) -> list[float]:
    """Megabytes of the server's memory before so many turns, after each tenth of them, and at their end."""
    seat.tab("Sessions")
    draw = np.random.default_rng(1)
    found = [program.resident() / 1e6]
    for _ in range(10):
        for _ in range(turns // 10):
            turn(seat, draw.integers(0, MOMENTS))
        found.append(program.resident() / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts, above 0 and at most 1")
    share = parser.parse_args().share
    if chromium() is None:
        raise SystemExit("there is no Chromium; install chromium, or run playwright install chromium")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        hundred_thousand(folder / "sessions" / "counting", MOMENTS)
        say("A session of 100,000 moments is there.")
        names = int(NAMES * share)
        outside = laid_out(folder / "names")
        led = leaks(Places(outside / "ours/sessions", outside / "ours/checkpoints"), outside, names)
        say(f"Of {names} names {len(led)} led outside.")
        with Program(folder) as program, browser() as opened:
            ready, errors, left = [], [], []
            for _ in range(3):
                began = time.monotonic()
                with Seat(opened, program.url) as seat:
                    ready.append(time.monotonic() - began)
            say(f"The page can be used after {statistics.median(ready):.2f} s.")
            with Seat(opened, program.url) as seat:
                turned = slides(seat, max(20, int(SLIDES * share)))
                say(f"A turn of the slider takes {statistics.median(turned):.0f} ms.")
                grown = growth(program, seat, max(50, int(TURNS * share)))
                say(f"Memory in MB: {', '.join(f'{one:.0f}' for one in grown)}.")
                live = updates_per_second(seat, max(5.0, WATCHED * share))
                say(f"{live:.1f} changes a second while it learns.")
                stopped = stops(seat, folder, max(2, int(STOPS * share)))
                say(f"STOP takes {statistics.median(stopped):.0f} ms.")
                errors, left = seat.errors, seat.outside
            program.end()
            left += program.left
    told = {
        "stop_ms": round(max(stopped), 1),
        "stop_ms_median": round(statistics.median(stopped), 1),
        "slider_p95_ms": round(float(np.percentile(turned, 95)), 1),
        "slider_ms_median": round(statistics.median(turned), 1),
        "live_updates_per_second": round(live, 2),
        "ready_seconds": round(statistics.median(ready), 2),
        "outside_connections": len(left),
        "console_errors": len(errors),
        "names": names,
        "names_leaked": len(led),
        "memory_mb": [round(one, 1) for one in grown],  # before the turns, after each tenth
        "grown_mb": round(grown[-1] - grown[0], 1),
        "grown_second_half_mb": round(grown[-1] - grown[5], 1),
        "turns": max(50, int(TURNS * share)),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
