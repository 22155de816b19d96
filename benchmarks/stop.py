"""How soon a JetBot's motors stop, whatever happens: `python benchmarks/stop.py`; `--trials 3` for fewer of each fault.

Every fault of tests/jetbot_faults.py, our server and a client as processes of their own, measured at a motor latch that keeps its last value
whoever dies; the same faults once with the design this was made against; commands of any kind, by a simulated clock and over the network; and how
evenly a stand-in acts every 500 ms while a model learns beside it, with the same in the loop for comparison.
Prints what it does to stderr, and one JSON line to stdout: trials, how many stopped within 300 ms, the worst in milliseconds, how many of the
values that fuzzed commands left at the latch were out of range, not finite, or a step too large, and `jitter_p95_ms`, the 95th percentile of
|interval - 500 ms| between the starts of two actions.
"""

import argparse
import itertools
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the experiments live beside the tests that run them in small

import torch
from jetbot_clock import Simulated, host
from jetbot_faults import FAULTS, LATEST, ORIGINAL, Server, any_order, trial, trials

from motorbabble.agents import learn
from motorbabble.errors import RobotError
from motorbabble.experience import Step, Study
from motorbabble.robots.jetbot import FakeJetBot
from motorbabble.robots.rpyc_link import Link

LIMIT = 0.25
FUZZED = 10_000  # by the simulated clock
FUZZED_BY_WIRE = 1_000
PERIOD = 0.5  # seconds


def wrong(values: list[tuple[float, float]], slew: float) -> int:
    """Values that are not finite, beyond the limit, or further from the one before than one step of a ramp, unless they are zero."""
    found, before = 0, (0.0, 0.0)
    for value in values:
        legal = all(math.isfinite(part) and abs(part) <= LIMIT + 1e-12 for part in value)
        steps = [abs(now - then) for now, then in zip(value, before, strict=True)]
        found += not legal or (any(value) and max(steps) > slew + 1e-9)
        before = value
    return found


def fuzz(seed: int) -> tuple[int, int]:
    """Wrong values, and values, of the motor owner alone."""
    robot, draw = Simulated(late=0.004, seed=seed, limit=LIMIT), random.Random(seed)
    for _ in range(FUZZED):
        robot.raw(any_order(draw, robot.board.now))
        robot.wait(draw.choice([0.0, 0.001, 0.02, 0.3]))
    values = [value[1:] for value in robot.board.values]
    return wrong(values, LIMIT / host.STEPS), len(values)


def fuzz_by_wire(folder: Path, steps: int, seed: int) -> tuple[int, int]:
    """The same of a server that runs, whose calls are given anything that can be sent."""
    draw = random.Random(seed)
    odd = [math.nan, math.inf, -math.inf, 1e308, -0.0, "fast", None, b"x", True, 10**300, (1, 2), 0.12, -0.12, 0.3, 7.0]
    with Server(folder) as server:
        link = Link("127.0.0.1", server.port)
        for _ in range(FUZZED_BY_WIRE):
            call = draw.choice(["set_motors", "drive", "renew", "motion", "get_frame", "halt", "rearm"])
            values = [
                draw.choice([draw.choice(odd), *(draw.uniform(-0.5, 0.5) for _ in range(4))])
                for _ in range(draw.choice([2, 2, 4, draw.randrange(5)]))
            ]
            if call == "drive" and len(values) == 4 and draw.random() < 0.7:
                values[3] = time.monotonic()
            with suppress(RobotError):
                link.call(call, *values)
        link.close()
        values = [value[1:] for value in server.values()]
    return wrong(values, LIMIT / steps), len(values)


SLEEPER = f"""import time
while True:
    print(time.monotonic_ns(), flush=True)
    time.sleep({PERIOD})
"""


def off(starts: list[float]) -> tuple[float, float]:
    """Milliseconds that 95 of 100 intervals between two starts are off by at most, and the worst."""
    wrong = sorted(abs(after - start - 1e3 * PERIOD) for start, after in itertools.pairwise(starts))
    return wrong[math.ceil(0.95 * len(wrong)) - 1], wrong[-1]


def jitter(beside: bool, actions: int, seed: int) -> tuple[tuple[float, float], int, tuple[float, float]]:
    """How far `actions` are off, how many updates were made meanwhile, and how far off a process is that does nothing but sleep."""
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True)
    with FakeJetBot(seed) as robot:
        torch.set_num_threads(1)
        run = learn(robot, steps=None, seed=seed, beside=beside, action_period=PERIOD, holds_out=lambda observation: False, threads=1)
        starts, before, last = [], None, 0
        with run:
            for event in run:
                if isinstance(event, Study):
                    before = event.update if before is None else before  # from here on it learns; its process has started
                    last = event.update
                elif isinstance(event, Step) and before is not None:
                    starts.append(event.monotonic_ns / 1e6)
                if len(starts) > actions:
                    break
    sleeper.kill()
    slept = [int(line) / 1e6 for line in sleeper.communicate()[0].splitlines()]
    return off(starts), last - (before or 0), off(slept)


def say(*words) -> None:
    print(*words, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="of each fault")
    parser.add_argument("--actions", type=int, default=120, help="whose starts are compared with a clock")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    lasted: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for fault in FAULTS:
            lasted[fault.name] = trials(fault, folder, arguments.trials)
            say(f"{fault.name:28s} median {1e3 * statistics.median(lasted[fault.name]):4.0f} ms, worst {1e3 * max(lasted[fault.name]):4.0f} ms")
        original = {}
        for fault in (fault for fault in FAULTS if fault.driver == "leased"):
            with Server(folder, file=ORIGINAL) as old:
                original[fault.name] = trial(fault, old, driver="plain")[0] <= LATEST
        say("the original's design stops after:", ", ".join(name for name, stops in original.items() if stops) or "nothing")
        wire_wrong, wire_values = fuzz_by_wire(folder, host.STEPS, arguments.seed)
    alone_wrong, alone_values = fuzz(arguments.seed)
    say(f"{FUZZED} fuzzed orders gave {alone_values} values, {FUZZED_BY_WIRE} fuzzed calls {wire_values}; wrong: {alone_wrong} and {wire_wrong}")
    (beside, worst), updates, (slept, late) = jitter(True, arguments.actions, arguments.seed)
    say(f"learning beside it, {updates} updates during {arguments.actions} actions: 95 % within {beside:.1f} ms, worst {worst:.1f} ms")
    say(f"meanwhile a process that only sleeps, on the same machine: 95 % within {slept:.1f} ms, worst {late:.1f} ms")
    (inside, worst), updates, _ = jitter(False, max(20, arguments.actions // 4), arguments.seed)
    say(f"learning in the loop, {updates} updates: 95 % within {inside:.1f} ms, worst {worst:.1f} ms")
    everything = [seconds for times in lasted.values() for seconds in times]
    told = {
        "trials": len(everything),
        "stopped": sum(seconds <= LATEST for seconds in everything),
        "worst_ms": round(1e3 * max(everything), 1) if math.isfinite(max(everything)) else None,
        "median_ms": {name: round(1e3 * statistics.median(times), 1) for name, times in lasted.items()},
        "jitter_p95_ms": round(beside, 1),
        "jitter_p95_ms_of_a_sleeper": round(slept, 1),
        "jitter_p95_ms_in_the_loop": round(inside, 1),
        "fuzzed": FUZZED + FUZZED_BY_WIRE,
        "fuzzed_out_of_range": alone_wrong + wire_wrong,
        "original_stopped": sum(original.values()),
        "original_trials": len(original),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
