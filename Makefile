# make help says what there is. Nothing needs to be installed first but Python 3.11+ with venv, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

# Two shells that run make at once take turns where flock exists (Linux); elsewhere run one at a time.
FLOCK := $(shell command -v flock 2>/dev/null)
LOCKED = $(if $(FLOCK),$(FLOCK) build/$(1).lock) sh -euc

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-gpu check clean distclean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## index the demo gallery, query it, draw the hits as build/demo/hits.png
	@mkdir -p $(DEMO)
	@$(call LOCKED,demo) '\
	  $(BIN)/retrieve index data/gallery --index $(DEMO)/index; \
	  $(BIN)/retrieve query data/queries --index $(DEMO)/index -k 5 --sheet $(DEMO)/hits.png'
	@echo "The hits as pictures: $(DEMO)/hits.png"

test: $(VENV)/.installed-dev ## run the tests (a few minutes at most)
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev ## run the full counts of kills and loads
	@$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.installed-dev ## run the tests that need a CUDA device
	@$(BIN)/python -m pytest -m gpu

check: $(VENV)/.installed-dev ## lint, formatting, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_layers.py

clean: ## remove what was made here, except the environment
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find retrieval indexer tests benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the environments as well
	rm -rf $(VENV) benchmarks/peers/*/.venv

# Stamps: an environment is made again when pyproject.toml is newer. Whoever waited for the lock looks again.
$(VENV)/.installed: TARGET := .
$(VENV)/.installed-dev: TARGET := .[dev]
$(VENV)/.installed $(VENV)/.installed-dev: pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "retrieve needs Python 3.11 or newer, $(PYTHON) was not found: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "retrieve needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=python3.12" >&2; exit 1; }
	@mkdir -p build
	@$(call LOCKED,install) '\
	  if [ -e $@ ] && [ ! pyproject.toml -nt $@ ]; then exit 0; fi; \
	  echo "Installing into $(VENV) ..." >&2; \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable "$(TARGET)"; \
	  touch $@'
