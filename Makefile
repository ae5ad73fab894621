# Needs Python >= 3.11, git and make; everything else goes into .venv, nothing is installed outside it.
# Another Python: make quickstart PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# One thread a core; a file's tests share its fixtures in one process.
FAST := OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not gpu" --timeout 300 -n auto --maxprocesses 8 --dist loadfile \
  --durations 30
INPUTS := $(VENV)/.made pyproject.toml constraints.txt
TOOLS := build/tools
OLDEST := build/oldest
PYTHONS ?= 3.11 3.12 3.13
# They fork their work, which torch forbids where other tests ran backward.
FAULTS := tests/robustness/test_faults.py
SUITE ?= all
JSON ?= build/bench.json

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart photographs test check slow gpu bench coverage mutants oldest wheels audit licences lint format docs notebooks clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

quickstart: $(VENV)/.runtime  ## train a small network, ask it questions, leave pictures in runs/quickstart
	$(BIN)/python -m progressive_attention quickstart --out runs/quickstart

photographs: $(VENV)/.photographs  ## ask the network of photographs about a kingfisher; prints the answer and its picture
	$(BIN)/python -m progressive_attention predict examples/photographs/photos/kingfisher.jpg --weights photographs-pan \
	  --query bird

test: lint  ## style, types, and the tests of each part
	$(FAST) tests/unit tests/contract

check: $(VENV)/.dev  ## the rest of the gate: commands, pages, documents, campaigns, faults and fuzz
	$(FAST) tests/flows tests/robustness --ignore $(FAULTS)
	$(FAST) $(FAULTS)

slow: $(VENV)/.dev  ## the slow tests: whole trainings, shipped weights re-measured
	$(PYTEST) -m slow

gpu: $(VENV)/.dev  ## the tests that need a CUDA device
	$(PYTEST) -m gpu

bench: $(VENV)/.dev  ## speed, beside what else there is: make bench SUITE=step QUICK=1 JSON=step.json
	$(BIN)/python -m benchmarks.bench --suite $(SUITE) $(if $(QUICK),--quick) --json $(JSON)

oldest: $(TOOLS)/.made  ## the fast tests with the oldest dependencies that pyproject.toml allows, on Python 3.11
	$(TOOLS)/bin/uv venv --quiet --clear --python 3.11 $(OLDEST)
	$(TOOLS)/bin/uv pip compile --quiet --no-deps --resolution lowest-direct pyproject.toml -o $(OLDEST)/direct.txt
	$(TOOLS)/bin/uv pip install --quiet --python $(OLDEST) -c $(OLDEST)/direct.txt -e '.[dev]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -m "not slow and not gpu" --timeout 300 -n auto --maxprocesses 8 \
	  --ignore $(FAULTS)

wheels: $(TOOLS)/.made  ## build sdist and wheel, try them in bare environments: make wheels PYTHONS="3.11 3.13"
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(TOOLS)/bin/python tools/check_wheels.py $(PYTHONS)

audit: $(TOOLS)/.made  ## known vulnerabilities of the pinned versions, asked of PyPI
	$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

coverage: $(VENV)/.dev  ## lines and branches that the fast tests run
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not gpu" --timeout 600 -n auto --maxprocesses 8 --ignore $(FAULTS) \
	  --cov --cov-report term:skip-covered

mutants: $(VENV)/.dev  ## mutants of the equations, geometry, metrics and scenes that no test notices
	ulimit -v 16777216; OMP_NUM_THREADS=1 $(BIN)/mutmut run  # 16 GiB: one mutant asks for all there is
	$(BIN)/mutmut results

licences: $(TOOLS)/.made $(VENV)/.dev  ## what the installed packages state, for docs/trust.md and constraints.txt
	$(TOOLS)/bin/pip-licenses --python $(BIN)/python --order license --format markdown

lint: $(VENV)/.dev  ## ruff, import-linter and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright --pythonpath $(BIN)/python src

format: $(VENV)/.dev  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev  ## the documentation as a site in site/, nothing of it from elsewhere
	$(BIN)/python tools/build_site.py site

notebooks: $(VENV)/.dev  ## run the notebooks of docs/notebooks again and keep what they show
	$(BIN)/python tests/support/run_notebooks.py

clean:  ## caches and build products; keeps .venv and runs
	rm -rf build dist site mutants .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and .venv too
	rm -rf $(VENV)

# Stamps: a second run is instant; a change of pyproject.toml or constraints.txt installs again.
$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: no '$(PYTHON)' here; name a Python >= 3.11: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: needs Python >= 3.11, got $$("$(PYTHON)" --version 2>&1);" \
	    "name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' cannot make virtual environments (its ensurepip or venv module is missing);" \
	    "on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(TOOLS)/.made:
	"$(PYTHON)" -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv pip-audit pip-licenses
	@touch $@

$(VENV)/.runtime: $(INPUTS)
	@echo "Installing into $(VENV): a minute or two; on Linux about 6 GB, most of it PyTorch's CUDA libraries."
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.photographs: $(INPUTS)
	@echo "Installing into $(VENV): a minute or two; on Linux about 6 GB, most of it PyTorch's CUDA libraries."
	$(PIP) install -c constraints.txt -e '.[photographs]'
	@touch $(VENV)/.runtime $@

$(VENV)/.dev: $(INPUTS)
	@echo "Installing into $(VENV): a minute or two; on Linux about 6 GB, most of it PyTorch's CUDA libraries."
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.runtime $@
