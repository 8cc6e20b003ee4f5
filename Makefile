# What people do with this tree. Needs python3 (3.11 or newer) with venv, make and git; everything else goes into .venv.
#
#   make demo [ONCE=1]  three real nodes on this machine          make check   what CI runs: format, lint, types, contract, tests
#   make test           every test                                make bench   the figures                  make docs   the manual as HTML
#   make soak [SEEDS=n] the simulator with many seeds
#   make openapi        renew docs/openapi.json                                       make man     renew docs/man and docs/json.md
#   make lock           renew the lock files (needs uv, npm)      make clean   forget everything made here

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 3
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Containers often set this. Then every program that a test, a figure or the demo starts compiles the whole tree again.
unexport PYTHONDONTWRITEBYTECODE
LOCK := uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet

.PHONY: demo test check soak format bench docs openapi man lock clean

# -- environments: the development set contains the run-time set ------------------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/run: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements-dev.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ .venv/run

# Clients in JavaScript, for tests; without npm, or where it reaches no packages, these are skipped.
.venv/javascript: tests/javascript/package.json tests/javascript/package-lock.json | $(BIN)/python
	@mkdir -p $@ && cp $^ $@
	if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix $@ || echo "npm reaches no packages"; fi
	@touch $@

# -- what people run --------------------------------------------------------------------------------------------------------------------------------------

demo: .venv/run
	$(BIN)/replicad demo $(if $(ONCE),--once) $(if $(NODES),--nodes $(NODES)) $(FILE)

# Ends with pytest's own summary line. Tests that need a system program say so and are counted as skipped where it is missing; .ci/run has them all.
test: .venv/dev .venv/javascript
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(PYTEST)

# The simulator with many seeds; a seed that fails is printed with the command that replays it. Many requests made from the API's description. A Munki repository under many kills.
soak: .venv/dev
	$(BIN)/python tests/simulation/soak.py $(or $(SEEDS),500)
	REPLICAD_API_EXAMPLES=$(or $(SEEDS),500) $(BIN)/pytest tests/network/test_network_api.py --timeout 3600 -q
	REPLICAD_MUNKI_RELEASES=$$(($(or $(SEEDS),500) / 10 + 1)) $(BIN)/pytest tests/network/test_network_munki.py --timeout 3600 -q

check: .venv/dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pytest tests/project -q
	$(MAKE) --no-print-directory test

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev
	$(BIN)/python -m bench $(or $(BENCH),all)

docs: .venv/dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The API's description, from the table of its routes.
openapi: .venv/dev
	$(BIN)/python -c "import sys; from replicad.server.admin.application import document; sys.stdout.buffer.write(document())" > docs/openapi.json

# Manual pages and the shapes of --json, from the verbs themselves.
man: .venv/dev
	rm -f docs/man/*.1
	$(BIN)/python -c "from pathlib import Path; from replicad.cli.main import manual; [Path('docs', name).write_text(text) for name, text in manual().items()]"

# -- housekeeping -----------------------------------------------------------------------------------------------------------------------------------------

lock:
	cd tests/javascript && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
	$(LOCK) --group dev --output-file requirements-dev.lock
	$(LOCK) --group build --constraint requirements-dev.lock --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build dist build
