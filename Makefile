# Each target is enough on a fresh clone: what it needs is installed into .venv first, once.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help setup demo test check bench soak mutate starter wheel wheel-check clean

help:
	@echo "make demo         a simulated robot learns what its movements do, in about a minute"
	@echo "make test         the tests"
	@echo "make check        format, lint, types, tests: what every change must pass"
	@echo "make bench        the measurements of speed and learning, one JSON line each"
	@echo "make soak         the tests that take minutes"
	@echo "make mutate       how many faults put into recordings and checkpoints the tests notice; half an hour; WHAT=jetbot: into what stops a robot"
	@echo "make starter      lives and learns anew what the explorer shows on a first visit; some minutes"
	@echo "make wheel        dist/*.whl;  make wheel-check installs it alone and runs it"
	@echo "make setup        only install;  make clean removes all that was made"

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(PYTHON) does not run or is older than Python 3.11; name a newer one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into .venv, once; torch is large, so the first time takes minutes ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)
	@$(BIN)/babble demo

# The pages are tested in a real browser. One that is there is taken; else it is asked for, once; without one those tests are skipped, and say so.
CHROMIUM := chromium chromium-browser google-chrome google-chrome-stable
.venv/.browser: | $(READY)
	@for name in $(CHROMIUM); do command -v $$name && break; done > $@; \
	if ! test -s $@ && test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
	  { timeout 300 apt-get -qq update; timeout 600 apt-get -qq install -y --no-install-recommends chromium; } > /dev/null 2>&1; fi; \
	for name in $(CHROMIUM); do command -v $$name && break; done > $@; \
	test -s $@ || timeout 600 $(BIN)/playwright install chromium > /dev/null 2>&1; true

test: $(READY) .venv/.browser
	@$(BIN)/python -m pytest -W error -n auto

check: $(READY)
	@$(BIN)/ruff format --quiet --check . || { echo "Some files are not formatted; run $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyright
	@$(MAKE) --no-print-directory test

bench: $(READY)
	@$(BIN)/python benchmarks/speed.py
	@$(BIN)/python benchmarks/growth.py
	@$(BIN)/python benchmarks/where_time_goes.py
	@$(BIN)/python benchmarks/compiled.py
	@$(BIN)/python benchmarks/spread.py
	@$(BIN)/python benchmarks/first_life.py --seed 0 --world dot
	@$(BIN)/python benchmarks/first_life.py --seed 0 --world bodies
	@$(BIN)/python benchmarks/canvas.py --seed 0
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/stop.py
	@$(BIN)/python benchmarks/explorer.py
	@$(BIN)/python benchmarks/fleet.py
	@$(BIN)/python benchmarks/levels.py --seed 0
	@$(BIN)/python benchmarks/goals.py --seed 0
	@$(BIN)/python benchmarks/curiosity.py --seeds 5
	@$(BIN)/python benchmarks/worlds.py --minutes 10

soak: $(READY)
	@$(BIN)/python -m pytest -W error -m soak

# Faults are drawn, the same ones each time; make mutate MOST=100000 tries all of them, for hours.
MOST := 1200
WHAT := memory
mutate: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutation.py --what $(WHAT) --most $(MOST)

# What the explorer shows on a first visit, lived and learned anew; some minutes.
starter: $(READY)
	@$(BIN)/python benchmarks/starter.py

wheel: $(READY)
	@rm -rf build dist
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

# The wheel alone in an environment of its own, which borrows the dependencies of .venv but not our source tree.
wheel-check: wheel
	@set -e; here=$$(pwd); empty=$$(mktemp -d); trap 'rm -rf "$$empty"' EXIT; \
	$(BIN)/python -m venv --without-pip "$$empty/env"; \
	$(PIP) --python "$$empty/env/bin/python" install --no-deps --no-index dist/*.whl; \
	site=$$("$$empty/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	"$$here/$(BIN)/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$site/borrowed.pth"; \
	mkdir "$$empty/elsewhere"; cd "$$empty/elsewhere"; \
	"$$empty/env/bin/python" -c 'import motorbabble, sys; assert motorbabble.__file__.startswith(sys.prefix), motorbabble.__file__'; \
	"$$empty/env/bin/babble" --help > /dev/null; \
	"$$empty/env/bin/babble" recipes > /dev/null; \
	"$$empty/env/bin/babble" demo --steps 3 --exam-steps 6 > /dev/null; \
	test -s saved/cards/toroidal_dot/dot-demo-seed0/card.html; \
	"$$empty/env/bin/python" -c 'from motorbabble.explorer.page import CSS, HEAD; from motorbabble.explorer.places import Places; \
	place = Places("x", "y"); [(name, _)] = place.sessions(); place.mind(*place.checkpoints(), place.session(name))'; \
	echo "The wheel works alone."

clean:
	rm -rf .venv build dist mutants *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
