"""A disk that fails, fills up, goes away or is slow, and Ctrl+C: the robot stops, one error says why, and nothing earlier is lost."""

import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from disks import ERRORS, SHORT, FaultDisk, InterruptDisk, SlowDisk
from durability import (
    NAME,
    SPACE,
    Findings,
    Stepped,
    Stoppable,
    assert_clean,
    assert_notices,
    event_of,
    examined,
    fail_each_operation,
    same,
    short_shards,
)
from kills import killed

from motorbabble.errors import RecordingError
from motorbabble.experience import Step
from motorbabble.life import live
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter
from motorbabble.selectors import RandomSelector

# Failing operations


class Swallows(Stepped):
    """Broken: goes on as if nothing had been."""

    def record(self, event, **said):
        try:
            return super().record(event, **said)
        except RecordingError:
            return self.moments

    def close(self, last=None):
        try:
            super().close(last)
        except RecordingError:
            self._let_go()


class TriesAgain(Stepped):
    """Broken: writes behind what is torn."""

    def record(self, event, **said):
        try:
            return super().record(event, **said)
        except RecordingError:
            self._failure, self._midway = None, False
            return super().record(event, **said)


class NeverStops(Stepped):
    """Broken: the robot goes on."""

    def _fail(self, error):
        self._failure = self._failure or error
        return self._failure


class StopsAgain(Stepped):
    """Broken: tells the robot at every turn."""

    def _fail(self, error):
        self._failure = self._failure or error
        assert self._on_failure
        self._on_failure()
        return self._failure


class SaysLittle(Stepped):
    """Broken: the error does not say where, why and what to do."""

    def _fail(self, error):
        return super()._fail(RecordingError("something went wrong"))


class SaysItLate(Stepped):
    """Broken: the robot goes on for a while, then the error comes."""

    def _fail(self, error):
        time.sleep(1.1)
        return super()._fail(error)


def test_a_disk_that_fails_once_at_any_operation(folder):
    found = fail_each_operation(folder, errors=["EIO", SHORT], for_good=[False])
    assert_clean(found)
    assert found.trials > 200


@pytest.mark.parametrize("error", sorted(set(ERRORS) - {"EIO"}))
def test_a_disk_that_fails_for_good_at_any_operation(folder, error):
    assert_clean(fail_each_operation(folder, errors=[error], for_good=[True], reopening=[error == "ENOSPC"]))


@pytest.mark.parametrize(
    "broken, blamed", [(Swallows, "swallowed"), (TriesAgain, "unreadable"), (NeverStops, "stops"), (StopsAgain, "stops"), (SaysLittle, "unclear")]
)
def test_hiding_a_failure_is_noticed(folder, broken, blamed):
    assert_notices(blamed, fail_each_operation, folder, errors=["ENOSPC"], for_good=[False], reopening=[False], writer=broken)


@pytest.mark.soak
def test_every_error_at_every_operation(folder):
    assert_clean(fail_each_operation(folder))


class Watched(Stoppable):
    """Each action takes a while, and ends early when stopped."""

    def __init__(self):
        super().__init__()
        self.stopped_at = 0.0
        self.acting = False

    def execute_action(self, action):
        done = super().execute_action(action)
        self.acting = True
        self._stopped.wait(0.4)
        self.acting = False
        return done

    def stop(self):
        super().stop()
        self.stopped_at = self.stopped_at or time.monotonic()


class FailsWhileActing(FaultDisk):
    """The first operation in the middle of an action, but for the first one, fails: it is a sync, since nothing else happens then."""

    def __init__(self, robot: Watched):
        super().__init__(0, "EIO")
        self.robot = robot

    def met(self, op):
        if not self.n and self.robot.acting and self.robot.steps > 1:
            self.n = self.count
        super().met(op)


def fails_mid_action(folder: Path, writer: type[RecordingWriter]) -> tuple[Watched, FaultDisk, float]:
    """A sync fails in its thread while the robot acts; answers when the error came."""
    robot = Watched()
    disk = FailsWhileActing(robot)
    recording = writer.create(folder, "counting", SPACE, name=NAME, disk=disk, sync_seconds=0.15, on_failure=robot.stop)
    with pytest.raises(RecordingError, match="Input/output error") as raised, recording:
        for event in live(robot, RandomSelector(0)):
            assert isinstance(event, Step)
            recording.record(event)
    assert raised.value is recording.failure
    return robot, disk, time.monotonic()


