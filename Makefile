# What people run and what CI runs are the same targets. Each brings its own environment up to date first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= data/icons
RUNS ?= runs
OUT ?= out
PROFILE ?= cpu
NICE ?= 0

.PHONY: help venv demo test test-page check bench bench-karlo icons gpu-pack
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.installed ## the environment in .venv, at the versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv ## four pictures by the shipped model, in out/demo
	$(BIN)/unclip generate \
	  "a 3d render of a tangerine" "a flat icon of a cactus" "a noto emoji of a red apple" "a twemoji of a red heart" \
	  --seed 7 --grid --out $(OUT)/demo

test: venv ## the whole test suite
	$(BIN)/python -m pytest

test-page: venv ## the page in a real Chromium, which has to be there, as npm has
	$(BIN)/python -m pytest tests/page

check: venv ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: venv ## training and painting against peers and the machine's limit, each ends in one line of JSON
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/peer --requirement benchmarks/peer.txt
	PYTHONPATH=$(VENV)/peer $(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/generate.py

bench-karlo: venv ## Karlo's networks at full size against diffusers, and their memory: 11 GB of it, 7 GB of disk, ten minutes
	$(BIN)/python benchmarks/karlo.py
	$(BIN)/python benchmarks/memory.py

icons: venv ## the shipped model from nothing: artwork, every part, bundle, figures; the same command goes on (docs/training.md)
	PYTHON=$(BIN)/python DATA=$(DATA) RUNS=$(RUNS) PROFILE=$(PROFILE) NICE=$(NICE) scripts/train_icons.sh $(STEPS)

gpu-pack: venv ## what training on a machine without a network needs beside this repository, in gpu-pack/
	$(BIN)/python scripts/gpu_pack.py $(PACK)
