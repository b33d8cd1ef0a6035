# make run    start the gateway on embedded defaults and print the restic commands to try
# make test   install what the tests need and run them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGES := $(wildcard packages/*)
PYTEST := $(BIN)/python -m pytest --durations 20
# One more than there are cores: some tests wait for a process, a lease or a disk.
WORKERS ?= $(shell expr $$(nproc) + 1)

# Where it is set, each of the thousands of processes that the tests start compiles all anew.
unexport PYTHONDONTWRITEBYTECODE

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
	$(PIP) install --require-hashes --no-deps --no-compile -r requirements-dev.lock
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >$(VENV)/compiled 2>&1 || true  # on all cores
	@touch $@

peers: | $(VENV)/bin/python
	$(BIN)/python -m tests.servers.install --uml

# Both parts run, whatever becomes of the first: one run tells of everything that is wrong.
test: setup-dev peers
	@failed=0; \
	$(PYTEST) -m alone -n 2 --dist loadfile $$(grep -rl --include='*.py' 'mark\.alone' tests) || failed=1; \
	$(PYTEST) -m "not alone" -n $(WORKERS) --dist loadfile || failed=1; \
	exit $$failed

soak: setup-dev peers
	$(BIN)/python -m tests.servers.install --uml --soak
	BACKUPGW_SOAK=1 $(PYTEST) --timeout 7200

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