def test_a_sync_that_fails_stops_the_robot_in_the_middle_of_its_action(folder):
    robot, disk, raised_at = fails_mid_action(folder, RecordingWriter)
    assert robot.stops == 1
    assert disk.failed and disk.failed.what.startswith("sync"), "nothing but a sync happens while the robot acts"
    assert disk.failed_at and disk.failed_at <= robot.stopped_at < disk.failed_at + 0.2 and raised_at < disk.failed_at + 1.0
    assert [int(event.observation.state["count"][0] > 0) for event in RecordingReader(folder / NAME).events()] == [0] + [1] * (robot.steps - 2)


class NeverStopsInTime(RecordingWriter):
    """Broken: the thread keeps the error for the next record."""

    def _fail(self, error):
        self._failure = self._failure or error
        return self._failure


def test_a_thread_that_keeps_its_error_is_noticed(folder):
    assert fails_mid_action(folder, NeverStopsInTime)[0].stops == 0


class Races(Stepped):
    """Broken: looks, then acts, without a lock."""

    def _fail(self, error):
        if self._failure is None:
            self._failure = error
            assert self._on_failure
            self._on_failure()
        return self._failure


def told_before_raised(folder: Path, writer: type[RecordingWriter]) -> bool:
    """Two threads meet the failure at once. Whether nobody heard of it before the robot had stopped, and that once."""
    stops: list[str] = []

    def slow_stop() -> None:
        stops.append("begun")
        time.sleep(0.2)
        stops.append("done")

    recording = writer.create(folder, "counting", SPACE, disk=FaultDisk(0, "EIO"), on_failure=slow_stop)
    recording.record(event_of(0))
    assert isinstance(recording._disk, FaultDisk)
    recording._disk.n = recording._disk.count + 1
    thread = threading.Thread(target=recording._turn)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(RecordingError):
        recording.record(event_of(1))
    in_time = stops == ["begun", "done"]
    thread.join()
    with pytest.raises(RecordingError):
        recording.close()
    return in_time and stops == ["begun", "done"]


def test_the_robot_has_stopped_before_anybody_hears_of_the_failure(folder):
    assert told_before_raised(folder, Stepped)
    assert not told_before_raised(folder, Races)


