# What people run and what CI runs are the same targets. Each brings its own environment up to date first.
PYTHON ?= python3
TESTERS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= data/icons
RUNS ?= runs
OUT ?= out
PROFILE ?= cpu
NICE ?= 0
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile

.PHONY: help venv demo test test-page test-clients check bench bench-clip bench-karlo bench-server icons gpu-pack
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
	  --seed 0 --grid --out $(OUT)/demo

test: venv ## the whole test suite
	$(PYTEST)

test-page: venv ## the page in a real Chromium, which has to be there, as npm has
	$(PYTEST) tests/page

test-clients: $(VENV)/clients/.installed ## the clients that people have, each in an environment of its own; needs node and npm
	$(PYTEST) tests/clients

$(VENV)/clients/.installed: $(addprefix tests/clients/,legacy.txt second.txt package.json) | venv
	for client in legacy second; do \
	  $(PYTHON) -m venv --without-pip $(VENV)/clients/$$client && \
	  $(BIN)/pip --python $(VENV)/clients/$$client install --quiet --disable-pip-version-check --no-deps --no-compile \
	    --requirement tests/clients/$$client.txt || exit; \
	done
	mkdir -p $(VENV)/clients/node && cp tests/clients/package.json $(VENV)/clients/node
	npm install --prefix $(VENV)/clients/node --no-audit --no-fund --no-package-lock --loglevel=error
	touch $@

check: venv ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: venv ## training and painting against peers and the machine's limit, each ends in one line of JSON
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/peer --requirement benchmarks/peer.txt
	PYTHONPATH=$(VENV)/peer $(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/generate.py

bench-clip: venv ## pictures indexed against transformers, a query over a million rows against faiss; ten minutes
	$(BIN)/python benchmarks/clip.py

bench-karlo: venv ## Karlo's networks at full size against diffusers, and their memory: 11 GB of it, 7 GB of disk, ten minutes
	$(BIN)/python benchmarks/karlo.py
	$(BIN)/python benchmarks/memory.py

bench-server: venv ## a served process against its targets: speed, overload, growth, deaths, attacks; ten minutes
	$(BIN)/python benchmarks/server.py
	$(BIN)/python benchmarks/server.py --model icons
	$(BIN)/python benchmarks/batching.py

icons: venv ## the shipped model from nothing: artwork, every part, bundle, figures; the same command goes on (docs/training.md)
	PYTHON=$(BIN)/python DATA=$(DATA) RUNS=$(RUNS) PROFILE=$(PROFILE) NICE=$(NICE) scripts/train_icons.sh $(STEPS)

gpu-pack: venv ## what training on a machine without a network needs beside this repository, in gpu-pack/
	$(BIN)/python scripts/gpu_pack.py $(PACK)
