# Two commands are enough: `make run` (everything, on a simulated market) and `make test`.
# Each makes its own virtual environment.  Python 3.11 or 3.12; choose with PYTHON=python3.12.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin

# What the panel is built from: a change of it builds it again.
PANEL := $(shell find api/panel -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

.PHONY: run test lint bench simulate chaos failovers format clean panel panel-types panel-test

run: $(VENV)/.run
	$(BIN)/quarterdeck demo

test: $(VENV)/.dev panel-test
	$(BIN)/python -m pytest -m "not cluster and not browser" -n 4 --dist loadfile
	$(BIN)/python -m pytest -m cluster -n 2 --dist loadfile
	$(BIN)/python -m pytest -m browser tests/browser

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The web panel.  Node.js comes from a wheel: none is needed on the machine.
NPM := cd api/panel && PATH="$(abspath $(BIN)):$$PATH" npm

api/panel/node_modules/.quarterdeck: api/panel/package-lock.json $(VENV)/.dev
	$(NPM) ci --ignore-scripts --no-audit --no-fund
	touch $@

# Its own checks: eslint, types, unit tests, the size of its first page.
panel-test: api/panel/node_modules/.quarterdeck
	$(NPM) run lint
	$(NPM) run typecheck
	$(NPM) test
	$(NPM) run size

# Its types, from the API's OpenAPI document.
panel-types: api/panel/node_modules/.quarterdeck
	$(BIN)/python -m api.print_openapi > api/panel/openapi.json
	$(NPM) run types
	rm api/panel/openapi.json

# While working on it: pages with hot reload, which ask the deck at QUARTERDECK_API (else http://127.0.0.1:8470).
panel: api/panel/node_modules/.quarterdeck
	$(NPM) run dev

bench: $(VENV)/.dev
	$(BIN)/python -m bench

# The two proof suites.  simulate: N seeds from SEED on in a simulated world, on all cores.  chaos: N episodes of
# faults on a real deck.
SEED ?= 1
simulate: $(VENV)/.dev
	$(BIN)/python -m tests.simulation.run $(or $(N),5000) --seed $(SEED)

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.run --episodes $(or $(N),30) --seed $(SEED)

# N algos lose their machine and go on elsewhere.
failovers: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.failovers --count $(or $(N),20) --seed $(SEED)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "Quarterdeck needs Python 3.11 or 3.12; none was found on PATH. Install one, or say PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: $(VENV)/.python pyproject.toml hatch_build.py $(PANEL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml hatch_build.py $(PANEL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ $(VENV)/.run

clean:
	rm -rf api/panel/dist api/panel/node_modules $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