def test_a_fault_in_tidying_is_a_failure_too(folder):
    """Whatever ends the thread that syncs has to be heard of: nobody else would sync."""
    recording = RecordingWriter.create(folder, "counting", SPACE, tidy=lambda: 1 // 0, sync_seconds=0.01)
    recording._thread.join(5)
    with pytest.raises(RecordingError, match="ZeroDivisionError"):
        recording.record(event_of(0))
    with pytest.raises(RecordingError):
        recording.close()


def test_a_full_disk_of_the_operating_system(tmp_path):
    """No fake: the kernel itself takes a part of the bytes, then none."""

    def work(say):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        robot = Stoppable()
        recording = RecordingWriter.create(tmp_path, "counting", SPACE, name=NAME, on_failure=robot.stop)
        with pytest.raises(RecordingError, match="File too large"):
            for number in range(500):
                say(recording.record(event_of(number)))
        assert robot.stops == 1

    found, acknowledged = Findings(), killed(work).acknowledged
    assert 10 < len(acknowledged) < 500
    examined(tmp_path / NAME, acknowledged, found)
    RecordingWriter.reopen(tmp_path / NAME).close()
    examined(tmp_path / NAME, acknowledged, found)
    assert_clean(found)


def test_a_session_that_is_deleted_while_it_is_recorded(folder):
    robot = Stoppable()
    recording = Stepped.create(folder, "counting", SPACE, name=NAME, on_failure=robot.stop)
    recording.record(event_of(0))
    shutil.rmtree(folder / NAME)
    recording._turn()
    assert robot.stops == 1
    with pytest.raises(RecordingError, match=NAME):
        recording.close()


@pytest.mark.parametrize("hidden", ["events_shard_001.jsonl", "frames_shard_001.pack"])
def test_what_cannot_be_opened_now_is_not_cut_away(folder, monkeypatch, hidden):
    """Too many open files, a card that answers with an error: no reason to throw anything away."""
    with short_shards(5), Stepped.create(folder, "counting", SPACE, name=NAME) as recording:
        for number in range(9):
            recording.record(event_of(number))
    before = {path.name: path.read_bytes() for path in (folder / NAME).iterdir()}
    opens = os.open

    def refuses(path, flags, *rest, **more):
        if Path(path).name == hidden and not flags & os.O_WRONLY:
            raise OSError(24, "Too many open files", str(path))
        return opens(path, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuses)
        assert len(list(RecordingReader(folder / NAME).events())) == 5, "the rest is readable all the same"
        with pytest.raises(RecordingError, match="Too many open files"):
            RecordingWriter.reopen(folder / NAME)
    assert {path.name: path.read_bytes() for path in (folder / NAME).iterdir()} == before
    found = Findings()
    examined(folder / NAME, range(9), found)
    assert_clean(found)


# Ctrl+C


class ForgetsInterruptions(Stepped):
    """Broken: after Ctrl+C it writes on as if nothing had been."""

    def _after_interruption(self):
        self._midway = False


def interrupt_each_operation(folder: Path, writer: type[RecordingWriter], found: Findings | None = None) -> Findings:
    """Ctrl+C before and after operation n; the caller catches it and goes on recording. What was interrupted may be there or not."""
    found, n, calm = found or Findings(), 0, False
    while not calm:
        n, calm = n + 1, True
        for after in (False, True):
            disk, acknowledged = InterruptDisk(0, after), {}
            with short_shards(4), writer.create(folder, "counting", SPACE, name=f"{NAME}{n}{after}", disk=disk) as recording:
                disk.n = disk.count + n
                for event in map(event_of, range(10)):
                    try:
                        acknowledged[recording.record(event)] = event
                    except KeyboardInterrupt:
                        calm = False
                    except RecordingError as error:
                        found.blame("failed", f"interrupted at operation {n}: {error}")
                        break
                disk.n = 0
            reader = RecordingReader(folder / f"{NAME}{n}{after}")
            for number, event in acknowledged.items():
                try:
                    if not same(reader.event(number), event):
                        found.blame("wrong", f"interrupted at operation {n}: moment {number} is another one")
                except RecordingError as error:
                    found.blame("unreadable", f"interrupted at operation {n}: {error}")
            if reader.damaged() or not len(acknowledged) <= len(reader) <= len(acknowledged) + 1:
                found.blame("wrong", f"interrupted at operation {n}: {len(reader)} moments, damaged {reader.damaged()}")
            found.trials += 1
    return found


def test_recording_goes_on_after_ctrl_c(folder):
    assert_clean(interrupt_each_operation(folder, Stepped))


def test_forgetting_an_interruption_is_noticed(folder):
    assert_notices("unreadable", interrupt_each_operation, folder, ForgetsInterruptions)


# Slow disks


class SyncsItself(Stepped):
    """Broken: the robot waits for the disk."""

    def record(self, event, **said):
        number = super().record(event, **said)
        self._sync()
        return number


def slowest_record(folder: Path, writer: type[RecordingWriter], count: int) -> float:
    disk, slowest = SlowDisk(0.0), 0.0
    with writer.create(folder, "counting", SPACE, disk=disk, sync_seconds=0.05) as recording:
        disk.seconds = 0.3
        for number in range(count):
            began = time.perf_counter()
            recording.record(event_of(number % 1000))
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(0.005)
        assert disk.syncs > 2
        disk.seconds = 0.0
    return slowest


def test_a_slow_disk_never_keeps_the_robot_waiting(folder):
    assert slowest_record(folder, RecordingWriter, 150) < 0.2
    assert slowest_record(folder, SyncsItself, 2) > 0.3


def test_it_syncs_no_more_often_than_it_says(folder):
    """A sync after every moment would wear a card out."""
    disk = SlowDisk(0.0)
    with RecordingWriter.create(folder, "counting", SPACE, disk=disk, sync_seconds=60.0) as recording:
        recording.record(event_of(0))
        time.sleep(0.1)
        before = disk.syncs
        for number in range(1, 50):
            recording.record(event_of(number))
            time.sleep(0.002)
        assert disk.syncs == before
