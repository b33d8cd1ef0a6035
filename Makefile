# make run    start the gateway on embedded defaults and print the restic commands to try
# make test   install what the tests need and run them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGES := $(wildcard packages/*)

.PHONY: run setup setup-dev peers test soak lint bench lock clean

run: setup
	@exec $(BIN)/backupgw serve

setup: $(VENV)/.setup
setup-dev: $(VENV)/.setup-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("backupgw needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }

$(VENV)/.setup: requirements.lock $(PACKAGES:%=%/pyproject.toml) | $(VENV)/bin/python
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

$(VENV)/.setup-dev: requirements-dev.lock $(VENV)/.setup
	$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

peers: setup-dev
	$(BIN)/python -m tests.servers.install --uml

test: setup-dev peers
	$(BIN)/python -m pytest

soak: setup-dev peers
	BACKUPGW_SOAK=1 $(BIN)/python -m pytest --timeout 7200

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy packages/*/src tests benchmarks

bench: setup-dev peers
	$(BIN)/python -m benchmarks.restserver

lock: setup-dev
	$(BIN)/python -m tests.lock

clean:
	rm -rf $(VENV) .peers
