# `make run` and `make test` do everything, on a machine with Python 3.11 to 3.13 and make.
# The newest of them that can make virtual environments; `make run PYTHON=python3.12` names another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11; do \
  $$python -c 'import ensurepip, venv' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Tests that start whole jobs take turns within their file; more than two at once want more cores.
TEST_PROCESSES ?= 2

.PHONY: run test faults bench check lock clean

run: $(VENV)/.run
	$(BIN)/paramserve run examples/census/wide_deep.py:build --ps 2 --workers 2 --sync \
	  --max-steps 2000 --logdir runs/census

test: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Every fault that the tests know how to inject, and not only a choice of them.
faults: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "faults or not faults" \
	  --fault-table docs/fault_matrix.md tests/faults
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m faults tests/jobs

bench: $(VENV)/.bench
	mkdir -p runs
	$(BIN)/python -m paramserve.benchmarks --goals --json runs/benchmarks.json --plot runs/benchmarks.png

check: $(VENV)/.test
	PYTHON=$(BIN)/python scripts/check

$(VENV)/.run: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with its venv module is there: install" \
	  "python3 and python3-venv, or name one with PYTHON=" >&2; exit 1; }
	@echo "setting up $(VENV), once: an environment of $(PYTHON) of this folder's own"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $$(grep -c == requirements.lock) packages, TensorFlow and Ray among them: one to three minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@echo "installing paramserve itself"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.test: $(VENV)/.run requirements-dev.lock
	@echo "installing what the tests need"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	scripts/fetch-prometheus $(BIN)
	touch $@

# PyTorch is a peer to measure against, and needed for nothing else.
$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0+cpu" || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	touch $@

# Resolves the versions anew; both files are checked in. What users get follows what was tested.
COMPILE := pip-compile --quiet --upgrade --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links
lock: $(VENV)/.test
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/$(COMPILE) --extra dev --output-file requirements-dev.lock pyproject.toml
	$(BIN)/$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info
