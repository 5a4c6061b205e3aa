# make demo   a real benchmark run on any machine, then: make ui
# make test   the quick tests; make test-all the others
# make help   every target

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PYTHONPATH := src
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db
# Compile modules once, also where the environment forbids it: the tests start many processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo ui install test test-all test-nightly lint bench generate lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          install the CPU environment and run the demo benchmark (needs no GPU and no hub)"
	@echo "make ui            browse the runs; MLFLOW_PORT=5001 for another port than 5000"
	@echo 'make install       install the CPU environment, and with it EXTRAS="ray other-engines dev server", all or some'
	@echo "make test          run tests/unit and tests/smoke"
	@echo "make test-all      run tests/integration and tests/engine"
	@echo "make test-nightly  run tests/nightly: random faults, Ray clusters, pins"
	@echo "make lint          run ruff and mypy"
	@echo "make bench         measure the input pipeline; on a GPU, with the engine (benchmarks/README.md)"
	@echo "make generate      write MLproject and docs/options.md from the option declarations"
	@echo "make lock          resolve the pins of requirements/ and conda.yaml; LOCK_FLAGS=--upgrade takes the newest"
	@echo "make clean         remove the environment, the results and the local tracking store"

demo: $(VENV)/cpu.installed
	@$(BIN)/whisperbench benchmark --model demo --corpus demo

ui: $(VENV)/cpu.installed
	@$(BIN)/whisperbench ui

# Each file in requirements/ is installed once, and again when it changes.
INSTALL = command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed. Install Python 3.11 to 3.13, or name another one: make PYTHON=python3.12" >&2; exit 1; }; \
  $(PYTHON) requirements/install.py

install: $(VENV)/cpu.installed $(EXTRAS:%=$(VENV)/%.installed)

$(VENV)/cpu.installed: requirements/install.py requirements/cpu.txt requirements/torch-cuda.txt
	@$(INSTALL) cpu
	@touch $@

$(VENV)/%.installed: requirements/%.txt $(VENV)/cpu.installed
	@$(INSTALL) $*
	@touch $@

$(VENV)/dev.installed: $(VENV)/ray.installed

# Temporary files on tmpfs where the system has one, because SQLite waits for disks.  A worker per core, at most four: an
# engine takes 4 GB of memory.  PYTEST_FLAGS="-n 0 -x" for other flags of pytest.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores < 4 ? cores : 4)))
test test-all test-nightly: export PYTEST_DEBUG_TEMPROOT ?= $(if $(wildcard /dev/shm),/dev/shm,)
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The real engine takes longest: it begins first (tests/smoke/test_engine.py), beside the other workers.
test: $(VENV)/dev.installed
	$(PYTEST) tests/smoke tests/unit $(PYTEST_FLAGS)

test-all: $(VENV)/dev.installed $(VENV)/server.installed
	$(PYTEST) tests/engine tests/integration $(PYTEST_FLAGS)

# One process at a time: several nodes of Ray run on this host, and Ray gives each of them 30 s to start.
test-nightly: $(VENV)/dev.installed
	$(BIN)/python -m pytest tests/nightly $(PYTEST_FLAGS)

lint: $(VENV)/dev.installed
	ruff check .
	ruff format --check .
	mypy

# On a GPU, in an environment with vLLM's CUDA build (conda.yaml): make bench BENCH_PYTHON="$(which python)"
# BENCH_FLAGS="--repeats 5 --resume true" for the options of `python -m benchmarks.bench --help`.
BENCH_PYTHON ?= $(BIN)/python
bench: $(if $(filter $(BIN)/python,$(BENCH_PYTHON)),$(VENV)/cpu.installed)
	$(BENCH_PYTHON) -m benchmarks.bench $(BENCH_FLAGS)

generate: $(VENV)/cpu.installed
	$(BIN)/python -m whisperbench.cli.generate

lock: $(VENV)/dev.installed
	$(BIN)/python requirements/lock.py $(LOCK_FLAGS)

clean:
	rm -rf $(VENV) results mlflow.db mlruns mlartifacts
