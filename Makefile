# Everything sets itself up: the virtual environment from pinned constraints, RabbitMQ if there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCHEDULES ?= 1000
SEED ?= 0
JOBS ?= 2

.PHONY: help demo test faults check setup rabbitmq browser prometheus clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(BIN)/.installed  ## Make the virtual environment

# A venv without ensurepip (Debian without python3-venv) is completed by the Debian package when we are root.
$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedqueue needs Python 3.11 or later."; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv \
	  && $(PYTHON) -m venv $(VENV); } || { echo "python3 -m venv does not work; install the package python3-venv."; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[demo,dev]'
	@touch $@

rabbitmq: setup  ## Get RabbitMQ, if there is none
	@$(BIN)/fedqueue broker install

browser: setup  ## Get Chromium for the tests, if there is none and we are root
	@$(BIN)/python -m tests.browser

prometheus: setup  ## Get Prometheus for the tests, if there is none
	@$(BIN)/python -m tests.prometheus

demo: rabbitmq  ## Four real clinics, one model, in a minute
	$(BIN)/fedqueue demo $(ARGS)

check: setup  ## Lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: rabbitmq browser prometheus check  ## Lint, types and all tests
	$(BIN)/python -m pytest $(ARGS)

faults: setup  ## Random faults in SCHEDULES=1000 federations from SEED=0 in JOBS=2 processes; MUTANT=name of a broken design
	@$(BIN)/python -m tests.federation --schedules $(SCHEDULES) --seed $(SEED) --jobs $(JOBS) $(if $(MUTANT),--mutant $(MUTANT))

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
