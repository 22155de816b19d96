"""A learning process keeps the memory of one update for the next; what asks for it is tried in processes of its own, since it is for good there."""

import os
import platform
import subprocess
import sys

import pytest

from motorbabble.errors import ConfigurationError
from motorbabble.explorer.workshop import Job, Workshop
from motorbabble.learning.heap import OTHERS
from motorbabble.learning.learner import Learner
from motorbabble.world_models.latent import LatentWorldModel

FAULTS = """
import resource, sys, numpy
from motorbabble.learning.heap import keep_memory
print(keep_memory() if sys.argv[1] == "kept" else "not asked", keep_memory() if sys.argv[1] == "kept" else "")
def work():
    for _ in range(10):  # within the first some, small pieces still settle between the large ones
        numpy.ones(6_000_000)  # 48 MB, more than the C library keeps by itself
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GIVEN = """
import resource, numpy
from motorbabble.learning.heap import give_back, keep_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
keep_memory()
held = [numpy.ones(6_000_000) for _ in range(5)]  # 48 MB each
del held
after = resident()
give_back()
print(after - resident())
"""
ASKED = """
from motorbabble.learning.heap import keep_memory
print(keep_memory())
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc, whose memory is meant")


def told(program: str, *arguments: str, **settings: str) -> list[str]:
    plain = {name: value for name, value in os.environ.items() if name not in OTHERS}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=plain | settings, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


@glibc
def test_memory_once_used_is_not_asked_of_the_system_again():
    anew = int(told(FAULTS, "not")[-1])
    *answers, faults = told(FAULTS, "kept")
    assert anew > 1_000 and answers == ["True", "True"] and int(faults) < anew / 10


@glibc
def test_what_is_free_is_given_back_when_it_is_asked_for():
    assert int(told(GIVEN)[0]) > 200


def test_whoever_has_learned_gives_back(monkeypatch):
    """A learner that is closed, and whatever ends in the explorer's workshop, also by an error."""
    given = []
    monkeypatch.setattr("motorbabble.learning.learner.give_back", lambda: given.append("learner"))
    monkeypatch.setattr("motorbabble.explorer.workshop.give_back", lambda: given.append("workshop"))
    Learner(LatentWorldModel((32, 32), 1)).close()

    class Failing(Job):
        title = "a job that fails"

        def run(self, pace):
            raise ConfigurationError("it cannot be")

    workshop = Workshop()
    workshop.start(Failing())
    workshop.close()
    assert given == ["learner", "workshop"] and workshop.status.state == "failed"


@glibc
@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_who_chose_otherwise_is_left_alone(name):
    value = "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert told(ASKED, **{name: value}) == ["False"]


def test_every_learner_asks_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr("motorbabble.learning.learner.keep_memory", lambda: asked.append(True))
    Learner(LatentWorldModel((32, 32), 1))
    assert asked == [True]
