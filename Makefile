# make demo   a real benchmark run on any machine, then: make ui
# make test   the quick tests; make test-all the others
# make help   the rest

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PYTHONPATH := src
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db
export MLFLOW_EXPERIMENT_NAME ?= whisperbench
# Modules are compiled once, not anew in each of hundreds of processes, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo scale ui test test-all test-nightly check bench peers lock generate server user clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install the CPU environment and run the demo benchmark (no GPU, no hub needed)"
	@echo "make scale   install Ray beside it, for more than one engine"
	@echo "make ui      browse the runs: prints their address; MLFLOW_PORT=5001 for another port than 5000"
	@echo "make test    install the development tools, and run tests/unit and tests/smoke"
	@echo "make test-all run tests/integration and tests/engine"
	@echo "make test-nightly run the tests that take long, or start nodes of Ray"
	@echo "make check   ruff and mypy"
	@echo "make bench   measure the front end alone; on a GPU, with the engine: see the README"
	@echo "make peers   install the engines to compare with: faster-whisper, openai-whisper"
	@echo "make generate   write MLproject and docs/options.md from the option records"
	@echo "make server  the team's tracking server (docs/team-server/README.md); make user LOGIN=ann adds a teammate"
	@echo "make lock    resolve the pins of requirements/ and conda.yaml; LOCK_FLAGS=--upgrade takes the newest"

demo: $(VENV)/cpu.installed
	@$(BIN)/whisperbench benchmark --model demo --corpus demo

ui: $(VENV)/cpu.installed
	@$(BIN)/whisperbench ui

# Temporary files on tmpfs where there is one: SQLite waits for disks.  A worker per core, at most four: those of engines
# begin first and take 4 GB of memory each (tests/conftest.py).  PYTEST_FLAGS="-n 0 -x" for what pytest knows.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores < 4 ? cores : 4)))
test test-all test-nightly: export PYTEST_DEBUG_TEMPROOT ?= $(if $(wildcard /dev/shm),/dev/shm,)
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: check $(VENV)/dev.installed
	$(PYTEST) tests/unit tests/smoke $(PYTEST_FLAGS)

test-all: $(VENV)/server.installed $(VENV)/dev.installed
	$(PYTEST) tests/integration tests/engine $(PYTEST_FLAGS)

# Nodes of Ray, several on this host; on a busy one they miss the 30 s that Ray gives each.
test-nightly: $(VENV)/dev.installed
	$(BIN)/python -m pytest tests/nightly $(PYTEST_FLAGS)

check: $(VENV)/dev.installed
	ruff check .
	ruff format --check .
	mypy

# On a GPU: make bench BENCH_PYTHON="$(which python)", inside an environment with vLLM's CUDA build (conda.yaml).
# BENCH_FLAGS="--repeats 5 --resume true" for what `python -m benchmarks.bench --help` says.
BENCH_PYTHON ?= $(BIN)/python
bench: $(if $(filter $(BIN)/python,$(BENCH_PYTHON)),$(VENV)/cpu.installed)
	$(BENCH_PYTHON) -m benchmarks.bench $(BENCH_FLAGS)

# What each step installs, and what it says where something is missing: requirements/install.py
INSTALL = command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON): install Python 3.11 to 3.13, or name one: make PYTHON=python3.12" >&2; exit 1; }; \
  $(PYTHON) requirements/install.py

$(VENV)/cpu.installed: requirements/install.py requirements/cpu.txt requirements/torch-cuda.txt
	@$(INSTALL) cpu
	@touch $@

# Ray, for more than one engine: make scale
scale: $(VENV)/scale.installed
$(VENV)/scale.installed: $(VENV)/cpu.installed requirements/scale.txt
	@$(INSTALL) scale
	@touch $@

$(VENV)/dev.installed: $(VENV)/scale.installed requirements/dev.txt
	@$(INSTALL) dev
	@touch $@

peers: $(VENV)/peers.installed

$(VENV)/peers.installed: $(VENV)/cpu.installed requirements/peers.txt
	@$(INSTALL) peers
	@touch $@

lock: $(VENV)/dev.installed
	$(BIN)/python requirements/lock.py $(LOCK_FLAGS)

generate: $(VENV)/cpu.installed
	$(BIN)/python -m whisperbench.cli.generate

# The team's server: make server STORE=postgresql://… ALLOWED_HOSTS=mlflow.example.org (all settings: docs/team-server/serve)
server: $(VENV)/server.installed
	docs/team-server/serve

user: $(VENV)/server.installed
	python docs/team-server/adduser $(LOGIN)

$(VENV)/server.installed: $(VENV)/cpu.installed requirements/server.txt
	@$(INSTALL) server
	@touch $@

clean:
	rm -rf $(VENV) results mlflow.db mlruns mlartifacts
