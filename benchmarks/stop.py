"""How soon a JetBot's motors stop, whatever happens: `python benchmarks/stop.py`; `--trials 3` for fewer of each fault.

Every fault of tests/jetbot_faults.py, our server and a client as processes of their own, measured at a motor latch that keeps its last value
whoever dies; the same faults once with the design this was made against; and commands of any kind, by a simulated clock and over the network.
Prints what it does to stderr, and one JSON line to stdout: trials, how many stopped within 300 ms, the worst in milliseconds, and how many of the
values that fuzzed commands left at the latch were out of range, not finite, or a step too large. `jitter_p95_ms` is null: nothing acts yet
while it learns.
"""

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the experiments live beside the tests that run them in small

from jetbot_clock import Simulated, host
from jetbot_faults import FAULTS, LATEST, ORIGINAL, Server, any_order, trial, trials

from motorbabble.errors import RobotError
from motorbabble.robots.rpyc_link import Link

LIMIT = 0.25
FUZZED = 10_000  # by the simulated clock
FUZZED_BY_WIRE = 1_000


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


def say(*words) -> None:
    print(*words, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="of each fault")
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
    everything = [seconds for times in lasted.values() for seconds in times]
    told = {
        "trials": len(everything),
        "stopped": sum(seconds <= LATEST for seconds in everything),
        "worst_ms": round(1e3 * max(everything), 1) if math.isfinite(max(everything)) else None,
        "median_ms": {name: round(1e3 * statistics.median(times), 1) for name, times in lasted.items()},
        "jitter_p95_ms": None,
        "fuzzed": FUZZED + FUZZED_BY_WIRE,
        "fuzzed_out_of_range": alone_wrong + wire_wrong,
        "original_stopped": sum(original.values()),
        "original_trials": len(original),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
