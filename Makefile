# Everything a fresh machine with Python (3.11 to 3.13) and make needs; `make help` lists the targets.

PYTHON ?= python3
BIN := .venv/bin
# Compiled at once: importing TensorFlow, which every step of a run does, takes half as long. uv gives up on a file after
# 60 s, which a busy machine can take.
UV := UV_COMPILE_BYTECODE_TIMEOUT=600 $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --python

# TensorFlow Data Validation has an environment of its own; where glibc is older than 2.39, an older version of it.
OLD_GLIBC := $(shell $(PYTHON) -c "import platform as p; name, v = p.libc_ver(); print('-old-glibc' if name == 'glibc' and tuple(map(int, v.split('.'))) < (2, 39) else '')")
VALIDATE_LOCK := requirements/validate$(OLD_GLIBC).txt
READY := .venv/.ready .venv-validate/.ready

# The images of `make run RUNNER=docker`.
CPU_IMAGES := light data train validate score
# Not given: as the last time, or python:3.13-slim-trixie and gpu.
BASE_IMAGE ?=
TRAIN_DEVICE ?=
BUILD := $(BIN)/python -m components.build --base-image "$(BASE_IMAGE)" --train-device "$(TRAIN_DEVICE)"

# Settings of `make run`.
DATA ?= sample
RUNNER ?= subprocess
WEIGHTS ?=
TILES ?=
ARGS ?=
LOGDIR ?= tensorboard
CRDS ?=
# Settings of `make test-endpoint`.
URL ?=
NAME ?= school-classifier
GRPC ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-endpoint tensorboard bench lint format type manifests images cpu-images push test-images compile lock image-locks clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run DATA=folder WEIGHTS='weights.h5 …' ARGS='--min-accuracy 0.9 …'   (ARGS: sat_xception run --help)"

setup: $(READY) ## Make the environments that everything else needs (run and test do it by themselves)

run: $(READY) $(if $(filter docker,$(RUNNER)),cpu-images) ## Run the whole pipeline here: on the synthetic sample, or on DATA=folder with WEIGHTS=file
	@$(BIN)/sat_xception run --runner "$(RUNNER)" --data "$(DATA)" $(foreach file,$(WEIGHTS),--weights "$(file)") $(ARGS)

# Work stealing keeps neighbours together, so that a module's fixtures are made by both workers for few modules.
# Bytecode is kept, whatever the environment says: to compile the tests anew costs each worker seven seconds.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal --max-worker-restart 0
HERE := not cluster and not gpu and not docker

test: $(READY) ## Run the quick tests, after every change; ARGS=tests/unit/train runs those of one package
	$(PYTEST) -m "not slow and $(HERE)" $(ARGS)

test-all: test ## Run every test that needs no cluster, no GPU and no Docker: the quick ones, then the slow ones
	$(PYTEST) -m "slow and $(HERE)" $(ARGS) $(if $(ARGS),|| test $$? = 5) # where ARGS selects no slow test

test-endpoint: $(READY) ## Run the contract tests against a running endpoint: URL=http://host:port, NAME=model, GRPC=host:port
	@test -n "$(URL)" || { echo "give its address: make test-endpoint URL=http://host:8501 NAME=school-classifier GRPC=host:8500"; exit 2; }
	ENDPOINT_URL="$(URL)" ENDPOINT_NAME="$(NAME)" ENDPOINT_GRPC="$(GRPC)" $(BIN)/pytest tests/endpoint $(ARGS)

tensorboard: $(READY) ## Show the curves of trainings in LOGDIR=folder, as given to --tensorboard
	$(BIN)/tensorboard --logdir "$(LOGDIR)"

lint: $(READY) manifests ## Check style, formatting, imports, wording and manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.words

manifests: $(READY) ## Build every overlay with kustomize and check each object; CRDS=folder for your cluster's KServe
	@$(BIN)/python -m tests.manifests.check $(if $(CRDS),--crds "$(CRDS)")

bench: $(READY) ## Measure against peers on this machine, which should do nothing else: some 15 minutes, and 15 more with TILES=folder WEIGHTS=file.h5
	$(BIN)/python bench/assemble.py
	$(BIN)/python bench/assemble_memory.py 1000 10000 100000
	$(BIN)/python bench/convert.py 1000 20000 --pixels 256
	$(BIN)/python bench/bulk_kills.py 1000 10000
	$(if $(TILES),$(BIN)/python bench/bulk.py "$(TILES)" "$(WEIGHTS)",@echo "bulk: give TILES and WEIGHTS")
	$(if $(TILES),$(BIN)/python bench/training.py "$(TILES)" "$(WEIGHTS)",@echo "training: give TILES=folder of class folders and WEIGHTS=a MobileNetV2 .h5 file")
	$(if $(TILES),$(BIN)/python bench/endpoint.py "$(TILES)" "$(WEIGHTS)",@echo "endpoint: give TILES and WEIGHTS")

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY) ## Check types
	$(BIN)/mypy

