"""The workshop works on one thing at a time, says on what, and can always be halted."""

import threading
import time
from contextlib import suppress
from threading import Event

import pytest

from motorbabble.errors import RobotError
from motorbabble.explorer.workshop import Busy, Job, Pace, Workshop

SOON = 10.0  # seconds


class Counts(Job):
    """Counts as long as it may, and says how far it came."""

    def __init__(self, most: int = 10**9, title: str = "counting"):
        self.title, self.most, self.count = title, most, 0
        self.halted, self.is_working = [], Event()

    def run(self, pace: Pace) -> str:
        self.is_working.set()
        while self.count < self.most and pace.wait():
            self.count += 1
            time.sleep(0.001)
        return f"counted to {self.count}"

    def halt(self) -> None:
        self.halted.append(self.count)


class Fails(Counts):
    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def run(self, pace: Pace) -> str:
        raise self.error


def until(condition, seconds: float = SOON) -> None:
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.002)


def ended(workshop: Workshop) -> None:
    until(lambda: not workshop.status.is_busy)


@pytest.fixture
def workshop():
    place = Workshop()
    yield place
    place.close()


def test_of_twenty_who_start_at_once_one_works_and_the_others_are_told(workshop):
    jobs = [Counts(title=f"job {i}") for i in range(20)]
    told, late, together = [], [], threading.Barrier(20)

    def start(job: Counts) -> None:
        together.wait()
        began = time.monotonic()
        try:
            workshop.start(job)
        except Busy as busy:
            told.append(str(busy))
        late.append(time.monotonic() - began)

    threads = [threading.Thread(target=start, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert len(told) == 19 and max(late) < 1
    assert isinstance(workshop.job, Counts) and workshop.job.is_working.wait(SOON)
    assert [job for job in jobs if job.is_working.is_set()] == [workshop.job]
    for sentence in told:
        assert sentence.startswith(f"busy: {workshop.job.title} has been running since ") and workshop.status.clock in sentence


def test_a_workshop_without_its_lock_is_noticed():
    """The broken variant: it looks, and then begins."""

    class Careless(Workshop):
        def start(self, job: Job) -> None:
            if self.status.is_busy:
                raise Busy("busy")
            time.sleep(0.05)  # what a scheduler may do
            self.job, self._ended = job, 0.0
            self._thread = threading.Thread(target=job.run, args=(self._pace,), daemon=True)
            self._thread.start()

    def press(job: Job) -> None:
        with suppress(Busy):
            workshop.start(job)

    workshop, jobs = Careless(), [Counts() for _ in range(20)]
    threads = [threading.Thread(target=press, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: sum(job.is_working.is_set() for job in jobs) > 1)
    workshop.stop()


def test_what_is_paused_stands_and_goes_on_step_by_step(workshop):
    job = Counts()
    workshop.start(job)
    until(lambda: job.count > 3)
    workshop.pause()
    until(lambda: workshop.status.state == "paused")
    time.sleep(0.03)  # the step at work is finished
    here = job.count
    time.sleep(0.05)
    assert job.count == here
    for _ in range(3):
        workshop.step()
    until(lambda: job.count == here + 3)
    time.sleep(0.05)
    assert job.count == here + 3 and workshop.status.state == "paused"
    workshop.resume()
    until(lambda: job.count > here + 6)
    assert workshop.status.state == "running"


def test_a_step_asked_of_what_runs_pauses_it_behind_that_step(workshop):
    job = Counts()
    workshop.start(job)
    until(lambda: job.count > 3)
    workshop.step()
    until(lambda: workshop.status.state == "paused")
    time.sleep(0.05)
    here = job.count
    time.sleep(0.05)
    assert job.count == here


@pytest.mark.parametrize("is_paused", [False, True])
def test_stop_halts_first_and_ends_it_even_where_it_was_paused(workshop, is_paused):
    job = Counts()
    workshop.start(job)
    until(lambda: job.count > 3)
    if is_paused:
        workshop.pause()
        time.sleep(0.02)
    workshop.stop()
    assert job.halted  # already, whatever the thread does
    ended(workshop)
    assert workshop.status.state == "done" and workshop.status.sentence == f"counted to {job.count}"


def test_stop_does_not_wait_for_what_is_at_work(workshop):
    class Ponders(Counts):
        def run(self, pace: Pace) -> str:
            self.is_working.set()
            time.sleep(0.5)
            return "pondered"

    job = Ponders()
    workshop.start(job)
    assert job.is_working.wait(SOON)
    began = time.monotonic()
    workshop.stop()
    assert time.monotonic() - began < 0.3 and job.halted == [0]
    assert workshop.status.state == "stopping"
    ended(workshop)


def test_what_ends_is_halted_and_makes_room(workshop):
    for _ in range(2):
        job = Counts(5)
        workshop.start(job)
        ended(workshop)
        assert job.halted == [5]
        assert (workshop.status.state, workshop.status.sentence) == ("done", "counted to 5")
        assert workshop.status.until >= workshop.status.since > 0


def test_an_error_of_ours_is_its_own_sentence_and_any_other_becomes_one(workshop, caplog):
    workshop.start(first := Fails(RobotError("the robot is gone; look for it")))
    ended(workshop)
    assert (workshop.status.state, workshop.status.sentence) == ("failed", "the robot is gone; look for it")
    assert first.halted and not caplog.records
    workshop.start(second := Fails(ZeroDivisionError("division by zero")))
    ended(workshop)
    assert workshop.status.state == "failed" and second.halted
    assert workshop.status.sentence.startswith("counting failed: ZeroDivisionError('division by zero'); start it again")
    assert "ZeroDivisionError" in caplog.text  # with where it came from
    workshop.start(Counts(1))
    ended(workshop)
    assert workshop.status.state == "done"


def test_nothing_happens_to_an_empty_workshop(workshop):
    assert workshop.status.state == "idle" and not workshop.status.is_busy
    workshop.pause()
    workshop.resume()
    workshop.step()
    workshop.stop()
    job = Counts(3)
    workshop.start(job)  # what was pressed before counts no more
    ended(workshop)
    assert job.count == 3


def test_a_closing_application_waits_until_its_work_has_ended():
    workshop, job = Workshop(), Counts()
    workshop.start(job)
    until(lambda: job.count > 3)
    workshop.close()
    assert workshop.status.state == "done" and job.halted
