# make demo   a real benchmark run on any machine, then: make ui
# make test   the whole suite
# make help   the rest

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PYTHONPATH := src
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db

.PHONY: help demo ui test check bench lock mlproject server user clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install the CPU environment and run the demo benchmark (no GPU, no hub needed)"
	@echo "make ui      browse the runs at http://127.0.0.1:5000"
	@echo "make test    install the development tools and run every test"
	@echo "make check   ruff and mypy"
	@echo "make bench   measure the front end alone; on a GPU, with the engine: see the README"
	@echo "make mlproject   write MLproject anew from the option records"
	@echo "make server  the team's tracking server (README: A server for the team); make user LOGIN=ann adds a teammate"
	@echo "make lock    resolve the pins of requirements/ and conda.yaml anew (needs uv)"

demo: $(VENV)/cpu.installed
	@mlflow run . --env-manager local --experiment-name whisperbench -P model=demo -P corpus=demo

ui: $(VENV)/cpu.installed
	mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI)

test: check $(VENV)/server.installed
	$(BIN)/python -m pytest

check: $(VENV)/dev.installed
	ruff check .
	ruff format --check .
	mypy

# On a GPU: make bench BENCH_PYTHON="$(which python)", inside an environment with vLLM's CUDA build (conda.yaml).
BENCH_PYTHON ?= $(BIN)/python
bench: $(if $(filter $(BIN)/python,$(BENCH_PYTHON)),$(VENV)/cpu.installed)
	$(BENCH_PYTHON) -m tests.benchmarks.bench

# torch first and by itself, with whatever its build needs; then everything else exactly as pinned.
# The CPU pins leave out torchaudio, torchvision and torchcodec: their only builds on the index are for CUDA.
$(VENV)/cpu.installed: requirements/cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/cpu.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/cpu.txt
	touch $@

$(VENV)/dev.installed: $(VENV)/cpu.installed requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/dev.txt
	touch $@

RESOLVE := uv pip compile pyproject.toml --upgrade --no-header --no-annotate --quiet
FOR_CPU := --override requirements/cpu-overrides.txt --universal --python-version 3.11
SUPPORTED := python_full_version < '3.14' and platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'
# Lines read better without the marker that holds for everything that is supported.
PLAIN   := sed -i -e "s/ ; $(SUPPORTED)$$//" -e "s/ and $(SUPPORTED)$$//" 

lock:
	$(RESOLVE) $(FOR_CPU) --extra cpu --extra demo --extra dev --output-file requirements/all.tmp
	$(RESOLVE) $(FOR_CPU) --extra cpu --extra demo --constraint requirements/all.tmp --output-file requirements/cpu.txt
	$(PLAIN) requirements/all.tmp requirements/cpu.txt
	grep --invert-match --line-regexp --fixed-strings --file requirements/cpu.txt requirements/all.tmp > requirements/dev.txt
	echo "torch==2.13.0" >> requirements/cpu.txt
	rm requirements/all.tmp
	$(RESOLVE) --extra gpu --python-version 3.12 --python-platform x86_64-manylinux_2_28 --output-file requirements/gpu.txt
	$(PYTHON) -c 'pins = open("requirements/gpu.txt").read().splitlines(); \
	  head = open("conda.yaml").read().partition("  - pip:\n"); \
	  open("conda.yaml", "w").write(head[0] + head[1] + "".join(f"      - {pin}\n" for pin in pins))'

mlproject: $(VENV)/cpu.installed
	$(BIN)/python -m flows.project_file > MLproject.new && mv MLproject.new MLproject

# The team's server: make server STORE=postgresql://… ALLOWED_HOSTS=mlflow.example.org (all settings: flows/server/serve)
server: $(VENV)/server.installed
	flows/server/serve

user: $(VENV)/server.installed
	python flows/server/adduser $(LOGIN)

$(VENV)/server.installed: requirements/server.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/cpu.txt \
	  --requirement requirements/server.txt mlflow
	touch $@

clean:
	rm -rf $(VENV) results mlflow.db mlruns mlartifacts
