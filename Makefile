# Everything a user types. `make` alone lists the targets.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
STAMP := $(VENV)/.edgewise-installed
EXTRAS ?= dev
WORKERS ?= 2
PYTEST = python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-fast test-all test-formats test-pipeline test-system coverage arm64 check remeasure report-only case-study ui docs constraints

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install the pinned set (once; again after pyproject.toml or constraints.txt changed); EXTRAS=train,onnx: less of it

# an EXTRAS that was given is installed whatever was before
$(STAMP): pyproject.toml constraints.txt $(if $(filter file,$(origin EXTRAS)),,given)
.PHONY: given
# setuptools warns of every editable install
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is too old; Edgewise needs Python 3.11 or newer: make setup PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --progress-bar on -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

repro: setup ## run the pipeline and print the table; PROFILE=smoke|quick|standard: measure for a shorter or longer time
	$(if $(PROFILE),EDGEWISE_PROFILE=$(PROFILE) )dvc repro
	@edgewise report

test: setup ## the test suite, without the contracts of formats and whole runs of the pipeline (five minutes on two cores)
	$(PYTEST) --durations=10

test-fast: setup ## what needs no framework, no long simulation and no process to wait for (a minute)
	$(PYTEST) --fast --durations=10

test-formats: setup ## the contract of every format and source, and each format by itself (two minutes)
	$(PYTEST) -m "formats and not slow and not pipeline" --durations=10

test-pipeline: setup ## whole runs of the pipeline and of a sweep, and what must come out the same twice (three minutes)
	$(PYTEST) -m "pipeline and not slow" --durations=10

test-all: setup ## every test: also many runs of the pipeline, long simulations, TensorFlow, and the system tests
	$(PYTEST) -m "not system" -W default -rs --durations=10
	$(MAKE) test-system

coverage: setup ## which lines of edgewise/ and stages/ the test suite runs
	$(PYTEST) --cov --cov-report=term

test-system: setup ## tests with a real sshd, network, control groups and emulated arm64; two files at a time; as root on Debian they install what they need
	tests/system/install.sh
	edgewise/devices/arm64.sh || echo "skipped by the system tests: all that needs an emulated arm64 board, for the reason above"
	$(PYTEST) -m system -W default -rs --durations=10

arm64: setup ## build an emulated arm64 board in .arm64/ (390 MB, a minute, no root; Debian) for device.name=arm64_emulated
	edgewise/devices/arm64.sh

check: setup ## format, lint, types, and the length of files and functions
	ruff format --check edgewise stages tests benchmarks
	ruff check edgewise stages tests benchmarks
	mypy
	python tests/support/lengths.py

remeasure: setup ## measure one variant again although nothing changed: make remeasure V=onnx-int8-static
	@test -n "$(V)" || { echo "error: say which variant: make remeasure V=onnx-int8-static"; exit 1; }
	dvc repro --single-item --force "bench-on-device@$(V)"
	dvc repro report track

report-only: setup ## run report and track on the existing measurements, with the device unplugged
	@test -d models/bench || { echo "error: nothing was measured in this folder yet; make repro does that"; exit 1; }
	dvc repro --single-item visits
	dvc repro --single-item report
	dvc repro --single-item track

case-study: setup ## run the study of the smart camera, from scratch, on generated pictures
	edgewise study smart-camera

ui: setup ## compare the runs in the MLflow UI at http://127.0.0.1:5000
	mlflow ui --backend-store-uri "sqlite:///$(CURDIR)/mlflow.db" --host 127.0.0.1

docs: setup ## the documentation as a site in build/site/, strict about links
	python -m benchmarks.reference --check
	NO_MKDOCS_2_WARNING=1 mkdocs build

constraints: setup ## write constraints.txt from the installed packages
	{ echo "# The versions that the test suite ran with (pip install -c constraints.txt). Renew with: make constraints"; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.txt
