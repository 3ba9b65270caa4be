# Two commands: `make demo` to see it, `make test` to trust it. Both set up their own .venv first.
# Needs Python 3.11 or newer, git and make. Another interpreter: make PYTHON=python3.12 …

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11

.PHONY: demo setup dev test quick unit laws slow lint city city-long city-update city-unseen bench fuzz fuzz-short faults-long \
	storm-long kill-long lock clean
.DELETE_ON_ERROR:

demo: setup  # ARGS="--headless --for 90 --report FILE"
	@$(BIN)/streetwarden demo $(ARGS)

setup: .venv/demo.stamp

.venv/demo.stamp: requirements/build.txt requirements/demo.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer, please: make PYTHON=python3.11")'
	@echo "Setting up .venv: once, about a minute"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/demo.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/demo.stamp
	@echo "Adding what the tests need"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

# The city is all computing, so it runs beside the other checks that are. What watches a clock runs after them; only the
# fuzzing, which takes no more than what is left of the processor, goes on beside it.
test: .venv/dev.stamp  # ARGS go to pytest, and leave out the city
	@.ci/servers
ifeq ($(ARGS),)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync unit city laws
	@$(MAKE) --no-print-directory --jobs 2 --output-sync slow fuzz-short
else
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(ARGS)
endif

dev: .venv/dev.stamp  # what the tests need, for running one of them by hand

quick: unit laws

unit: lint
	@$(BIN)/python -m pytest tests/unit

laws: .venv/dev.stamp  # what must hold of any input, any profile, any driver and store
	@$(BIN)/python -m pytest tests/property tests/contract tests/golden

slow: .venv/dev.stamp
	@$(BIN)/python -m pytest tests/integration tests/acceptance

fuzz-short: .venv/dev.stamp
	@STREETWARDEN_FUZZ_S=20 nice -n 19 $(BIN)/python -m pytest tests/fuzz

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The labelled city against the bounds in tests/gate/bounds.json; reports into build/city. ARGS="--only storm"
city: setup
	@$(BIN)/streetwarden sim gate $(ARGS)

city-long: setup
	@$(BIN)/streetwarden sim gate --long $(ARGS)

city-update: export BECAUSE := $(BECAUSE)
city-update: setup  # BECAUSE="why the bounds change"
	@$(BIN)/streetwarden sim city-update --because "$$BECAUSE" $(ARGS)

city-unseen: setup  # twenty fresh seeds; ARGS="--base 1" for the same ones again
	@$(BIN)/streetwarden sim city-unseen $(ARGS)

bench: .venv/dev.stamp
	@set -e; for each in benchmarks/[a-z]*.py; do \
	  echo "== $$each"; $(BIN)/python -m benchmarks.$$(basename $$each .py) $(ARGS); done

# The long forms of what CI runs for a while: ten million inputs a decoder, ten minutes of every fault of a bus.
fuzz: .venv/dev.stamp  # ARGS="--only chirpstack --seed 2"
	@$(BIN)/python -m tests.fuzz $(ARGS)

faults-long: .venv/dev.stamp
	@STREETWARDEN_FAULT_SLOTS=600 $(BIN)/python -m pytest tests/integration/test_faults.py --timeout 7200 $(ARGS)

# The long forms of what CI runs over a seed or two.
storm-long kill-long: %-long: .venv/dev.stamp
	@STREETWARDEN_SEEDS=1-20 $(BIN)/python -m pytest tests/acceptance -k $* --timeout 7200 $(ARGS)

lock:  # pins every requirement with its hashes; needs uv
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | $(LOCK) --output-file requirements/build.txt -
	$(LOCK) --extra dev --output-file requirements/dev.txt pyproject.toml
	$(LOCK) --extra demo --constraints requirements/dev.txt --output-file requirements/demo.txt pyproject.toml

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
