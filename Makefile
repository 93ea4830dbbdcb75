# `make demo`, `make test` and `make docs` each do all of their own set-up: a virtual environment, the package, the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FAST := tests/architecture tests/catalog tests/core tests/design tests/evaluation tests/inference tests/report tests/study
EXTRAS := maps,stac,zarr,trees,distributed,docs,test

# one thread a library: the tests run side by side as it is, and run here as in continuous integration
test test-fast docs: export OMP_NUM_THREADS = 1
test test-fast docs: export MKL_NUM_THREADS = 1
test test-fast docs: export OPENBLAS_NUM_THREADS = 1
test test-fast docs: export NUMBA_NUM_THREADS = 1

.PHONY: demo test test-fast lint docs clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/python pipelines/simulated_trial.py

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# what can be told in minutes: no fits over many trials, nothing marked slow
test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not statistical and not slow" $(FAST)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "The documentation is at docs/_build/html/index.html"

# the install is redone when what is installed changes
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) outputs build docs/_build docs/api docs/examples docs/results docs/command_line_help.md docs/messages.md *.egg-info .pytest_cache .mypy_cache .ruff_cache
