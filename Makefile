# make repro: the study, from nothing to the report.   make test: the tests.   make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
test soak: export OMP_NUM_THREADS := 1

.PHONY: help repro search tune study test soak check audit licences format ui lock clean
.DEFAULT_GOAL := help

help:           ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

repro: $(VENV)/.run   ## build the environment, run the study, end with its results; KEEP_GOING=1: past cells that fail; several GPUs: cells side by side
	@python -m pipeline check
	@if [ "$$(nvidia-smi --list-gpus 2>/dev/null | wc -l)" -gt 1 ]; then python -m pipeline run; \
	  else dvc repro $(if $(KEEP_GOING),--keep-going || { python -m stages.report; exit 1; }); fi
	@python -m pipeline show

search: $(VENV)/.run  ## look for good block transformers, as the section search of params.yaml says
	@dvc repro search/dvc.yaml

tune: $(VENV)/.run    ## tune the recipes of models, as the section tune of params.yaml says
	@dvc repro tune/dvc.yaml

study: $(VENV)/.run   ## run one of studies/ in runs/NAME (make study NAME=block_length; CELLS="A B": these cells; SEARCH=1, TUNE=1: its search, its tuning); without NAME, list them
	@python -m pipeline study $(NAME) $(CELLS) $(if $(SEARCH),--search) $(if $(TUNE),--tune)

# Tests start many processes: compiled code is kept for them, where the environment says otherwise too.
test: $(VENV)/.test   ## build the environment, run the tests
	PYTHONDONTWRITEBYTECODE= python -m pytest -n logical -m "not slow and not gpu"

soak: $(VENV)/.test   ## the long tests, then the study with faults at random for MINUTES=30 (two hours or more)
	python -m pytest -n logical -m "slow and not gpu"
	python -m tests.faults.soak $(or $(MINUTES),30)

audit: $(VENV)/.dev   ## known vulnerabilities of what requirements.lock pins; needs the network
	@python -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet pip-audit || \
	  { echo "error: make audit: pip-audit cannot be installed; it needs the network" >&2; exit 1; }
	@$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock || \
	  { echo "error: make audit: a package above is vulnerable, or could not be looked up" >&2; exit 1; }

licences: $(VENV)/.run ## the licence of every package that is installed
	@python -m pipeline.commands.licences

check: $(VENV)/.dev   ## lint, types, formatting
	ruff check .
	ruff format --check .
	mypy

format: $(VENV)/.dev  ## format the code
	ruff check --fix .
	ruff format .

ui: $(VENV)/.run      ## MLflow's UI on 127.0.0.1
	@python -m pipeline ui

lock:           ## write requirements.lock anew from pyproject.toml (torch stays as pinned there)
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet "$$(grep '^torch==' requirements.lock)" -e '.[dev]'
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu$$//' > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf $(VENV)-lock

clean:          ## remove the environment; results stay
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("error: Python %d.%d found; 3.11 or newer is needed (PYTHON=... make)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $@
