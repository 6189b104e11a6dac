# Two commands do everything on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
# Python 3.11 or newer and make are all that is needed beforehand; pip fetches the rest into .venv.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DATA   ?=
# Test processes: one a core and one more, since many tests wait; four at most (each imports torch). TESTS=0 for one after the other.
TESTS  ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')

# With both cores busy, spinning OpenMP threads halve the speed of two processes; passive waiting costs nothing when quiet.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test browser check fuzz faults serve lock catalogue clean
help:
	@echo "make demo             one real job, from photos to a downloaded .pt   (DATA=photos.zip for your own photos)"
	@echo "make test             the tests, on real SQLite, PostgreSQL and Valkey servers"
	@echo "make serve            the service for use, at http://127.0.0.1:8000   (PORT=…, DATA_DIR=…)"
	@echo "make check            format, lint, types, import contracts"
	@echo "make fuzz             the long tests: 200,000 mutated checkpoints, images, archives, the hostile corpus and the schema over HTTP (KIND=…)"
	@echo "make faults           kill, freeze, cut and fill up whatever there is while jobs run: an hour or more (NAME=kills ROUNDS=…)"
	@echo "make lock             resolve requirements.lock anew"
	@echo "make catalogue        write app/planning/architectures.json anew"

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fewbytes needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=python3.12, say.")'
	@test -x $(BIN)/python || { echo "==> Creating the virtual environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "==> Installing the locked packages (PyTorch is the large one: expect 2 to 6 GB on Linux)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[worker,embedded,demo,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/python -m examples.demo $(if $(DATA),--photos "$(DATA)")

test: $(READY) browser
	@echo "==> Running the tests"
	@$(BIN)/python -m pytest --numprocesses $(TESTS) --maxprocesses 4 --dist loadfile

# The tests of the page need a Chromium. Debian has one; where we may not install it they say so and are skipped (in CI they fail).
browser:
	@for name in "$$FEWBYTES_CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v "$$name" >/dev/null 2>&1 && exit 0; done; \
	[ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ] || exit 0; \
	echo "==> Installing Chromium for the tests of the page"; \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null \
	|| echo "It could not be installed."

check: $(READY)
	@echo "==> Checking format, lint, types, import contracts, catalogue"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m worker.catalogue --check

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz $(KIND)

faults: $(READY)
	@$(BIN)/python -m tests.faults $(NAME) $(if $(ROUNDS),--rounds $(ROUNDS))

serve: $(READY)
	@$(BIN)/fewbytes up $(if $(PORT),--port $(PORT)) $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

lock: $(READY)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --no-emit-package fewbytes --no-annotate --no-header --upgrade pyproject.toml -o requirements.lock

catalogue: $(READY)
	@$(BIN)/python -m worker.catalogue

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
