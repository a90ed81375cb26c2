# Everything a person or CI runs. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# kserve 0.21 does not install on Python 3.14 and later, so a matching interpreter is looked for.
PYTHON ?= $(firstword $(foreach v,python3.12 python3.11 python3.13 python3,$(shell $(v) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $(v))))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | while IFS=$$'\t' read -r name text; do printf '  \033[1m%-18s\033[0m %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## Make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Train, gate, deploy and call a classifier on this machine
	@$(BIN)/penstock demo

test: $(INSTALLED) ## The quick tests
	$(PYTEST) -m 'not integration' -n 2 --dist loadfile

test-integration: $(INSTALLED) ## The heavy tests: real S3 servers, kill points, load
	$(PYTEST) -m integration

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: $(INSTALLED) ## Compile the pipelines into build/pipelines
	$(BIN)/penstock compile --output build/pipelines

clean: ## Remove what was built, the runs and the demo's store; keep .venv
	rm -rf build dist .penstock .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help install demo test test-integration lint format compile clean
