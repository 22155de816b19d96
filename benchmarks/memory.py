"""What a session costs and what it survives: `python benchmarks/memory.py`, or `--only NAME ...` for some of it.

The full counts of the experiments that the tests run in small (tests/durability.py says how each is done), and the prices:
milliseconds per recorded 224 x 224 dot step inside `live`, per frame read at random, seconds to open 100,000 moments.
Prints what it does and every complaint to stderr, and one JSON line to stdout. A figure is null when its experiment was not
asked for or is not there. Sessions that are timed or killed lie under the folder `--folder` (the working folder), crash states
and the like in memory. `--share 0.1` does a tenth of the counts.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the experiments live beside the tests that run them in small

from motorbabble.experience import ActionSpace, Choice, Observation, Step  # noqa: E402
from motorbabble.life import live  # noqa: E402
from motorbabble.recording.format import MOMENTS_PER_SHARD, SessionMeta, events_file, frames_file  # noqa: E402
from motorbabble.recording.reader import RecordingReader  # noqa: E402
from motorbabble.recording.writer import RecordingWriter, _packed  # noqa: E402
from motorbabble.robots.toroidal_dot import ToroidalDotRobot  # noqa: E402
from motorbabble.selectors import RandomSelector  # noqa: E402

Figures = dict[str, Any]
STEPS = 2000  # of the dot that are timed: two shards
READS = 2000
SLOW_S = 0.3  # a sync of a poor SD card
SPACE = ActionSpace.discrete([{"add": 1}, {"add": 2}])


def say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


def beside(name: str) -> ModuleType | None:
    """A file of tests/; None, said aloud, when it is not there."""
    if (ROOT / "tests" / f"{name}.py").exists():
        return importlib.import_module(name)
    say(f"tests/{name}.py is not there, so its figures are null.")
    return None


def experiments() -> Any:
    return importlib.import_module("durability")


def told(found: Any) -> Any:
    for complaint in found.complaints[:20]:
        say(f"  {complaint}")
    return found


# Prices


def recording(folder: Path, share: float) -> Figures:
    """What `record` takes of a dot's step, on this folder's disk and on one whose syncs take 300 ms."""
    seconds = recorded_dot(folder / "dot", int(STEPS * share))
    slow = recorded_dot(folder / "slow", max(int(400 * share), 60), importlib.import_module("disks").SlowDisk(SLOW_S), pause=0.005)
    return {
        "record_ms_p50": ms(seconds, 50),
        "record_ms_p95": ms(seconds, 95),
        "record_ms_p99": ms(seconds, 99),
        "record_ms_max": ms(seconds, 100),
        "record_slow_sync_ms_p50": ms(slow, 50),
        "record_slow_sync_ms_p99": ms(slow, 99),
        "record_slow_sync_ms_max": ms(slow, 100),
        "bytes_per_dot_step": round(sum(path.stat().st_size for path in (folder / "dot").rglob("*shard*")) / len(seconds)),
    }


def recorded_dot(root: Path, steps: int, disk: Any = None, pause: float = 0.0) -> list[float]:
    """Seconds each `record` took, in a life at full speed, or with a pause after each step as robots need it."""
    seconds = []
    with ToroidalDotRobot(seed=0) as robot, RecordingWriter.create(root, robot.robot_type, robot.action_space, name="life", disk=disk) as writer:
        for event in live(robot, RandomSelector(0), steps=steps):
            assert isinstance(event, Step)
            began = time.perf_counter()
            writer.record(event)
            seconds.append(time.perf_counter() - began)
            time.sleep(pause)
    return seconds


def reading(folder: Path, share: float) -> Figures:
    """One frame of a dot's session at random, its shard's lines parsed or not."""
    if not (folder / "dot" / "life").exists():
        recorded_dot(folder / "dot", int(STEPS * share))
    reader, rng = RecordingReader(folder / "dot" / "life"), np.random.default_rng(0)
    seconds = []
    for number in rng.integers(0, len(reader), int(READS * share)).tolist():
        began = time.perf_counter()
        reader.image(number)
        seconds.append(time.perf_counter() - began)
    return {"frame_read_ms_p50": ms(seconds, 50), "frame_read_ms_p95": ms(seconds, 95), "frame_read_ms_max": ms(seconds, 100)}


def opening(folder: Path, share: float) -> Figures:
    """A session of 100,000 moments: opening it, and then the first look at any of its frames."""
    session = hundred_thousand(folder / "long", int(100_000 * share))
    began = time.perf_counter()
    reader = RecordingReader(session)
    opened = time.perf_counter() - began
    assert len(reader) == int(100_000 * share)
    looks, rng = [], np.random.default_rng(0)
    for number in rng.integers(0, len(reader), 300).tolist():
        began = time.perf_counter()
        reader.image(number)
        looks.append(time.perf_counter() - began)
    return {"open_100k_seconds": round(opened, 4), "read_100k_ms_p50": ms(looks, 50), "read_100k_ms_p95": ms(looks, 95)}


def hundred_thousand(root: Path, moments: int) -> Path:
    """A whole, closed session, written line by line as the writer would, but a shard at a time: its frames are of one pixel."""
    from motorbabble.recording.format import META, to_line

    session = root / "session_long"
    session.mkdir(parents=True)
    seen = Observation(np.zeros((1, 1, 3), np.uint8), state={"count": np.array([1], np.int64)})
    packed, placed = _packed(seen, 0)
    meta = SessionMeta(session.name, "counting", SPACE, time.time_ns())
    event = Step(
        0, seen, {"add": 1.0}, {"add": 1.0}, Choice({"add": 1.0}, {"one": 0.5, "two": 0.25}, "a reason as long as they usually are"), 1, 2, 3
    )
    said = {"requested": dict(event.requested), "executed": dict(event.executed), "started_ns": time.time_ns(), "ended_ns": time.time_ns()}
    said |= {"monotonic_ns": time.monotonic_ns(), "scores": dict(event.choice.scores), "why": event.choice.why, "gate": "passed", "updates": 1}
    for shard, first in enumerate(range(0, moments, MOMENTS_PER_SHARD)):
        lines = [to_line({"header": 1, "shard": shard, "first_moment": first, "session": meta.to_json()})]
        for number in range(first, min(first + MOMENTS_PER_SHARD, moments)):
            place = {**placed, "frame": {**placed["frame"], "at": (number - first) * len(packed)}}
            lines.append(to_line({"moment": number, **place, "kind": "step", "index": number, **said}))
        (session / events_file(shard)).write_bytes(b"".join(lines))
        (session / frames_file(shard)).write_bytes(packed * (len(lines) - 1))
    (session / META).write_bytes(meta.ended("closed", moments).to_bytes())
    return session


def training(folder: Path, share: float) -> Figures:
    module = beside("disk_training")
    return {"train_from_disk_ratio": module.ratio() if module else None}


# Promises


def kills(folder: Path, share: float) -> Figures:
    found = told(experiments().kill_recordings(int(200 * share), seed=0, root=folder / "killed"))
    return {"kills": found.trials, "unreadable": found["unreadable"] + found["wrong"], "acknowledged_lost": found["lost"]}


def operations(folder: Path, share: float) -> Figures:
    """A kill before every operation of a life and of its reopening, each write also torn."""
    each = [told(experiments().kill_each_operation(folder / f"operations{torn}", torn=torn)) for torn in (False, True)]
    return {"kills_by_operation": sum(f.trials for f in each), "kills_by_operation_lost": sum(len(f.complaints) for f in each)}


def power(folder: Path, share: float) -> Figures:
    found = told(experiments().power_cuts(int(12_000 * share), seed=0))
    return {
        "crash_states": found.trials,
        "crash_states_unreadable": found["unreadable"] + found["wrong"] + found["gap"],
        "crash_states_lost": found["lost"],
    }


def faults(folder: Path, share: float) -> Figures:
    """Every operation fails in five ways, once and for good, in a new session and a reopened one."""
    kinds: dict[str, Any] = {} if share == 1 else {"for_good": [False], "errors": ["EIO", "short write"]}
    found = told(experiments().fail_each_operation(folder / "faults", **kinds))
    return {
        "io_faults": found.trials,
        "io_faults_lost": found["lost"] + found["unreadable"] + found["wrong"],
        "io_faults_amiss": len(found.complaints),
    }


def rot(folder: Path, share: float) -> Figures:
    found = told(experiments().rot(folder / "rot", int(500 * share), int(500 * share), seed=0))
    missed = found["lost"] + found["unreadable"] + found["unnamed"]
    return {"flips_and_truncations": found.trials, "wrong_frames_returned": found["wrong"], "undamaged_not_returned_or_damage_not_named": missed}


def replay(folder: Path, share: float) -> Figures:
    """A life of a thousand mixed moments; the share that is read back equal to the last bit."""
    module = experiments()
    events = [module.event_of(number) for number in range(int(1000 * share))]
    reader = module.recorded(folder / "replay", *events)
    return {"replay_equal": sum(module.same(a, b) for a, b in zip(reader.events(), events, strict=True)) / len(events)}


def quota(folder: Path, share: float) -> Figures:
    module = beside("quota_machine")
    found = module.run_quota_operations(int(10_000 * share), seed=0) if module else None
    for violation in found["violations"][:20] if found else ():
        say(f"  {violation}")
    return {"quota_operations": found and found.get("operations"), "quota_violations": len(found["violations"]) if found else None}


def checkpoint(folder: Path, share: float) -> Figures:
    module = beside("checkpoint_exam")
    found = module.kill_saves(int(200 * share), seed=0) if module and hasattr(module, "kill_saves") else {}
    return {f"checkpoint_{name}": found.get(name) for name in ("kills", "lost", "mixed")}


def resume(folder: Path, share: float) -> Figures:
    module = beside("checkpoint_exam")
    found = module.resume_exactly(max(1, int(10 * share)), seed=0) if module and hasattr(module, "resume_exactly") else {}
    return {"resume_bit_exact": found.get("exact")}


PARTS: dict[str, Callable[[Path, float], Figures]] = {
    part.__name__: part for part in (recording, reading, opening, kills, operations, power, faults, rot, replay, training, quota, checkpoint, resume)
}
IN_MEMORY = {operations, faults, rot, replay}  # what they show does not depend on a disk, and a disk would only be waited for
ASKED = (
    "kills",
    "unreadable",
    "acknowledged_lost",
    "record_ms_p50",
    "frame_read_ms_p95",
    "open_100k_seconds",
    "train_from_disk_ratio",
    "crash_states",
    "crash_states_unreadable",
    "io_faults",
    "io_faults_lost",
    "wrong_frames_returned",
    "quota_violations",
    "checkpoint_kills",
    "checkpoint_lost",
    "checkpoint_mixed",
    "resume_bit_exact",
)


def ms(seconds: list[float], percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), help="these figures; all unless told")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts, above 0 and at most 1")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure; what is made there is removed")
    chosen = parser.parse_args()
    if not 0 < chosen.share <= 1:
        parser.error(f"--share is {chosen.share}; give a number above 0 and at most 1")
    figures: Figures = dict.fromkeys(ASKED)
    in_memory = importlib.import_module("crashes").scratch()
    with tempfile.TemporaryDirectory(prefix="memory-", dir=chosen.folder) as on_disk, in_memory as at_hand:
        for name in chosen.only or PARTS:
            began, part = time.perf_counter(), PARTS[name]
            found = part(Path(at_hand if part in IN_MEMORY else on_disk).absolute(), chosen.share)
            figures |= found
            say(f"{name}: {json.dumps(found)} in {time.perf_counter() - began:.0f} s")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
