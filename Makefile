# Everything runs from .venv; 'make env' builds it once from the pinned versions.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help env sweep test lint mlflow clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

env: $(STAMP)  ## create .venv with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is too old: need Python 3.11 or newer, e.g. make env PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv: 5.4 GB with torch's CUDA libraries, some minutes on a fast line."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]' > .venv/pip.log 2>&1 \
	  || { tail -n 40 .venv/pip.log; echo "pip failed; the whole log is .venv/pip.log"; exit 1; }
	@touch $@

sweep: env  ## run the resolution sweep on the built-in data; ARGS="--workers 4"
	$(BIN)/python jobs/sweep_resolution.py $(ARGS)

test: lint  ## lint, then the tests that need neither a GPU nor minutes
	$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

lint: env  ## style, types, import contract, spelling
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(BIN)/codespell

mlflow: env  ## open the comparison page of finished sweeps
	$(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db

clean:  ## remove caches and build leftovers; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
