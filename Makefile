# Every target does its own set-up: on a fresh machine `make demo` creates .venv, installs, and runs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/brain-mri

.PHONY: demo test test-all evidence lint types contracts check bench docs install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the brain-MRI study, from nothing to a page that opens from disk ($(RUN)/page/index.html)"
	@echo "make test    the default test suite (under ten minutes on two cores)"
	@echo "make test-all  the slow tests too, with coverage"
	@echo "make lint    ruff, mypy --strict, import contracts"
	@echo "make bench   the benchmarks, as ratios within one run"
	@echo "make evidence  what is claimed over hundreds of seeds, measured again where its code changed (hours)"
	@echo "make docs    the documentation, into site/"

# Stamped by what decides the environment's content, so that a second call costs nothing.
$(VENV)/installed: pyproject.toml mechinterp/_version.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

install: $(VENV)/installed

demo: $(VENV)/installed
	$(BIN)/mechinterp study brain-mri --out $(RUN)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

test-all:
	$(MAKE) --no-print-directory test PYTEST_ARGS="-m 'slow or not slow' --cov --cov-report=term"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the peers pin packages that fit no environment together: they lie in a folder of their own, without dependencies
PEERS := overcomplete==0.3.0 dictionary-learning==0.1.0 opencv-python-headless einops
.bench/installed: Makefile
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .bench $(PEERS)
	touch $@

bench: $(VENV)/installed .bench/installed
	$(BIN)/python -m benchmarks --all

evidence: $(VENV)/installed
	$(BIN)/python -m evidence $(NAMES)

docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
