# Everything a person or CI runs. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# kserve 0.21 does not install on Python 3.14 and later, so a matching interpreter is looked for.
PYTHON ?= $(firstword $(foreach v,python3.12 python3.11 python3.13 python3,$(shell $(v) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $(v))))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

DOCKER ?= $(shell .ci/docker-client)
IMAGES ?= pipeline predictor
REGISTRY ?=
EXTRAS ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PYTHON_IMAGE ?= python:3.11-slim-bookworm
# Who builds, as a URI: in CI its workflow's address.
BUILDER_ID ?= urn:penstock:local
BUILD_OPTIONS = --network=host $(if $(findstring podman,$(DOCKER)),--format=docker) --build-arg VERSION=$(VERSION) $(if $(EXTRAS),--build-arg EXTRAS=$(EXTRAS)) \
	--build-arg REVISION=$(shell git describe --always --dirty=.dirty --exclude='*' 2>/dev/null) \
	--build-arg CREATED=$(shell git log -1 --format=%cI 2>/dev/null)
TOOLS := build/tools

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | while IFS=$$'\t' read -r name text; do printf '  \033[1m%-18s\033[0m %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## Make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV): several GB, some minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Train, gate, deploy and call a classifier on this machine
	@$(BIN)/penstock demo

test: $(INSTALLED) ## The quick tests
	$(PYTEST) -m 'not integration' -n 2 --dist loadfile --no-loadscope-reorder

test-integration: $(INSTALLED) ## The heavy tests: real S3 servers, kill points, load, a cluster
	$(PYTEST) -m 'integration and not load and not release' -n 4 --dist loadgroup --timeout 900
	$(PYTEST) -m load

test-release: $(INSTALLED) ## The long forms of heavy tests, before a release: every architecture, image and table (an hour)
	$(PYTEST) -m release -n 4 --dist loadgroup --timeout 1800

lint: $(INSTALLED) ## ruff, mypy, hadolint and penstock lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/penstock lint manifests

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: $(INSTALLED) ## Compile the pipelines into build/pipelines
	$(BIN)/penstock compile --output build/pipelines

docs: $(INSTALLED) ## Write docs/parameters.md and docs/rules.md from the settings and the rules of lint
	$(BIN)/python -W ignore -m pipelines.cli.params > docs/parameters.md
	$(BIN)/penstock lint --rules --format markdown > docs/rules.md

gallery: $(INSTALLED) ## Make the pictures of docs/gallery.md anew from a real run (minutes; needs Chromium)
	$(BIN)/python docs/gallery.py

image: ## Build both images: penstock-pipeline and penstock-predictor
	@test -n "$(DOCKER)" || { echo "error: no client that can build: install docker.io, docker with its buildx plugin, or podman, and name it: make image DOCKER=/path/to/it"; exit 1; }
	@base="$$(.ci/base-digest $(DOCKER) $(PYTHON_IMAGE))" || exit 1; \
	for image in $(IMAGES); do \
		DOCKER_BUILDKIT=1 $(DOCKER) build $(BUILD_OPTIONS) \
			--build-arg PYTHON_IMAGE="$${base% *}" --build-arg BASE_NAME=$(PYTHON_IMAGE) --build-arg BASE_DIGEST="$${base#* }" --target $$image --tag $(REGISTRY)penstock-$$image:$(VERSION) . || exit 1; \
	done

sbom: $(TOOLS) ## List what is in each image (CycloneDX), and how it was built (SLSA provenance), in build/sbom
	@mkdir -p build/sbom
	@for image in $(IMAGES); do \
		$(DOCKER) run --rm --network none --volume "$$PWD/$(TOOLS)/lib:/tools:ro" --entrypoint python3 $(REGISTRY)penstock-$$image:$(VERSION) \
			-c 'import glob, sys; sys.path += glob.glob("/tools/python3*/site-packages"); from cyclonedx_py._internal.cli import run; sys.exit(run())' \
			environment --output-reproducible /opt/penstock/bin/python3 >build/sbom/penstock-$$image.json || exit 1; \
		echo build/sbom/penstock-$$image.json; \
		$(TOOLS)/bin/python .ci/provenance $(DOCKER) $(REGISTRY)penstock-$$image:$(VERSION) $$image build/sbom/penstock-$$image.json $(BUILDER_ID) || exit 1; \
	done

audit: $(TOOLS) ## Ask an advisory database about every pin; needs pypi.org or api.osv.dev
	@.ci/audit $(TOOLS)/bin/pip-audit

hashes: $(TOOLS) ## Write hashes.txt for the pins of constraints.txt that are new in it; needs a package index
	@$(TOOLS)/bin/python .ci/hashes $(INDEX)

# In an environment of their own: they look at the images and the pins, and are not part of either.
$(TOOLS): Makefile
	@{ $(PYTHON) -m venv $@ && $@/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1 pypi-simple==1.8.0 in-toto-attestation==0.9.3 && touch $@; } || { rm -rf $@; exit 1; }

simulate-gate: $(INSTALLED) ## Simulate every rule of the gate and write the table of docs/gate.md (minutes, seeded)
	$(BIN)/python -m benchmarks.gate

simulate-canary: $(INSTALLED) ## Simulate the judge of live canaries and write the table of docs/rollout.md (seconds, seeded)
	$(BIN)/python -m benchmarks.canary

bench: bench-ingest bench-evaluation bench-scoring bench-registry bench-serving ## All benchmarks, one after the other (an hour; the machine should be idle)

bench-evaluation: $(INSTALLED) ## Evaluation beside the bare onnxruntime pass; OPTIONS='--help' lists what it takes, as for the others
	$(BIN)/python -m benchmarks.evaluation $(OPTIONS)

bench-scoring: $(INSTALLED) ## Batch scoring beside a bare onnxruntime loop
	$(BIN)/python -m benchmarks.scoring $(OPTIONS)

bench-drift: $(INSTALLED) ## What shifts of the pictures cost, beside what drift says without labels (minutes)
	$(BIN)/python -m benchmarks.drift

bench-ingest: $(INSTALLED) ## Ingest beside ImageFolder, webdataset and Hugging Face datasets (minutes)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.ingest $(OPTIONS)

bench-registry: $(INSTALLED) ## Publishing beside cp, sha256sum and boto3
	$(BIN)/python -m benchmarks.registry $(OPTIONS)

bench-training: $(INSTALLED) ## Training beside a reference loop and timm, accuracy against CPU seconds; OPTIONS='--mnist FOLDER'
	$(BIN)/python -m benchmarks.training.bench $(OPTIONS)

bench-serving: $(INSTALLED) ## The predictor beside KServe, MLServer, BentoML, LitServe and a bare server; needs wrk
	$(BIN)/python -m benchmarks.serving.bench $(OPTIONS)

fuzz: $(INSTALLED) ## 100,000 wrong requests to a real predictor, none of which may get a 5xx; OPTIONS='--seed 1'
	$(BIN)/python -m benchmarks.serving.fuzz $(OPTIONS)

clean: ## Remove what was built, the runs and the demo's store; keep .venv
	rm -rf build dist .penstock .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help install demo test test-integration test-release lint format compile docs image sbom audit hashes simulate-gate simulate-canary bench bench-ingest bench-evaluation bench-scoring bench-drift bench-registry bench-training bench-serving fuzz clean gallery