images: $(READY) ## Build the images whose content has changed; BASE_IMAGE=…, TRAIN_DEVICE=cpu: docs/images.md
	@$(BUILD)

cpu-images: $(READY)
	@$(BUILD) $(CPU_IMAGES)

push: $(READY) ## Push the images to REGISTRY=ghcr.io/me/project, built with the options of `make images`
	@test -n "$(REGISTRY)" || { echo "give the registry: make push REGISTRY=ghcr.io/me/project"; exit 2; }
	@$(BUILD) --push "$(REGISTRY)"

test-images: $(READY) ## Check every image that was built
	$(BIN)/pytest -m docker tests/containers

compile: $(READY) ## Compile the pipelines to build/: YAML for kfp, and manifests for kubectl
	$(BIN)/python -m pipelines.compile

# UPGRADE= keeps every version that still fits.
UPGRADE ?= --upgrade
LOCK := $(BIN)/uv pip compile --quiet $(UPGRADE) --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
IMAGE_LOCKS := components/locks
IMAGE_LOCK := $(LOCK) --universal --python-version 3.13 -c requirements/dev.txt
# Where it has a wheel, the images take tensorflow-cpu, under whatever name a package asks for it.
CPU := --override $(IMAGE_LOCKS)/tensorflow-cpu-override.txt $(IMAGE_LOCKS)/tensorflow-cpu.in
# They have no wheel, and nothing here uses them: see sat_xception/validation/tfdv_import.py.
WITHOUT_SOURCES := --no-emit-package pyfarmhash --no-emit-package google-apitools

lock: .venv/.ready ## Resolve the dependencies again and write every requirements file; UPGRADE= keeps versions that fit
	$(LOCK) --universal --python-version 3.11 --extra dev pyproject.toml -o requirements/dev.txt
	$(LOCK) --universal --python-version 3.11 $(WITHOUT_SOURCES) --extra validate pyproject.toml -o requirements/validate.txt
	$(LOCK) --python-version 3.11 $(WITHOUT_SOURCES) requirements/validate-old-glibc.in -o requirements/validate-old-glibc.txt
	$(MAKE) image-locks

image-locks: .venv/.ready
	$(IMAGE_LOCK) --extra light pyproject.toml -o $(IMAGE_LOCKS)/light.txt
	$(IMAGE_LOCK) --extra data pyproject.toml -o $(IMAGE_LOCKS)/data.txt
	$(IMAGE_LOCK) --extra train $(CPU) pyproject.toml -o $(IMAGE_LOCKS)/train.txt
	$(IMAGE_LOCK) --extra train --extra gpu pyproject.toml -o $(IMAGE_LOCKS)/train-gpu.txt
	$(IMAGE_LOCK) --extra score $(CPU) pyproject.toml -o $(IMAGE_LOCKS)/score.txt
	$(LOCK) --python-version 3.13 --python-platform x86_64-manylinux_2_39 $(WITHOUT_SOURCES) --extra validate $(CPU) pyproject.toml -o $(IMAGE_LOCKS)/validate.txt
	grep '^kfp==' requirements/dev.txt | tr -d ' \\' | $(LOCK) --no-deps - -o $(IMAGE_LOCKS)/kfp-runtime.txt

clean: ## Remove the environments and everything that was built (not runs/ and models/)
	rm -rf .venv .venv-validate build dist .mypy_cache .pytest_cache .ruff_cache

.venv/.ready: requirements/uv.txt requirements/dev.txt pyproject.toml
	@echo "set-up    main environment (.venv)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 …")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { echo "python3 can't make environments; on Debian and Ubuntu: apt-get install python3-venv"; rm -rf .venv; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) $(BIN)/python -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# pyfarmhash needs a compiler and google-apitools a build; nothing here uses them, so they are left out of the lock: see
# sat_xception/validation/tfdv_import.py.
.venv-validate/.ready: $(VALIDATE_LOCK) .venv/.ready
	@echo "set-up    TensorFlow Data Validation (.venv-validate)"
	@$(BIN)/uv venv --quiet --clear $(if $(OLD_GLIBC),--python 3.11,--python $(BIN)/python) .venv-validate
	@$(UV) .venv-validate/bin/python --no-deps --only-binary :all: -r $(VALIDATE_LOCK)
	@touch $@
